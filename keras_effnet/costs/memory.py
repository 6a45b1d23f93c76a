"""How much memory the outputs of layers take while a network runs."""

from __future__ import annotations

from collections.abc import Sequence

from keras_effnet.network.reader import CallGraph


def peak_values(graph: CallGraph, values: Sequence[int], free: Sequence[bool]) -> int:
    """The most values alive at once when the calls run in order, each output in a place of its own.

    An output dies behind its last reader. While a call runs, its inputs and its output are alive.

    Args:
        graph: the calls.
        values: size of each call's output.
        free: calls whose output is their input itself.

    Returns:
        Number of values, for one picture.
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
