"""From a budget to a network: the optimisation problem of the paper's section 3.

    maximise accuracy(network)  subject to  multiply-adds(network) ≤ limit, memory(network) ≤ limit

Compound scaling turns it into the search for one number. It is searched on the network that is
built, with its rounded filters, repeats and resolution, not on the formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from keras_effnet.baselines import build_variant
from keras_effnet.costs import Cost, cost, cost_of_variant
from keras_effnet.errors import EffNetError, InvalidInputError
from keras_effnet.network.table import MAX_BLOCKS, blocks_of_stages
from keras_effnet.network.variants import Variant
from keras_effnet.system.stopwatch import medians

Measure = Callable[[Any], float]
"""From a Keras model to milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The largest network within a budget.

    Attributes:
        phi: its coefficient, a multiple of the step. In a single dimension the exponent that should
            cost as much as the same phi of compound scaling.
        dimension: what was scaled.
        member: to be built with `scaling.build(fit.member)`, or with `EfficientNet(fit.member)` where
            EfficientNet is the baseline.
        cost: of the built Keras model.
        latency_ms: as measured; None when no limit asked for it.
        next_phi: one step further.
        exceeded: the limits that the next step breaks, by name.
    """

    phi: float
    dimension: str
    member: Variant
    cost: Cost
    latency_ms: float | None
    next_phi: float
    exceeded: tuple[str, ...]

    def __repr__(self) -> str:
        """Short: a member and a cost say much of themselves."""
        return (
            f"<Fit {self.member.name!r} of dimension {self.dimension!r}: {self.cost.params:,} parameters, "
            f"{self.cost.macs:,} multiply-adds>"
        )


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a network may need; None for no limit. See `CompoundScaling.fit`.

    Raises:
        InvalidInputError: no limit at all, or one that is not positive.
    """

    max_macs: float | None = None
    max_params: float | None = None
    max_memory: float | None = None
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        given = self.given
        if not given:
            names = ", ".join(field.name for field in fields(self))
            raise InvalidInputError(f"Expected at least one of {names}. Received: none.")
        for name, limit in given.items():
            if not (limit > 0 and math.isfinite(limit)):
                raise InvalidInputError(f"Expected {name} to be a number above 0. Received: {limit!r}.")

    @property
    def given(self) -> dict[str, float]:
        """The limits by name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: float(limit) for name, limit in values if limit is not None}


def largest_within(
    limits: Limits,
    member: Callable[[float], Variant],
    *,
    ends: tuple[float, float],
    step: float,
    dimension: str,
    classes: int,
    batch: int,
    measure: Measure,
) -> Fit:
    """Find the largest phi, within `ends`, whose network meets every limit; see `CompoundScaling.fit`."""
    if not 0 < step <= 1:
        raise InvalidInputError(f"Expected step to lie above 0, up to 1. Received: {step!r}.")
    trial = _Trial(limits.given, lambda index: member(round(index * step, 10)), classes, batch, measure)
    first, last = (math.trunc(end / step + math.copysign(1e-9, end)) for end in ends)
    span = Span(first, last, round(1 / step))
    # depth alone would reach tens of thousands of blocks long before phi ends
    tallest, _ = last_within(span, trial.buildable)
    span = replace(span, high=max(tallest, span.low))
    # what is counted is cheap: let it narrow the range before anything is measured
    low, high = last_within(span, lambda index: not trial.counted_exceeded(index))
    if limits.max_latency_ms is not None and low >= span.low:
        low, high = last_within(replace(span, high=high), lambda index: not trial.exceeded(index))
    if low < span.low:
        broken = {name: limits.given[name] for name in trial.exceeded(high)}
        raise InvalidInputError(
            f"Expected limits that the smallest network, phi {high * step:g}, meets. Received: "
            f"{_named(broken)}; it needs {trial.needs(high)}. "
            "Raise the limits or start from a smaller baseline."
        )
    if low == high:
        raise InvalidInputError(
            f"Expected limits that the largest network, phi {high * step:g}, breaks. Received: "
            f"{_named(limits.given)}; it needs only {trial.needs(high)}. "
            f"Lower the limits, or limit what {dimension} scaling changes."
        )
    return Fit(
        phi=round(low * step, 10),
        dimension=dimension,
        member=trial.member(low),
        cost=trial.built_cost(low),
        latency_ms=trial.latency_ms(low) if limits.max_latency_ms is not None else None,
        next_phi=round(high * step, 10),
        exceeded=trial.exceeded(high),
    )


def call_latency_ms(model: Any, *, rounds: int = 10) -> float:
    """Median time of calling the Keras model itself on one picture, in milliseconds."""
    import numpy as np

    picture = np.zeros((1, *model.input_shape[1:]), "float32")
    # the first two compile
    (seconds,) = medians([lambda: model.predict_on_batch(picture)], rounds=rounds, warm_up=2)
    return seconds * 1e3


class _Trial:
    """Tries members against the limits; nothing is built or measured twice."""

    def __init__(
        self,
        limits: dict[str, float],
        member: Callable[[int], Variant],
        classes: int,
        batch: int,
        measure: Measure,
    ) -> None:
        self.member = member
        self._limits, self._classes, self._batch, self._measure = limits, classes, batch, measure
        self._measured: dict[Variant, float] = {}

    def buildable(self, index: int) -> bool:
        member = self.member(index)
        return sum(blocks_of_stages(member.baseline, member.depth)) <= MAX_BLOCKS

    def counted_exceeded(self, index: int) -> tuple[str, ...]:
        needs = self._counted(index)
        return tuple(name for name, limit in self._limits.items() if name in needs and needs[name] > limit)

    def exceeded(self, index: int) -> tuple[str, ...]:
        broken = self.counted_exceeded(index)
        limit = self._limits.get("max_latency_ms")
        if limit is not None and not broken and self.latency_ms(index) > limit:
            return ("max_latency_ms",)
        return broken

    def latency_ms(self, index: int) -> float:
        member = self.member(index)
        if member not in self._measured:
            self._measured[member] = self._measure(build_variant(member, classes=self._classes))
        return self._measured[member]

    def built_cost(self, index: int) -> Cost:
        """The cost of the Keras model itself; the search counted dry runs."""
        member = self.member(index)
        built = cost(build_variant(member, classes=self._classes), batch=self._batch)
        if _needs(built) != self._counted(index):
            raise EffNetError(
                f"The built network {member.name!r} costs something else than was counted: a defect."
            )
        return built

    def needs(self, index: int) -> str:
        needs: dict[str, float] = {
            "max_latency_ms": self._measured.get(self.member(index), math.nan),
            **self._counted(index),
        }
        return ", ".join(f"{name.removeprefix('max_')} {needs[name]:g}" for name in self._limits)

    def _counted(self, index: int) -> dict[str, int]:
        return _needs(cost_of_variant(self.member(index), classes=self._classes, batch=self._batch))


def _needs(counted: Cost) -> dict[str, int]:
    return {
        "max_macs": counted.macs,
        "max_params": counted.params,
        "max_memory": counted.peak_activation_bytes,
    }


def _named(limits: dict[str, float]) -> str:
    return ", ".join(f"{name}={limit:g}" for name, limit in limits.items())


@dataclass(frozen=True)
class Span:
    """Indices to search: from `low` to `high`, starting at 0 with strides of `stride`."""

    low: int
    high: int
    stride: int


def last_within(ends: Span, within: Callable[[int], bool]) -> tuple[int, int]:
    """The last index that is within, and the next one, where all before are within and none after.

    Walks from 0 in strides and bisects the last of them, so nothing much larger than the answer is
    ever tried: the far end of the range may be a network of a trillion multiply-adds.

    Returns:
        (last, last + 1); (low - 1, low) when none is within; (high, high) when all are.
    """
    index = min(max(0, ends.low), ends.high)
    if within(index):
        while index < ends.high and within(following := min(index + ends.stride, ends.high)):
            index = following
        if index == ends.high:
            return index, index
        low, high = index, min(index + ends.stride, ends.high)
    else:
        while index > ends.low and not within(following := max(index - ends.stride, ends.low)):
            index = following
        if index == ends.low:
            return index - 1, index
        low, high = max(index - ends.stride, ends.low), index
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return low, high
