"""Scales that XNNPACK takes, so that a whole integer file is one partition.

TensorFlow Lite's delegate leaves an operator to the slow kernels, and so cuts a file into partitions, where
the scales of its tensors lie too far apart (`CheckTensorsInputOutputScale` and
`CheckTensorsInputProductOutputScale` in `tensorflow/lite/delegates/xnnpack/xnnpack_delegate.cc`). It does not
ask a convolution, which XNNPACK then refuses: LiteRT 2.3 aborts the process. That happens where values are practically
constant: in untrained networks, and in branches that have died. Widening such a range, or narrowing that of
a product to what its factors can give, costs less than one rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .graph import Graph
from .ops import LARGEST, OUTPUT, Gain, Multiplied, Operator, key_of
from .ranges import LEVELS, SIGMOID_RANGE, Range
from .steps import Input, Step, Sum
from .weighted import Weighted


@dataclass(frozen=True)
class ScaleRatio:
    """Of an operator's input scale (or the product of both) divided by its output scale: least ≤ ratio < most."""

    least: float
    most: float


MUL = ScaleRatio(2.0**-16, 2.0**8)
ADD = ScaleRatio(2.0**-10, 2.0**8)
CONVOLUTION = ScaleRatio(0.0, 2.0**8)
_FIXED = "/1/256"  # stands for all tensors of this scale; no step has such a name


def within_limits(graph: Graph, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges of an integer network, changed where XNNPACK would refuse an operator; what has none is float."""
    scales = _Scales(ranges)
    for _ in graph.walk(scales.take):
        pass
    return {key: scales.ranges[key] for key in ranges}


class _Scales:
    """The ranges so far; a tensor's value in the walk is its key, None for float."""

    def __init__(self, ranges: Mapping[str, Range]) -> None:
        self.ranges = {**ranges, _FIXED: SIGMOID_RANGE}

    def take(self, step: Step, sources: list[str | None]) -> str | None:
        def do(operator: Operator, *values: str | None, tensor: str | None = OUTPUT) -> str | None:
            if None in values:
                return None
            if operator.fixed:
                return _FIXED
            found = key_of(step.name, OUTPUT if tensor is None else tensor)
            if found not in self.ranges:
                return None
            self._check(operator, [str(value) for value in values], found)
            return found

        value = step.name if isinstance(step, Input) else step.compute(do, *sources)
        # a lifted step computes in float, and is rounded where an integer one reads it
        return step.name if value is None and step.name in self.ranges else value

    def _check(self, operator: Operator, sources: list[str], found: str) -> None:
        """Bring the scales around one operator within its limits."""
        scales = [self.ranges[key].scale for key in sources]
        if isinstance(operator, Weighted):
            largest = float(np.abs(operator.kernel).max(initial=0)) / LARGEST
            self._at_least(found, scales[0] * largest / CONVOLUTION.most)
        elif isinstance(operator, Gain):
            self._product(scales[0] * float(np.ptp([0.0, *operator.factors])) / LEVELS, found)
        elif isinstance(operator, Multiplied):
            self._product(scales[0] * scales[1], found)
        elif isinstance(operator, Sum):
            self._at_least(found, max(scales) / ADD.most)
            for key in sources:
                self._at_least(key, self.ranges[found].scale * ADD.least)

    def _product(self, scale: float, found: str) -> None:
        self._at_least(found, scale / MUL.most)
        self._at_most(found, scale / MUL.least)

    def _at_least(self, key: str, scale: float) -> None:
        if self.ranges[key].scale <= scale and key != _FIXED:
            self.ranges[key] = _scaled(self.ranges[key], scale * (1 + 1e-3))

    def _at_most(self, key: str, scale: float) -> None:
        if self.ranges[key].scale >= scale:
            self.ranges[key] = _scaled(self.ranges[key], scale * (1 - 1e-3))


def _scaled(chosen: Range, scale: float) -> Range:
    """A range of another scale, and of the same zero point as far as it has one of its own."""
    if chosen.high - chosen.low <= 0:
        return Range(low=0.0, high=scale * LEVELS)
    factor = scale * LEVELS / (chosen.high - chosen.low)
    return Range(low=chosen.low * factor, high=chosen.high * factor)
