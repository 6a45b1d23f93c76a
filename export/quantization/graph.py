"""A network as the list of its steps, in float and in integers, and what it computes in either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from ..outputs import ONLY_OUTPUT
from .ops import LINEAR, OUTPUT, PRE, Activation, Operator, in_float, key_of, step_of
from .ranges import SIGMOID_STEPS, Array, Range
from .steps import Input, Island, Step
from .weighted import Weighted

Ranges = Mapping[str, Range]
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Steps in the order of execution.

    Attributes:
        steps: by name, in order.
        input_shape: of one picture, (height, width, channels); sides may be None.
        results: names of the steps whose outputs leave the network, in the model's order; empty for the last one.
    """

    steps: dict[str, Step] = field(default_factory=dict)
    input_shape: tuple[int | None, ...]
    results: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps.values())

    def __getitem__(self, name: str) -> Step:
        return self.steps[name]

    @property
    def output(self) -> str:
        """The step whose output leaves the network, where there is one."""
        (name,) = self.outputs
        return name

    @property
    def outputs(self) -> tuple[str, ...]:
        """The steps whose outputs leave the network, in the model's order."""
        return self.results or (next(reversed(self.steps)),)

    @property
    def weighted(self) -> list[Weighted]:
        """The steps with a kernel, in order."""
        return [step for step in self if isinstance(step, Weighted)]

    @property
    def islands(self) -> list[Island]:
        """The steps that compute in float because integers are not known for them."""
        return [step for step in self if isinstance(step, Island)]

    @property
    def flat(self) -> dict[str, bool]:
        """By step: whether its output is `[N, C]` in Keras."""
        found: dict[str, bool] = {}
        for step in self:
            found[step.name] = step.is_flat([found[name] for name in step.inputs])
        return found

    @property
    def slow_in_onnxruntime(self) -> bool:
        """Whether any step is activated by something that ONNX Runtime computes faster in float."""
        return any(step.activation.slow_in_onnxruntime for step in self.weighted)

    def consumers(self, name: str) -> list[Step]:
        """The steps that read `name`, in order."""
        return [step for step in self if name in step.inputs]

    def before_last_activations(self) -> Graph:
        """The same graph with outputs in front of their activations, but for those that are read inside too."""
        ends = [self[name] for name in dict.fromkeys(self.outputs) if not self.consumers(name)]
        return self.updated(*(replace(end, activation=LINEAR) for end in ends if isinstance(end, Weighted)))

    def takes_shift(self, name: str) -> bool:
        """Whether all that read `name` can take a shift of its values into their biases."""
        readers = self.consumers(name)
        return bool(readers) and all(
            isinstance(reader, Weighted) and not reader.sees_zeros for reader in readers
        )

    def updated(self, *changed: Step) -> Graph:
        """The same graph with some steps replaced."""
        return replace(self, steps={**self.steps, **{step.name: step for step in changed}})

    def without(self, step: Step) -> Graph:
        """The same graph, whose steps read what `step` reads instead of what it gives."""
        (source,) = step.inputs
        results = tuple(source if name == step.name else name for name in self.results)
        readers = [
            replace(reader, inputs=tuple(source if name == step.name else name for name in reader.inputs))
            for reader in self.consumers(step.name)
        ]
        rest = {name: kept for name, kept in self.steps.items() if name != step.name}
        return replace(self, steps=rest, results=results).updated(*readers)

    def walk(self, value_of: Callable[[Step, list[Value]], Value]) -> Iterator[tuple[Step, Value]]:
        """Compute a value for every step from those of the steps it reads, in order; they are forgotten after their last use."""
        last_use = {name: step.name for step in self for name in step.inputs}
        values: dict[str, Value] = {}
        for step in self:
            values[step.name] = value_of(step, [values[name] for name in step.inputs])
            yield step, values[step.name]
            for name in step.inputs:
                if last_use[name] == step.name:
                    values.pop(name, None)

    def results_of(self, value_of: Callable[[Step, list[Value]], Value]) -> list[Value]:
        """`walk`, and what it gives for each of `outputs`."""
        found = {step.name: value for step, value in self.walk(value_of) if step.name in self.outputs}
        return [found[name] for name in self.outputs]


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """An integer network.

    Attributes:
        graph: its steps; weights lie on their 8-bit grids.
        ranges: of its tensors, by key (see `ops.key_of`).
        lifted: names of steps that compute in float. What passes between two of them is float too.
    """

    graph: Graph
    ranges: dict[str, Range]
    lifted: frozenset[str] = frozenset()

    @property
    def between(self) -> frozenset[str]:
        """The lifted steps that only lifted ones read: what they pass on is float.

        An island that leaves the network as well does so in integers, as all outputs.
        """
        ends = {name for name in self.graph.outputs if isinstance(self.graph[name], Island)}
        return frozenset(
            name
            for name in self.lifted - ends
            if (readers := self.graph.consumers(name)) and self.lifted.issuperset(r.name for r in readers)
        )

    def lift(self, *names: str) -> Quantized:
        """The same network with further steps in float."""
        more = replace(self, lifted=self.lifted.union(names))
        inner = {key for key in self.ranges if key != step_of(key) and step_of(key) in more.lifted}
        dropped = inner | more.between
        return replace(more, ranges={key: value for key, value in self.ranges.items() if key not in dropped})


@dataclass(frozen=True, kw_only=True)
class IntegerNetwork:
    """What `prepare` makes of a model.

    Attributes:
        reference: the float network, preprocessing absorbed, equalized.
        quantized: the integer network.
        height, width: of the input, in pixels.
        images: the calibration photographs.
        output_names: what the file calls its outputs, in the order of the graphs'.
        floats: names of steps that compute in float because that is faster, see `prepare`.
        only_read: whether tensors that no kernel and no sum reads are float, see `layerwise.Method`.
        placement: where the integers begin in a file for ONNX Runtime, and how that was found.
        agreement: with the float network's decisions on held-out photographs, 0–1, or None.
    """

    reference: Graph
    quantized: Quantized
    height: int
    width: int
    images: Array = field(repr=False)
    output_names: tuple[str, ...] = (ONLY_OUTPUT,)
    floats: frozenset[str] = frozenset()
    only_read: bool = False
    placement: Any = None
    agreement: float | None = None

    @property
    def serves_all(self) -> bool:
        """Whether it is the best for every format: one with swishes is made for one of them, see `prepare`."""
        graph = self.quantized.graph
        ends_in_integers = {step_of(key) for key in self.quantized.ranges}.issuperset(graph.outputs)
        suits = not graph.slow_in_onnxruntime and not self.only_read and ends_in_integers
        return suits and not graph.islands

    @property
    def lifted(self) -> tuple[str, ...]:
        """Steps that were left in float to meet an accuracy (see `accuracy`)."""
        islands = (island.name for island in self.reference.islands)
        return tuple(sorted(self.quantized.lifted.difference(self.floats, islands)))

    def logits(self, images: Array, *, integer: bool = True) -> Array:
        """The only output in front of its last activation, `[N, classes]`, simulated."""
        (values,) = self.results(images, integer=integer)
        return values

    def results(self, images: Array, *, integer: bool = True) -> list[Array]:
        """Each output in front of its last activation, unless that is read inside too; simulated."""
        graph = self.quantized.graph if integer else self.reference
        found = run(graph.before_last_activations(), images, self.quantized.ranges if integer else None)
        return [found[name] for name in graph.outputs]


class InIntegers:
    """The `do` of integer arithmetic: operators of TensorFlow, their results rounded.

    A tensor without a range stays float. A step whose tensor in front of the activation has none is
    lifted: its sigmoid is not rounded either.
    """

    def __init__(self, name: str, ranges: Ranges) -> None:
        self.name = name
        self.ranges = ranges
        self.in_integers = key_of(name, PRE) in ranges

    def __call__(self, operator: Operator, *values: Any, tensor: str | None = OUTPUT) -> Any:
        import tensorflow as tf

        value = operator.tensorflow(*values)
        if operator.fixed and self.in_integers:
            return tf.minimum(tf.round(value * SIGMOID_STEPS), SIGMOID_STEPS - 1) / SIGMOID_STEPS
        return value if tensor is None else held(value, self.ranges.get(key_of(self.name, tensor)))


def held(x: Any, chosen: Range | None) -> Any:
    """`x` as its integer tensor holds it; unchanged when the tensor has no range (it stays float)."""
    import tensorflow as tf

    if chosen is None:
        return x
    low, high = chosen.nudged
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high)


def activate_samples(
    activation: Activation, name: str, u: Array, ranges: Ranges, seen: dict[str, Array] | None = None
) -> Array:
    """The activation of the step `name` in integers, for samples `[values, channels]` of what enters it, in NumPy.

    Tensors without a range are not rounded; `seen` takes each tensor before it is.
    """

    def hold(value: Array, tensor: str) -> Array:
        if seen is not None:
            seen[tensor] = value
        chosen = ranges.get(key_of(name, tensor))
        return value if chosen is None else chosen.round(value)

    def do(operator: Operator, *values: Any, tensor: str = OUTPUT) -> Array:
        value = operator.numpy(*values)
        if operator.fixed and key_of(name, PRE) in ranges:
            return np.minimum(np.rint(value * SIGMOID_STEPS), SIGMOID_STEPS - 1) / np.float32(SIGMOID_STEPS)
        return hold(value, tensor)

    return np.asarray(activation.compute(do, hold(u, PRE)))


def evaluate(step: Step, sources: list[Any], ranges: Ranges | None) -> Any:
    """The output of a step that is not the input; in float when there are no ranges."""
    return step.compute(in_float if ranges is None else InIntegers(step.name, ranges), *sources)


def run(
    graph: Graph,
    images: Array,
    ranges: Ranges | None = None,
    *,
    batch: int = 8,
    keep: Callable[[str], bool] | None = None,
) -> dict[str, Array]:
    """Run a graph on pictures, float32 `[N, H, W, C]`, 0–255; arrays by step name, with all pictures.

    Args:
        ranges: None to compute in float, else the integer tensors' ranges.
        batch: pictures at a time.
        keep: which tensors to return besides the outputs; default none.
    """
    collected: dict[str, list[Array]] = {}
    for start in range(0, len(images), batch):
        for step, value in _walk(graph, images[start : start + batch], ranges):
            if step.name in graph.outputs or (keep is not None and keep(step.name)):
                collected.setdefault(step.name, []).append(np.asarray(value))
    return {name: np.concatenate(parts) for name, parts in collected.items()}


def map_sizes(graph: Graph, shape: tuple[int, ...]) -> dict[str, int]:
    """Values of each step's output for one picture of the given (height, width, channels)."""
    return {name: int(np.prod(found)) for name, found in shapes_of(graph, shape).items()}


def shapes_of(graph: Graph, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Of each step's output `[1, …]`, for one picture of the given (height, width, channels)."""
    image = np.zeros((1, *shape), np.float32)
    return {step.name: tuple(value.shape) for step, value in _walk(graph, image, None)}


def _walk(graph: Graph, images: Array, ranges: Ranges | None) -> Iterator[tuple[Step, Any]]:
    """Every step with its output, in order."""

    def value_of(step: Step, sources: list[Any]) -> Any:
        if isinstance(step, Input):
            return images if ranges is None else held(images, ranges.get(step.name))
        return evaluate(step, sources, ranges)

    return graph.walk(value_of)
