"""The points of the grid search, and the networks that they build.

The constraint α·β²·γ² ≈ 2 holds for the formula. What is built has rounded filters, repeats and
pixels: it costs more or less than twice the baseline, and several points may build the same network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from keras_effnet.baselines import Baseline, cost_of
from keras_effnet.errors import InvalidInputError
from keras_effnet.network.table import round_resolution, scaled
from keras_effnet.scaling.study import fingerprint

GROWTH = 2.0  # the paper's constraint: twice the multiply-adds
CLASSES = 1000  # ImageNet's
GRID_STEP, TOLERANCE = 0.1, 0.04  # fifteen candidates; the paper's own lie on multiples of 0.05


@dataclass(frozen=True, kw_only=True, order=True)
class Candidate:
    """One point of the grid: factors of depth, width and resolution."""

    alpha: float
    beta: float
    gamma: float


@dataclass(frozen=True, kw_only=True)
class Network:
    """What one candidate, or several, build.

    Attributes:
        key: the same for the same network.
        depth, width: factors of the first of the candidates.
        resolution: side of the input, in pixels.
        macs: multiply-adds, counted.
        growth: these over the baseline's.
        candidates: all that build it, in order.
    """

    key: str
    depth: float
    width: float
    resolution: int
    macs: int
    growth: float
    candidates: tuple[Candidate, ...]


def candidates(
    step: float = GRID_STEP, tolerance: float = TOLERANCE, growth: float = GROWTH
) -> tuple[Candidate, ...]:
    """The grid: multiples of `step` from 1 with |α·β²·γ² / growth − 1| ≤ tolerance.

    Args:
        step: distance of the points, above 0, up to 1.
        tolerance: relative, 0–1.
        growth: of the multiply-adds, above 1.

    Raises:
        InvalidInputError: an argument outside its range, or a grid without points.
    """
    if not (0 < step <= 1 and 0 <= tolerance < 1 and 1 < growth < math.inf):
        raise InvalidInputError(
            "Expected 0 < step ≤ 1, 0 ≤ tolerance < 1 and growth > 1. "
            f"Received: step={step!r}, tolerance={tolerance!r}, growth={growth!r}."
        )
    limit = growth * (1 + tolerance)
    points = [round(1 + index * step, 10) for index in range(int((limit - 1) / step + 1e-9) + 1)]
    grid = tuple(
        Candidate(alpha=alpha, beta=beta, gamma=gamma)
        for alpha in points
        for beta in points
        for gamma in points
        if abs(alpha * beta**2 * gamma**2 / growth - 1) <= tolerance + 1e-9
    )
    if not grid:
        raise InvalidInputError(
            f"Expected a grid with points. Received: step={step}, tolerance={tolerance}, which leave none. "
            "Raise the tolerance or lower the step."
        )
    return grid


def networks(
    baseline: Baseline, grid: Iterable[Candidate], *, merge: bool = True, classes: int = CLASSES
) -> tuple[Network, ...]:
    """The networks that a grid builds, in the grid's order: one for all candidates that build the same if `merge`.

    `classes` count: in a small network the classifier is a good part.
    """
    groups: dict[str, list[Candidate]] = {}
    for candidate in grid:
        side = round_resolution(baseline.resolution * candidate.gamma, baseline)
        built = scaled(baseline, depth=candidate.alpha, width=candidate.beta)
        key = fingerprint((built, side) if merge else (built, side, candidate))
        groups.setdefault(key, []).append(candidate)
    before = cost_of(baseline, classes=classes).macs
    found = []
    for key, group in groups.items():
        depth, width = group[0].alpha, group[0].beta
        side = round_resolution(baseline.resolution * group[0].gamma, baseline)
        macs = cost_of(baseline, depth=depth, width=width, resolution=side, classes=classes).macs
        found.append(
            Network(
                key=key,
                depth=depth,
                width=width,
                resolution=side,
                macs=macs,
                growth=round(macs / before, 4),
                candidates=tuple(group),
            )
        )
    return tuple(found)
