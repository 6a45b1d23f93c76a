"""From a budget to a network: the optimisation problem of the paper's section 3.

    maximise accuracy(network)  subject to  multiply-adds(network) ≤ limit, memory(network) ≤ limit

Compound scaling turns it into the search for one number. It is searched on the network that is
built, with its rounded filters, repeats and resolution, not on the formula.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from keras_effnet.costs import Cost, cost
from keras_effnet.errors import EffNetError, InvalidInputError, unknown_name
from keras_effnet.network.table import MAX_BLOCKS, count_blocks
from keras_effnet.network.variants import Variant
from keras_effnet.scaling.compound import PHI_RANGE, CompoundScaling, round_resolution

DIMENSIONS = ("compound", "depth", "width", "resolution")
STEP, MEASURED_STEP = 0.01, 0.1  # a measurement takes seconds and repeats to some percent

Measure = Callable[[Any], float]


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


def fit(
    scaling: CompoundScaling | None = None,
    *,
    max_macs: float | None = None,
    max_params: float | None = None,
    max_memory: float | None = None,
    max_latency_ms: float | None = None,
    dimension: str = "compound",
    step: float | None = None,
    classes: int = 1000,
    batch: int = 1,
    measure: Measure | None = None,
) -> Fit:
    """Find the largest phi whose built network meets every limit.

    Args:
        scaling: the rule and its baseline; None for the paper's on B0.
        max_macs: multiply-adds for the batch.
        max_params: trained weights.
        max_memory: bytes of activations alive at once, for the batch, as `Cost.peak_activation_bytes`.
        max_latency_ms: time of one call of `measure`, in milliseconds.
        dimension: `"compound"`, or `"depth"`, `"width"`, `"resolution"` to scale one alone.
        step: resolution of phi; None for 0.01, or 0.1 when the latency is measured.
        classes: outputs of the classifier.
        batch: pictures per call, for multiply-adds and memory.
        measure: from a Keras model to milliseconds; None calls the model itself, one picture at a
            time. `keras_effnet.export.latency("tflite:float32")` measures an exported artefact.

    Returns:
        The `Fit`; the network one step further breaks a limit.

    Raises:
        InvalidInputError: no limit, one that is not positive, one that the smallest network breaks,
            or limits that even the largest meets.
    """
    limits = _limits(max_macs, max_params, max_memory, max_latency_ms)
    if dimension not in DIMENSIONS:
        raise unknown_name("dimension", dimension, DIMENSIONS)
    width = (STEP if max_latency_ms is None else MEASURED_STEP) if step is None else step
    if not 0 < width <= 1:
        raise InvalidInputError(f"Expected step to lie above 0, up to 1. Received: {step!r}.")
    trial = _Trial(
        scaling or CompoundScaling(), dimension, limits, classes, batch, measure or call_latency_ms
    )
    steps = [math.trunc(end / width + math.copysign(1e-9, end)) for end in PHI_RANGE]
    ends = Range(steps[0], steps[1], round(1 / width))
    # depth alone would reach tens of thousands of blocks long before phi ends
    tallest, _ = last_within(ends, lambda index: trial.buildable(index * width))
    ends = replace(ends, high=max(tallest, ends.low))
    # what is counted is cheap: let it narrow the range before anything is measured
    low, high = last_within(ends, lambda index: not trial.counted_exceeded(index * width))
    if max_latency_ms is not None and low >= ends.low:
        low, high = last_within(replace(ends, high=high), lambda index: not trial.exceeded(index * width))
    if low < ends.low:
        broken = trial.exceeded(high * width)
        raise InvalidInputError(
            f"Expected limits that the smallest network, phi {high * width:g}, meets. Received: "
            f"{', '.join(f'{name}={limits[name]:g}' for name in broken)}; it needs {trial.needs(high * width)}. "
            "Raise the limits or start from a smaller baseline."
        )
    if low == high:
        raise InvalidInputError(
            f"Expected limits that the largest network, phi {high * width:g}, breaks. Received: "
            f"{', '.join(f'{name}={limit:g}' for name, limit in limits.items())}; it needs only "
            f"{trial.needs(high * width)}. Lower the limits, or limit what {dimension} scaling changes."
        )
    broken = trial.exceeded(high * width)
    phi = round(low * width, 10)
    return Fit(
        phi=phi,
        dimension=dimension,
        member=trial.member(phi),
        cost=trial.built_cost(phi),
        latency_ms=trial.latency_ms(phi) if max_latency_ms is not None else None,
        next_phi=round(high * width, 10),
        exceeded=broken,
    )


def single_dimension(scaling: CompoundScaling, dimension: str, phi: float) -> Variant:
    """The member whose one dimension alone takes all of the growth that compound scaling spreads.

    Multiply-adds grow with depth, width² and resolution², so each factor is the root that should
    cost (α·β²·γ²)^phi.
    """
    if dimension == "compound":
        return scaling.at(phi)
    growth = scaling.predicted_growth(phi)
    label = f"{dimension}-phi{phi:.4g}"
    if dimension == "depth":
        return scaling.member(depth=growth, width=1.0, phi=phi, label=label)
    if dimension == "width":
        return scaling.member(depth=1.0, width=math.sqrt(growth), phi=phi, label=label)
    side = round_resolution(scaling.baseline.resolution * math.sqrt(growth)) if phi else None
    return scaling.member(depth=1.0, width=1.0, resolution=side, phi=phi, label=label)


def call_latency_ms(model: Any, *, rounds: int = 10) -> float:
    """Median time of calling the Keras model itself on one picture, in milliseconds."""
    import numpy as np

    picture = np.zeros((1, *model.input_shape[1:]), "float32")
    spent = []
    for turn in range(rounds + 2):  # the first two compile
        start = time.perf_counter()
        model.predict_on_batch(picture)
        if turn >= 2:
            spent.append((time.perf_counter() - start) * 1e3)
    return float(np.median(spent))


class _Trial:
    """Tries members against the limits; nothing is counted, built or measured twice."""

    def __init__(
        self,
        scaling: CompoundScaling,
        dimension: str,
        limits: dict[str, float],
        classes: int,
        batch: int,
        measure: Measure,
    ) -> None:
        self._scaling, self._dimension, self._limits = scaling, dimension, limits
        self._classes, self._batch, self._measure = classes, batch, measure
        self._measured: dict[Variant, float] = {}

    def member(self, phi: float) -> Variant:
        return single_dimension(self._scaling, self._dimension, round(phi, 10))

    def buildable(self, phi: float) -> bool:
        return count_blocks(self._scaling.baseline.stages, self.member(phi).depth) <= MAX_BLOCKS

    def counted_exceeded(self, phi: float) -> tuple[str, ...]:
        counted = self._scaling.cost(self.member(phi), classes=self._classes, batch=self._batch)
        needs = _needs(counted)
        return tuple(name for name, limit in self._limits.items() if name in needs and needs[name] > limit)

    def exceeded(self, phi: float) -> tuple[str, ...]:
        broken = self.counted_exceeded(phi)
        limit = self._limits.get("max_latency_ms")
        if limit is not None and not broken and self.latency_ms(phi) > limit:
            return ("max_latency_ms",)
        return broken

    def latency_ms(self, phi: float) -> float:
        member = self.member(phi)
        if member not in self._measured:
            self._measured[member] = self._measure(self._scaling.build(member, classes=self._classes))
        return self._measured[member]

    def built_cost(self, phi: float) -> Cost:
        """The cost of the Keras model itself; the search counted a sketch of it."""
        member = self.member(phi)
        built = cost(self._scaling.build(member, classes=self._classes), batch=self._batch)
        if _needs(built) != _needs(self._scaling.cost(member, classes=self._classes, batch=self._batch)):
            raise EffNetError(
                f"The built network {member.name!r} costs something else than its sketch: a defect."
            )
        return built

    def needs(self, phi: float) -> str:
        needs: dict[str, float] = dict(
            _needs(self._scaling.cost(self.member(phi), classes=self._classes, batch=self._batch))
        )
        if self._limits.keys() - needs:
            needs["max_latency_ms"] = self._measured.get(self.member(phi), math.nan)
        return ", ".join(f"{name.removeprefix('max_')} {needs[name]:g}" for name in self._limits)


def _needs(counted: Cost) -> dict[str, int]:
    return {
        "max_macs": counted.macs,
        "max_params": counted.params,
        "max_memory": counted.peak_activation_bytes,
    }


def _limits(*given: float | None) -> dict[str, float]:
    names = ("max_macs", "max_params", "max_memory", "max_latency_ms")
    limits = {name: float(limit) for name, limit in zip(names, given, strict=True) if limit is not None}
    if not limits:
        raise InvalidInputError(f"Expected at least one of {', '.join(names)}. Received: none.")
    for name, limit in limits.items():
        if not (limit > 0 and math.isfinite(limit)):
            raise InvalidInputError(f"Expected {name} to be a number above 0. Received: {limit!r}.")
    return limits


@dataclass(frozen=True)
class Range:
    """Indices to search: from `low` to `high`, starting at 0 with strides of `stride`."""

    low: int
    high: int
    stride: int


def last_within(ends: Range, within: Callable[[int], bool]) -> tuple[int, int]:
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
