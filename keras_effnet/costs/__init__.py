"""What a network costs: weights, multiply-adds, activation memory; counted, not measured.

    cost = keras_effnet.cost(model)
    cost.params, cost.macs, cost.activation_bytes, cost.per_layer

The model is not run and nothing is allocated: its layers are read one by one (`rules`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from keras_effnet.costs.dry_run import DryRun
from keras_effnet.costs.rules import RULES, Counted, Rule, Shape
from keras_effnet.costs.time_distributed import StepCall, unrolled
from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.builder import BuildOptions, build_model, check_input_shape, is_whole
from keras_effnet.network.reader import INPUT, Call, CallGraph, read_graph
from keras_effnet.network.variants import Variant, architecture_of, get_variant

__all__ = ["Cost", "Counted", "LayerCost", "Rule", "cost", "cost_of_graph", "cost_of_variant"]

BYTES = 4  # of a float32
_SUMMED = ("params", "macs", "activation_bytes", "statistics", "file_bytes")  # what blocks add up


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer call, or a block of them.

    Attributes:
        name: of the layer or block.
        kind: class of the layer; `"block"` for a block.
        output_shape: for one picture, (H, W, C) or (C,).
        params: trained weights.
        macs: multiply-adds for the whole batch.
        activation_bytes: what it writes, for the whole batch.
        statistics: means and variances.
        file_bytes: its weights and statistics as float32.
    """

    name: str
    kind: str
    output_shape: Shape
    params: int
    macs: int
    activation_bytes: int
    statistics: int
    file_bytes: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs.

    Attributes:
        input_shape: of one picture, (H, W, C); of the first input where there are several.
        input_shapes: of each input.
        batch: pictures per call.
        params: trained weights: kernels, biases, gammas and betas. Freezing changes nothing here.
        statistics: means and variances; `params + statistics` is Keras' `count_params()`.
        macs: multiply-adds of convolutions and dense layers, for the batch. FLOPs as processors
            count them are twice that; papers on mobile networks call multiply-adds FLOPs.
        normalized_values: values that batch normalizations write, for the batch. Inference folds
            these away; fvcore, and so timm's table, charges two for each.
        activation_bytes: outputs of all layers together: what training keeps for the gradients.
        peak_activation_bytes: the most that is alive at once at inference, layer by layer, without
            the fusions of a runtime.
        file_bytes: all weights as float32, whatever an activation takes. A file adds its headers and
            the graph.
        per_layer: the layers in order of execution.
    """

    input_shape: Shape
    input_shapes: tuple[Shape, ...] = field(repr=False)
    batch: int
    params: int
    statistics: int = field(repr=False)
    macs: int
    normalized_values: int = field(repr=False)
    activation_bytes: int = field(repr=False)
    peak_activation_bytes: int
    file_bytes: int
    per_layer: tuple[LayerCost, ...] = field(repr=False)

    def per_block(self) -> tuple[LayerCost, ...]:
        """The layers added up by block: `input`, `stem`, `block1a`, …, `top`, `predictions`.

        A layer belongs to the block that its name begins with, as in `block2a_expand_conv` (or behind
        a prefix, as in `left_block2a_expand_conv`); one that names no block is its own.
        """
        blocks: dict[str, LayerCost] = {}
        for layer in self.per_layer:
            name = _block_of(layer.name)
            before = blocks.get(name)
            blocks[name] = replace(
                layer,
                name=name,
                kind=layer.kind if before is None else "block",
                **{key: getattr(layer, key) + (getattr(before, key) if before else 0) for key in _SUMMED},
            )
        return tuple(blocks.values())


def cost(
    model: Any,
    *,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
    batch: int = 1,
    bytes_per_value: int = BYTES,
    rules: Mapping[str, Rule] | None = None,
) -> Cost:
    """Count what a functional Keras model costs.

    Args:
        model: any functional model, nested ones included; it is not run.
        input_shape: (H, W, C) of one picture; needed where the model leaves its sides open, allowed
            where a convolutional network would take another size. For a model with several inputs
            one shape for each, in the order of `model.inputs`.
        batch: pictures per call, at least 1.
        bytes_per_value: of an activation: 4 for float32, 2 for float16, 1 for int8.
        rules: for layers of your own: class name → function from (config, input shapes) to `Counted`.

    Returns:
        The `Cost`.

    Raises:
        InvalidInputError: no functional model, an open input size, shapes that are not those of its
            inputs, or a layer that no rule knows; the message names it.
    """
    graph = unrolled(read_graph(model))
    shapes = _input_shapes(model, input_shape)
    return cost_of_graph(graph, *shapes, batch=batch, bytes_per_value=bytes_per_value, rules=rules)


def _input_shapes(model: Any, given: Sequence[Any] | None) -> list[Shape]:
    own = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if given is None:
        shapes = own
        said = "its own"
    else:
        nested = all(isinstance(each, Sequence) for each in given)
        shapes = [tuple(each) for each in given] if nested else [tuple(given)]
        said = f"input_shape={given!r}"
    if [len(shape) for shape in shapes] != [len(shape) for shape in own] or any(
        not is_whole(side) or side < 1 for shape in shapes for side in shape
    ):
        example = (
            "(height, width, channels)"
            if len(own) == 1
            else f"a list of {len(own)} shapes, one for each input"
        )
        raise InvalidInputError(
            f"Expected a known size for each input of the model, which takes {own} without the batch. "
            f"Received: {said}. Pass input_shape={example}."
        )
    return shapes


def cost_of_variant(
    variant: str | Variant, *, resolution: int | None = None, classes: int = 1000, batch: int = 1
) -> Cost:
    """What a network costs, from its row of the table: in milliseconds and without Keras.

    The same as `cost` of the built model, at `resolution` or the variant's own.

    Raises:
        InvalidInputError: no such variant, or a size that it cannot take.
    """
    chosen = get_variant(variant)
    side = resolution or chosen.resolution
    shape = (side, side, 3)
    check_input_shape(shape, chosen.baseline.smallest)
    dry = DryRun()
    inputs = dry.Input(shape)
    graph = build_model(
        architecture_of(chosen), BuildOptions.of(chosen, classes=classes), inputs, inputs, keras=dry
    )
    return cost_of_graph(graph, shape, batch=batch)


def cost_of_graph(
    graph: CallGraph,
    *input_shapes: Shape,
    batch: int = 1,
    bytes_per_value: int = BYTES,
    rules: Mapping[str, Rule] | None = None,
) -> Cost:
    """As `cost`, for a graph that was read, or left behind by a `DryRun`; one shape for each input."""
    for label, number in (("batch", batch), ("bytes_per_value", bytes_per_value)):
        if not is_whole(number) or number < 1:
            raise InvalidInputError(
                f"Expected {label} to be a whole number of at least 1. Received: {number!r}."
            )
    known = {**RULES, **(rules or {})}
    counted: list[Counted] = []
    coming = iter(input_shapes)
    for call in graph.calls:
        result = Counted(shape=next(coming)) if call.kind == INPUT else _count(call, counted, known)
        counted.append(result)
    sizes = [math.prod(result.shape) for result in counted]
    free = [result.free for result in counted]
    written = [0 if free_ else size for size, free_ in zip(sizes, free, strict=True)]
    per_value = batch * bytes_per_value
    params = sum(result.params for result in counted)
    statistics = sum(result.statistics for result in counted)
    return Cost(
        input_shape=input_shapes[0],
        input_shapes=input_shapes,
        batch=batch,
        params=params,
        statistics=statistics,
        macs=batch * sum(result.macs for result in counted),
        normalized_values=batch * sum(result.normalized for result in counted),
        activation_bytes=per_value * sum(written),
        peak_activation_bytes=per_value * _peak_values(graph, sizes, free),
        file_bytes=BYTES * (params + statistics),
        per_layer=tuple(
            LayerCost(
                name=call.name,
                kind=call.kind,
                output_shape=result.shape,
                params=result.params,
                macs=batch * result.macs,
                activation_bytes=per_value * size,
                statistics=result.statistics,
                file_bytes=BYTES * (result.params + result.statistics),
            )
            for call, result, size in zip(graph.calls, counted, written, strict=True)
        ),
    )


def _peak_values(graph: CallGraph, values: Sequence[int], free: Sequence[bool]) -> int:
    """The most values alive at once when the calls run in order, for one picture, each output in a place of its own.

    An output dies behind its last reader; one that is `free` is its input itself. While a call runs, its
    inputs and its output are alive.
    """
    owner = list(range(len(graph.calls)))
    for index, call in enumerate(graph.calls):
        if free[index]:
            owner[index] = owner[call.inputs[0].call]
    last = list(range(len(graph.calls)))
    for index, call in enumerate(graph.calls):
        for source in call.inputs:
            last[owner[source.call]] = index
    for output in graph.outputs:
        last[owner[output.call]] = len(graph.calls)
    dying: dict[int, list[int]] = {}
    alive = peak = 0
    for index in range(len(graph.calls)):
        if owner[index] == index:
            alive += values[index]
            dying.setdefault(last[index], []).append(index)
        peak = max(peak, alive)
        alive -= sum(values[dead] for dead in dying.get(index, ()))
    return peak


def _count(call: Call, counted: Sequence[Counted], rules: Mapping[str, Rule]) -> Counted:
    if call.kind not in rules:
        reason = unknown_name(f"the class of layer {call.name!r}", call.kind, rules)
        raise InvalidInputError(f"{reason} Pass rules={{{call.kind!r}: …}} to say what it costs.")
    shapes = [counted[source.call].shape for source in call.inputs]
    result = (
        _for_each_step(call, shapes, rules)
        if isinstance(call, StepCall)
        else rules[call.kind](_config(call), shapes)
    )
    if not call.first:
        return replace(result, params=0, statistics=0)
    if hasattr(call.layer, "count_params"):
        # the layer itself knows best, for example one with adapters
        return replace(result, params=int(call.layer.count_params()) - result.statistics)
    return result


def _for_each_step(call: Call, shapes: Sequence[Shape], rules: Mapping[str, Rule]) -> Counted:
    steps = shapes[0][0]
    one = rules[call.kind](_config(call), [shape[1:] for shape in shapes])
    return replace(one, shape=(steps, *one.shape), macs=steps * one.macs, normalized=steps * one.normalized)


def _config(call: Call) -> dict[str, Any]:
    """The constructor's arguments; an operation that is no layer has none."""
    config = dict(call.layer.get_config()) if hasattr(call.layer, "count_params") else {}
    if config.get("data_format") == "channels_first":
        raise InvalidInputError(
            f"Expected layers with data_format='channels_last'. Received: {call.name!r} with "
            "'channels_first'. Build the model with channels_last to count it."
        )
    return {"name": call.name, **config}


def _block_of(name: str) -> str:
    match = re.match(r"(?:.*[/_])?(?:block\d+[a-z]+|stem|top(?=_conv|_bn|_activation))(?=_)", name)
    return match.group() if match else name
