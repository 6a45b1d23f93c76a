"""Two classifiers on the same photographs: by how much one is better, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_effnet.errors import InvalidInputError, require
from keras_effnet.evaluation.measures import EXTRA, Judged

SURE = 0.95  # of every interval here


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The top-1 of a second classifier less that of a first one, on the same photographs.

    Attributes:
        difference: −1 to 1.
        low, high: the 95 % interval for photographs like these.
        p_value: the exact McNemar test's: how often two equally good classifiers differ this much or more.
        only_first, only_second: photographs that one alone gets right.
        same_guess: the share of photographs with the same best class, right or wrong, 0–1.
    """

    difference: float
    low: float
    high: float
    p_value: float
    only_first: int
    only_second: int
    same_guess: float


def difference(first: Judged, second: Judged) -> Difference:
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
    return Difference(
        difference=more / photographs,
        low=max(-1.0, float(more / total - margin)),
        high=min(1.0, float(more / total + margin)),
        p_value=float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0,
        only_first=lost,
        only_second=won,
        same_guess=float(np.mean(first.guesses == second.guesses)),
    )


def interval_of(judged: Judged) -> tuple[float, float]:
    """The 95 % interval of top-1 for photographs like these, (low, high), by Wilson's method.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    stats = require("scipy.stats", EXTRA)
    found = stats.binomtest(int(judged.right.sum()), len(judged)).proportion_ci(SURE, "wilson")
    return float(found.low), float(found.high)
