"""Activation ranges: what an integer tensor can represent, and how to choose it by measured error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LEVELS = 255  # steps from the smallest to the largest integer of 8 bits
SIGMOID_STEPS = 256  # LOGISTIC and SOFTMAX have a fixed scale of 1/256 in TFLite's int8 kernels
# candidate limits as shares of the largest value seen; every choice among them is by measured error
SHARES = tuple(np.geomspace(1.0, 0.1, 15).tolist())
FINE_SHARES = tuple(np.geomspace(1.0, 0.1, 43).tolist())  # where there is one limit to choose, not two
SEARCH_ELEMENTS = 200_000  # three digits of the error, in milliseconds


@dataclass(frozen=True, kw_only=True)
class Range:
    """The values that an integer tensor can hold.

    Attributes:
        low: smallest value, ≤ 0.
        high: largest value, ≥ 0.
    """

    low: float
    high: float

    @classmethod
    def symmetric(cls, limit: float) -> Range:
        """The range in which 0 is stored as 0, up to `limit` and a step further below."""
        return cls(low=-limit * 128 / 127, high=limit)

    @property
    def scale(self) -> float:
        """Distance of neighbouring values."""
        return max(self.high - self.low, 1e-9) / LEVELS

    @property
    def zero_point(self) -> int:
        """The stored integer that stands for 0; -128 to 127."""
        return int(np.rint(-128 - self.low / self.scale))

    @property
    def nudged(self) -> tuple[float, float]:
        """Smallest and largest value once 0 is exactly representable."""
        return (-128 - self.zero_point) * self.scale, (127 - self.zero_point) * self.scale

    def round(self, x: Array) -> Array:
        """`x` as the integer tensor would hold it."""
        low, high = self.nudged
        return (np.rint(np.clip(x, low, high) / self.scale) * self.scale).astype(np.float32)


PIXELS = Range(low=0.0, high=255.0)
SIGMOID_RANGE = Range(low=0.0, high=LEVELS / SIGMOID_STEPS)


def covering(values: Array, *, symmetric: bool = False) -> Range:
    """The range from the smallest to the largest value, 0 included."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    return Range.symmetric(max(high, -low * 127 / 128)) if symmetric else Range(low=low, high=high)


def best_range(
    values: Array, loss: Callable[[Range], float] | None = None, *, symmetric: bool = False
) -> Range:
    """The range with the smallest error on `values`.

    Args:
        values: samples of the tensor.
        loss: error of a candidate; default: mean squared difference.
        symmetric: whether 0 is to be stored as 0.

    Returns:
        The best of a grid of ranges: both sides together first, then one after the other, twice.
    """
    full = covering(values, symmetric=symmetric)
    measure = loss or (lambda candidate: float(np.mean((candidate.round(values) - values) ** 2)))
    if symmetric:
        return min((Range.symmetric(full.high * share) for share in FINE_SHARES), key=measure)
    low, high = _argmin(measure, ((full.low * share, full.high * share) for share in SHARES))
    for _ in range(2):
        high = _argmin(measure, ((low, full.high * share) for share in SHARES))[1]
        low = _argmin(measure, ((full.low * share, high) for share in SHARES))[0]
    return Range(low=low, high=high)


def _argmin(measure: Callable[[Range], float], limits: Iterable[tuple[float, float]]) -> tuple[float, float]:
    candidates = [Range(low=low, high=high) for low, high in limits]
    best = min(candidates, key=measure)
    return best.low, best.high


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) without overflow."""
    return np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1))


def integer_sigmoid(x: Array) -> Array:
    """What the int8 kernel returns: multiples of 1/256 up to 255/256."""
    return np.minimum(np.rint(sigmoid(x) * SIGMOID_STEPS), SIGMOID_STEPS - 1) / np.float32(SIGMOID_STEPS)
