"""Reads a built Keras model: its layer calls in order, and its layers.

    graph = read_graph(model)
    for call in graph.calls:
        call.layer, call.kind, call.inputs          # inputs: which outputs of which calls
        call.apply(tensors)                         # the same call on other tensors

Cost, folding, identification and explanation read models through this module, so what counts as one
call, as shared or as nested is decided here alone. It imports no framework: models of `keras` and of
`tf_keras` are read by the same attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_effnet.errors import InvalidInputError

INPUT = "InputLayer"
# what layers of these classes do, they do in training only
TRAINING_ONLY = frozenset(
    [
        "ActivityRegularization",
        "AlphaDropout",
        "AugMix",
        "CutMix",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "MixUp",
        "RandAugment",
        "RandomBrightness",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomContrast",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomRotation",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
        "SpatialDropout2D",
    ]
)


# layers that train only where a call asks them to; augmentation notes training=True by itself
ASKED_TO_TRAIN = (
    "AlphaDropout",
    "BatchNormalization",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "SpatialDropout2D",
)


@dataclass(frozen=True)
class LayerOutput:
    """What a call reads: output number `index` of the call at position `call` of the graph.

    Almost every layer has one output, whose index is 0.
    """

    call: int
    index: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One call of one layer; a layer that is used twice is in two of them.

    Attributes:
        layer: the Keras layer, or the operation that `x + y` and `keras.ops` leave behind.
        inputs: the outputs that it reads, in the order of its arguments.
        outputs: the symbolic tensors that it makes.
        first: False where an earlier call has the same layer.
        args, kwargs: what it was called with, symbolic tensors included.
    """

    layer: Any
    inputs: tuple[LayerOutput, ...] = ()
    outputs: tuple[Any, ...] = ()
    first: bool = True
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The layer's name; unique only within the model that the layer lies in."""
        return str(self.layer.name)

    @property
    def kind(self) -> str:
        """The layer's class, `"Conv2D"`; `"InputLayer"` for an input of the whole model."""
        return type(self.layer).__name__

    def apply(self, tensors: Sequence[Any], **changed: Any) -> Any:
        """Call the layer again as it was called here, on other tensors.

        Args:
            tensors: one for each of `inputs`, symbolic or with values.
            changed: keyword arguments to call it with instead of the recorded ones.
        """
        args, kwargs = _replaced((self.args, dict(self.kwargs)), iter(tensors))
        return self.layer(*args, **{**kwargs, **changed})


@dataclass(frozen=True, kw_only=True, eq=False)
class CallGraph:
    """The calls of a model.

    Attributes:
        calls: in an order of execution, beginning with the model's inputs; models inside the model
            are unpacked where they are called.
        outputs: what leaves the model, in the order of `model.outputs`.
    """

    calls: tuple[Call, ...]
    outputs: tuple[LayerOutput, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """Positions of the model's inputs, in the order of `model.inputs`."""
        return tuple(position for position, call in enumerate(self.calls) if call.kind == INPUT)

    def readers(self, position: int) -> tuple[int, ...]:
        """Positions of the calls that read what the call at `position` makes, in order."""
        return tuple(
            later
            for later, call in enumerate(self.calls)
            if any(read.call == position for read in call.inputs)
        )

    def ancestors(self, end: LayerOutput) -> list[int]:
        """Positions of the calls that an output depends on, in order, with the one that makes it."""
        found, waiting = set[int](), [end.call]
        while waiting:
            position = waiting.pop()
            if position not in found:
                found.add(position)
                waiting.extend(source.call for source in self.calls[position].inputs)
        return sorted(found)

    def descendants(self, first: int, among: Sequence[int]) -> set[int]:
        """Positions, of those among which to look, of the calls that depend on the first."""
        found = {first}
        for position in among:
            if any(source.call in found for source in self.calls[position].inputs):
                found.add(position)
        return found - {first}


def read_graph(model: Any) -> CallGraph:
    """The calls of a functional model of `keras` or `tf_keras`, or a Sequential one, that its outputs depend on.

    Raises:
        InvalidInputError: the model, or one inside it, has no graph.
    """
    _check_functional(model)
    walk = _GraphWalk([], set(), {})
    for tensor in _tensors_in(model.inputs):
        walk.add(tensor, Call(layer=tensor._keras_history[0], outputs=(tensor,)))
    outputs = tuple(walk.visit(tensor) for tensor in _tensors_in(model.outputs))
    return CallGraph(calls=tuple(walk.calls), outputs=outputs)


class _GraphWalk:
    """The way through one model, back from its outputs; a model inside it gets a walk of its own."""

    def __init__(self, calls: list[Call], seen: set[int], made: dict[Any, LayerOutput]) -> None:
        self.calls = calls  # of the whole graph, shared by all walks
        self.seen = seen  # ids of the layers in them, likewise
        self.made = made  # tensors of this model that are computed already
        self.nested: dict[int, _GraphWalk] = {}  # by the id of the node that calls the model

    def visit(self, wanted: Any) -> LayerOutput:
        """Read everything that `wanted` depends on, without recursion: deep networks are deep."""
        stack = [wanted]
        while stack:
            tensor = stack[-1]
            layer, node_index, tensor_index = tuple(tensor._keras_history)[:3]
            sources = _tensors_in(_arguments(layer._inbound_nodes[node_index]))
            if _key(tensor) in self.made:
                stack.pop()
            elif missing := [source for source in sources if _key(source) not in self.made]:
                stack.extend(reversed(missing))
            elif hasattr(layer, "layers"):
                self._enter(layer, layer._inbound_nodes[node_index], tensor, tensor_index)
            else:
                self._record(layer, layer._inbound_nodes[node_index])
        return self.made[_key(wanted)]

    def add(self, tensor: Any, call: Call) -> None:
        self.made[_key(tensor)] = LayerOutput(len(self.calls))
        self.calls.append(call)

    def _record(self, layer: Any, node: Any) -> None:
        args, kwargs = _arguments(node)
        outputs = tuple(_tensors_in(node.output_tensors))
        call = Call(
            layer=layer,
            inputs=tuple(self.made[_key(source)] for source in _tensors_in((args, kwargs))),
            outputs=outputs,
            first=id(layer) not in self.seen,
            args=args,
            kwargs=kwargs,
        )
        self.seen.add(id(layer))
        for index, output in enumerate(outputs):
            self.made[_key(output)] = LayerOutput(len(self.calls), index)
        self.calls.append(call)

    def _enter(self, model: Any, node: Any, tensor: Any, index: int) -> None:
        """Read a model that is a layer of this one, as far as one of its outputs needs it."""
        _check_functional(model)
        if id(node) not in self.nested:
            outside = [self.made[_key(source)] for source in _tensors_in(_arguments(node))]
            inside = [_key(each) for each in _tensors_in(model.inputs)]
            self.nested[id(node)] = _GraphWalk(self.calls, self.seen, dict(zip(inside, outside, strict=True)))
        self.made[_key(tensor)] = self.nested[id(node)].visit(_tensors_in(model.outputs)[index])


def _key(tensor: Any) -> tuple[int, int, int]:
    """What a symbolic tensor is known by: the layer, which of its calls, which output."""
    layer, node_index, tensor_index = tuple(tensor._keras_history)[:3]
    return id(layer), node_index, tensor_index


def _arguments(node: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a layer was called with, as Keras 3 and as tf_keras note it."""
    recorded = getattr(node, "arguments", None)
    if recorded is not None:
        return tuple(recorded.args), dict(recorded.kwargs)
    return tuple(node.call_args), dict(node.call_kwargs)


def _tensors_in(structure: Any) -> list[Any]:
    """The symbolic tensors in nested tuples, lists and dictionaries; dictionaries by key, as Keras does."""
    if hasattr(structure, "_keras_history"):
        return [structure]
    if isinstance(structure, Mapping):
        structure = [structure[key] for key in sorted(structure)]
    if isinstance(structure, list | tuple):
        return [tensor for part in structure for tensor in _tensors_in(part)]
    return []


def _replaced(structure: Any, tensors: Iterator[Any]) -> Any:
    """The same structure with other tensors, in the order of `_tensors_in`."""
    if hasattr(structure, "_keras_history"):
        return next(tensors)
    if isinstance(structure, Mapping):
        return {key: _replaced(structure[key], tensors) for key in sorted(structure)}
    if isinstance(structure, list | tuple):
        parts = [_replaced(part, tensors) for part in structure]
        return parts if isinstance(structure, list) else tuple(parts)
    return structure


def _check_functional(model: Any) -> None:
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs or not _tensors_in(outputs):
        raise InvalidInputError(
            "Expected a functional Keras model, or a Sequential one with a known input. "
            f"Received: {model!r}. Subclassed models have no graph to read; build it with keras.Model(inputs, outputs)."
        )


def flat_layers(model: Any, *, nested: bool = False) -> Iterator[Any]:
    """All layers of a Keras (or tf_keras) model in its order, those of models inside it too; `nested`: and these models.

    Needs no graph: subclassed models that keep track of their layers are read as well.
    """
    for layer in model.layers:
        is_model = hasattr(layer, "layers")
        if nested or not is_model:
            yield layer
        if is_model:
            yield from flat_layers(layer, nested=nested)
