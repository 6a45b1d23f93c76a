"""Two classifiers on the same photographs: by how much one is better, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, require
from keras_effnet.evaluation.measures import EXTRA

SURE = 0.95  # of every interval here


class Answered(Protocol):
    """What a classifier said of photographs: `Judged`, or `Marked` of several labels."""

    @property
    def labels(self) -> npt.NDArray[Any]:
        """What is true, `[N]` or `[N, classes]`."""

    @property
    def guesses(self) -> npt.NDArray[Any]:
        """What was said, in the same shape."""

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether all of it is right, `[N]`."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """What a second classifier gets right less what a first one does, on the same photographs.

    Attributes:
        difference: −1 to 1.
        low, high: the 95 % interval for photographs like these.
        p_value: the exact McNemar test's: how often two equally good classifiers differ this much or more.
        only_first, only_second: photographs that one alone gets right.
        same_guess: the share of photographs with the same best class, or the same labels, right or wrong, 0–1.
    """

    difference: float
    low: float
    high: float
    p_value: float
    only_first: int
    only_second: int
    same_guess: float


def difference(first: Answered, second: Answered) -> PairedDifference:
    """Compare two classifiers on the same photographs.

    Photographs are paired, so that only those count that one of the two alone gets right: far fewer are needed
    than to tell two independent accuracies apart. The interval is Wald's with half a photograph added to each of
    the four cells, which keeps its promise also where no or few photographs differ.

    Raises:
        InvalidInputError: other photographs.
        MissingExtraError: SciPy, which comes with scikit-learn, is not installed.

    Source: Agresti and Min, *Simple improved confidence intervals for comparing matched proportions* (2005);
    McNemar (1947), the exact form: a binomial test of the photographs that differ.
    """
    stats = require("scipy.stats", EXTRA)
    if not np.array_equal(first.labels, second.labels):
        raise InvalidInputError(
            f"Expected two classifiers' answers for the same photographs in the same order. Received: {len(first)} and "
            f"{len(second)}, whose classes differ. Evaluate both in one call."
        )
    lost = int(np.sum(first.right & ~second.right))
    won = int(np.sum(second.right & ~first.right))
    photographs = len(first)
    more, total = won - lost, photographs + 2
    spread = np.sqrt((won + lost + 1) - more**2 / total) / total
    margin = stats.norm.ppf((1 + SURE) / 2) * spread
    return PairedDifference(
        difference=more / photographs,
        low=max(-1.0, float(more / total - margin)),
        high=min(1.0, float(more / total + margin)),
        p_value=float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0,
        only_first=lost,
        only_second=won,
        same_guess=float(np.mean(_same(first.guesses, second.guesses))),
    )


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Of which photographs two say the same, `[N]`."""
    return np.asarray((one == other).reshape(len(one), -1).all(axis=1))


def interval_of(judged: Answered) -> tuple[float, float]:
    """The 95 % interval of the share that is right for photographs like these, (low, high), by Wilson's method.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    stats = require("scipy.stats", EXTRA)
    found = stats.binomtest(int(judged.right.sum()), len(judged)).proportion_ci(SURE, "wilson")
    return float(found.low), float(found.high)
