"""From a functional Keras model to its `Graph`: one step for each layer, then what belongs together joined."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from keras_effnet.errors import ExportError, InvalidInputError, warn
from keras_effnet.network.reader import ASKED_TO_TRAIN, INPUT, TRAINING_ONLY, Call, CallGraph, read_graph

from ..outputs import places_of
from .graph import Graph
from .known_layers import KnownLayers, UnknownLayerError
from .simplify import simplify
from .steps import Input, Island, Step


class UnsupportedModelError(ExportError):
    """The model cannot be taken apart into steps; the plain path may still do."""


def fold(model: Any) -> Graph:
    """Read a functional Keras model.

    Args:
        model: a Keras model with one input `[N, H, W, C]`; models nested in it are unpacked.

    Returns:
        The network's steps. They compute what the model computes in inference. A layer that is no step is an
        `Island` among them.

    Raises:
        UnsupportedModelError: no such model, or a layer that passes on something else than floats.
    """
    try:
        read = read_graph(model)
    except InvalidInputError as error:
        raise UnsupportedModelError(str(error)) from error
    if len(read.inputs) != 1:
        raise UnsupportedModelError(
            f"Expected a functional model with one input. Received: {model.name!r} with {len(read.inputs)} inputs."
        )
    image = read.calls[read.inputs[0]].outputs[0]
    folding = _Folding(read)
    made = folding.read_all()
    last = next(reversed(folding.steps))
    if any(isinstance(folding.steps[name], Input) for name in made):
        raise UnsupportedModelError(
            f"Expected outputs that something is computed for. Received: {model.name!r}, one of whose is its input."
        )
    results = () if made == [last] else tuple(made[place] for place in places_of(model))
    graph = simplify(Graph(steps=folding.steps, input_shape=tuple(image.shape[1:]), results=results))
    for island in graph.islands:
        if island.dtype != "float32":
            raise UnsupportedModelError(
                f"Expected layers that pass on floats. Received: {island.what}, which gives {island.dtype}."
            )
    if graph.islands and not graph.weighted:
        named = "; ".join(dict.fromkeys(island.what for island in graph.islands))
        raise UnsupportedModelError(
            f"Expected a convolution or a matrix product that integers are known for. Received: {model.name!r} with none "
            f"but what is inside {named}."
        )
    return graph


class _Folding(KnownLayers):
    """Collects steps, call by call."""

    def __init__(self, read: CallGraph) -> None:
        self.read = read
        self.steps: dict[str, Step] = {}

    def read_all(self) -> list[str]:
        """Read all calls; the steps that hold the outputs."""
        names: list[list[str]] = []  # by call: the steps that hold its outputs
        for call in self.read.calls:
            names.append(self._take(call, [names[source.call][source.index] for source in call.inputs]))
        return [names[output.call][output.index] for output in self.read.outputs]

    def add(self, step: Step) -> str:
        """Put a step behind the others; its name, with a number where a layer is called again."""
        name, count = step.name, 1
        while name in self.steps:
            count += 1
            name = f"{step.name}_{count}"
        self.steps[name] = replace(step, name=name)
        return name

    def shapes(self, call: Call) -> list[tuple[Any, ...]]:
        read = [self.read.calls[source.call].outputs[source.index] for source in call.inputs]
        return [tuple(tensor.shape) for tensor in (*read, *call.outputs)]

    def _take(self, call: Call, sources: list[str]) -> list[str]:
        """The steps that hold what a call of a layer gives."""
        if call.kind == INPUT:
            return [self.add(Input(name="image"))]
        if call.kwargs.get("training") is True and call.kind in ASKED_TO_TRAIN:
            warn(
                f"{call.name!r} was called with training=True. In Keras 3 model.predict computes it as in inference, "
                "and so does the file."
            )
        if call.kind in TRAINING_ONLY:
            return [sources[0]]
        handler = self.handler(call)
        try:
            if handler is None or any(len(shape) not in (2, 4) for shape in self.shapes(call)):
                raise UnknownLayerError
            return [str(handler(call, *sources))]
        except UnknownLayerError as error:
            return self._islands(call, sources, str(error))

    def _islands(self, call: Call, sources: list[str], why: str) -> list[str]:
        """A layer as it is, in float: an island for each of its outputs."""
        trains = getattr(call.layer, "_call_has_training_arg", False) or "training" in call.kwargs
        changed = {"training": False} if trains else {}
        shapes = self.shapes(call)[len(sources) :]
        several = len(shapes) > 1

        def computed(index: int, tensors: list[Any]) -> Any:
            given = call.apply(tensors, **changed)
            return list(given)[index] if several else given

        return [
            self.add(
                Island(
                    name=call.name,
                    inputs=tuple(sources),
                    function=partial(computed, index),
                    what=f"{call.name!r}, a {call.kind}{f' ({why})' if why else ''}",
                    parts=(call.layer,),
                    shape=shape[1:],
                    dtype=str(getattr(output.dtype, "name", output.dtype)),
                )
            )
            for index, (shape, output) in enumerate(zip(shapes, call.outputs, strict=True))
        ]
