"""Exact rewrites of a network just read: what lies around a kernel goes into the kernel.

`fold` reads every layer as a step of its own. Here zero padding, batch normalization and activations join
the convolution or matrix product beside them. What finds none becomes a depthwise convolution of one
pixel, which is an affine function per channel with an activation, and a step that the method knows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .graph import Graph
from .maps import Pad, Reshape
from .ops import LINEAR, Activation, Linear, Softmax
from .ranges import Array
from .steps import Input, Island, Step
from .weighted import Affine, Conv, Dense, Depthwise, Weighted

DISTINCT = 1e-6  # TensorFlow's converter makes one product of two that are equal, and one range with it


@dataclass(frozen=True, kw_only=True)
class Alone(Step):
    """An activation, until a step with weights takes it over.

    Attributes:
        activation: the function.
        channels: of what it reads.
    """

    activation: Activation
    channels: int


def simplify(graph: Graph) -> Graph:
    """A graph that computes the same, without `Alone`, and without `Affine` but for preprocessing."""
    graph = _whole_islands(read_only(graph))
    for name in list(graph.steps):
        graph = _join_source(graph, name) if name in graph.steps else graph
    for name in list(graph.steps):
        graph = _join_reader(graph, name)
    for name in list(graph.steps):
        step = graph[name]
        if isinstance(step, Alone) or (isinstance(step, Affine) and not _is_preprocessing(graph, step)):
            graph = _pointwise(graph, step)
    single = (
        replace(s, kernel=_single(s.kernel), bias=_single(s.bias)) for s in graph if isinstance(s, Affine)
    )
    return graph.updated(*single)


def read_only(graph: Graph) -> Graph:
    """The graph without the steps that its output does not depend on."""
    needed = set(graph.outputs)
    for step in reversed(list(graph)):
        needed.update(step.inputs if step.name in needed else ())
    return replace(graph, steps={name: step for name, step in graph.steps.items() if name in needed})


def _whole_islands(graph: Graph) -> Graph:
    """The graph with islands that follow each other as one, whose inside is nobody else's business."""
    for name in list(graph.steps):
        while isinstance(step := graph[name], Island):
            ahead = next((source for source in step.inputs if _is_inner(graph, source)), None)
            if ahead is None:
                break
            graph = read_only(graph.updated(_joined(graph[ahead], step)))
    return graph


def _is_inner(graph: Graph, name: str) -> bool:
    """Whether a step is an island that only one step reads, once."""
    readers = graph.consumers(name)
    if name in graph.outputs:
        return False
    return isinstance(graph[name], Island) and len(readers) == 1 and readers[0].inputs.count(name) == 1


def _joined(first: Step, second: Island) -> Island:
    """Two islands as one, with the name of the second."""
    assert isinstance(first, Island)
    place, count = second.inputs.index(first.name), len(first.inputs)

    def function(tensors: list[Any]) -> Any:
        made = first.function(tensors[place : place + count])
        return second.function([*tensors[:place], made, *tensors[place + count :]])

    return replace(
        second,
        inputs=(*second.inputs[:place], *first.inputs, *second.inputs[place + 1 :]),
        function=function,
        what=f"{first.what}, {second.what}",
        parts=(*first.parts, *second.parts),
    )


def _join_source(graph: Graph, name: str) -> Graph:
    """Let a step join the one that it reads."""
    step = graph[name]
    if isinstance(step, Input):
        return graph
    source = graph[step.inputs[0]]
    if isinstance(step, Conv) and isinstance(source, Pad) and step.padding == "valid":
        return read_only(graph.updated(replace(step, padding=source.padding, inputs=source.inputs)))
    if len(graph.consumers(source.name)) > 1 or source.name in graph.outputs:
        return _own_logits(graph, source, step)
    if isinstance(step, Affine):
        return _join_affine(graph, source, step)
    return _join_activation(graph, source, step) if isinstance(step, Alone) else graph


def _own_logits(graph: Graph, source: Step, step: Step) -> Graph:
    """A softmax whose logits somebody else reads too, or which are an output, with a matrix product of its own."""
    if not (isinstance(step, Alone) and isinstance(step.activation, Softmax) and isinstance(source, Dense)):
        return graph
    kernel = source.kernel * np.float32(1 + DISTINCT)
    return graph.updated(replace(source, name=step.name, activation=step.activation, kernel=kernel))


def _join_affine(graph: Graph, source: Step, step: Affine) -> Graph:
    if isinstance(source, Affine):
        return graph.updated(_composed(source, step)).without(step)
    if isinstance(source, Weighted) and isinstance(source.activation, Linear):
        return graph.updated(_scaled(source, step)).without(step)
    return graph


def _join_activation(graph: Graph, source: Step, step: Alone) -> Graph:
    if isinstance(source, Affine) and not _is_preprocessing(graph, source):
        return _pointwise(graph.without(step), source, step.activation)
    if isinstance(source, Weighted) and isinstance(source.activation, Linear):
        return graph.updated(replace(source, activation=step.activation)).without(step)
    return graph


def _join_reader(graph: Graph, name: str) -> Graph:
    """Let an affine step join the step with weights that alone reads it."""
    step = graph[name] if name in graph.steps else None
    if not isinstance(step, Affine) or _is_preprocessing(graph, step):
        return graph
    readers = graph.consumers(name)
    if len(readers) != 1 or name in graph.outputs:
        return graph
    (reader,) = readers
    if not isinstance(reader, Weighted):
        return graph
    if isinstance(reader, Conv) and reader.sees_zeros and np.any(step.bias):
        return graph  # the zeros of a border would become something else
    return graph.updated(_fed(reader, step)).without(step)


def _is_preprocessing(graph: Graph, step: Step) -> bool:
    return isinstance(graph[step.inputs[0]], Input)


def _composed(first: Affine, second: Affine) -> Affine:
    """Two affine steps as one, in double precision."""
    assert second.kernel is not None
    kernel, bias = np.asarray(first.kernel, np.float64), np.asarray(first.bias, np.float64)
    return replace(first, kernel=kernel * second.kernel, bias=bias * second.kernel + second.bias)


def _scaled(step: Weighted, behind: Affine) -> Weighted:
    """A step with weights that does what the affine step behind it did."""
    assert behind.kernel is not None
    kernel = step.kernel.astype(np.float64) * step.by_channel(behind.kernel)
    bias = step.bias * behind.kernel + behind.bias
    return replace(step, kernel=kernel.astype(np.float32), bias=bias.astype(np.float32))


def _fed(step: Weighted, ahead: Affine) -> Weighted:
    """A step with weights that does what the affine step in front of it did."""
    assert ahead.kernel is not None
    bias = (step.bias + step.of_constant(ahead.bias)).astype(np.float32)
    return replace(step.times_input(np.asarray(ahead.kernel, np.float64)), bias=bias)


def _pointwise(graph: Graph, step: Alone | Affine, activation: Activation = LINEAR) -> Graph:
    """The graph with a depthwise convolution of one pixel instead of a step; of flat features too."""
    if isinstance(step, Alone):
        factors, summands = np.ones(step.channels), np.zeros(step.channels)
        activation = step.activation
    else:
        assert step.kernel is not None
        factors, summands = step.kernel, step.bias
    (source,) = step.inputs
    channels = len(summands)
    flat = graph.flat[source]
    shaped = f"{step.name}_map"
    pointwise = Depthwise(
        name=step.name,
        inputs=(shaped if flat else source,),
        kernel=np.asarray(factors, np.float32).reshape(1, 1, -1, 1),
        bias=np.asarray(summands, np.float32),
        padding="valid",
        activation=activation,
    )
    if not flat:
        return graph.updated(pointwise)
    back = f"{step.name}_flat"
    ends = (
        Reshape(name=shaped, inputs=(source,), shape=(1, 1, channels)),
        pointwise,
        Reshape(name=back, inputs=(step.name,), shape=(channels,)),
    )
    steps: dict[str, Step] = {}
    for each in graph:
        if each.name == step.name:
            steps.update({end.name: end for end in ends})
        else:
            inputs = tuple(back if name == step.name else name for name in each.inputs)
            steps[each.name] = replace(each, inputs=inputs)
    results = tuple(back if name == step.name else name for name in graph.results)
    return replace(graph, steps=steps, results=results)


def _single(values: Array | None) -> Any:
    return None if values is None else np.asarray(values, np.float32)
