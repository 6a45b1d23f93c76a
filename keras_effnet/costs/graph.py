"""A network as the list of its layer calls: what is counted, without weights and without a framework."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
"""Shape of a tensor for one picture: (H, W, C), or (C,) behind a pooling; no batch axis."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of one layer.

    Attributes:
        name: name of the layer.
        kind: name of the layer's class, `Conv2D`.
        config: its constructor arguments; what is missing has Keras' default.
        inputs: positions, in the graph, of the calls whose outputs it reads.
        weights: values in all of the layer's variables, or None where only the rules know.
        first: False where the layer was called before and its weights are counted there.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    inputs: tuple[int, ...] = ()
    weights: int | None = None
    first: bool = True


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Calls in an order of execution.

    Attributes:
        calls: every call, inputs before those who read them.
        outputs: positions of the calls whose outputs leave the network.
    """

    calls: tuple[Call, ...]
    outputs: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """Positions of the network's inputs."""
        return tuple(index for index, call in enumerate(self.calls) if call.kind == "InputLayer")


def values(shape: Shape) -> int:
    """Number of values in a tensor of this shape."""
    return math.prod(shape)
