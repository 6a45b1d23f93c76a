"""What a `TimeDistributed` layer calls for each step, as calls of their own: a backbone, most often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from keras_effnet.network.reader import INPUT, Call, CallGraph, LayerOutput, read_graph


@dataclass(frozen=True, kw_only=True, eq=False)
class StepCall(Call):
    """A call that is made for each step along the first axis; `title` is its name."""

    title: str

    @property
    def name(self) -> str:
        return self.title


def unrolled(graph: CallGraph) -> CallGraph:
    """The same graph with the layers, and models, inside each `TimeDistributed` in its place."""
    calls: list[Call] = []
    moved: dict[LayerOutput, LayerOutput] = {}
    for position, call in enumerate(graph.calls):
        inputs = tuple(moved[source] for source in call.inputs)
        if call.kind == "TimeDistributed":
            moved[LayerOutput(position)] = _unroll(call, inputs, calls)
            continue
        for index in range(max(1, len(call.outputs))):
            moved[LayerOutput(position, index)] = LayerOutput(len(calls), index)
        calls.append(replace(call, inputs=inputs))
    return CallGraph(calls=tuple(calls), outputs=tuple(moved[output] for output in graph.outputs))


def _unroll(wrapper: Call, inputs: tuple[LayerOutput, ...], calls: list[Call]) -> LayerOutput:
    """Add what the wrapper calls; returns where its output is."""
    inner: Any = wrapper.layer.layer
    if not hasattr(inner, "layers"):
        calls.append(StepCall(layer=inner, inputs=inputs, first=wrapper.first, title=wrapper.name))
        return LayerOutput(len(calls) - 1)
    graph = unrolled(read_graph(inner))
    moved: dict[int, LayerOutput] = dict(zip(graph.inputs, inputs, strict=True))
    for position, call in enumerate(graph.calls):
        if call.kind == INPUT:
            continue
        moved[position] = LayerOutput(len(calls))
        calls.append(
            StepCall(
                layer=call.layer,
                inputs=tuple(moved[source.call] for source in call.inputs),
                first=wrapper.first and call.first,
                title=f"{wrapper.name}/{call.name}",
            )
        )
    return moved[graph.outputs[0].call]
