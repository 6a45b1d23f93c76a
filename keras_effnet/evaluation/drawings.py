"""What reports show of a classifier: the confusion of its classes, its reliability, its worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.evaluation.confidence import Coverage
from keras_effnet.evaluation.measures import Judged, Reliability
from keras_effnet.reports import page

MISTAKES = 12  # that a report shows
_TICKS = 40  # classes, up to which the confusion matrix names them
_CELL = 0.3  # inches of one of its cells


def confusion(counts: npt.NDArray[Any], classes: Sequence[str]) -> Any:
    """Rows are the truth, columns the guess; a color shows the share of the row.

    Args:
        counts: whole numbers `[classes, classes]`.
        classes: their names.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(1.6 + _CELL * len(classes), 3.4), 14)
    made = page.axes("Truth and guess", side, side)
    made.imshow(shares, cmap="BuGn", vmin=0, vmax=1)
    if len(classes) <= _TICKS:
        made.set_xticks(range(len(classes)), classes, rotation=90, fontsize=9)
        made.set_yticks(range(len(classes)), classes, fontsize=9)
        for row, column in np.argwhere(counts > 0):
            color = "white" if shares[row, column] > 0.6 else "black"
            text = str(counts[row, column])
            made.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    made.set_ylabel("truth")
    made.set_xlabel("guess")
    made.tick_params(length=0)
    made.spines[:].set_visible(False)
    return page.drawing(made)


def reliability_diagram(title: str, found: Reliability) -> Any:
    """A bar for each bin up to its accuracy, beside the diagonal on which a calibrated classifier stands.

    The darker a bar, the more of the photographs are in it.
    """
    made = page.axes(title, height=3.6)
    filled = found.counts > 0
    shares = found.counts[filled] / found.counts.sum()
    colors = [(*_rgb(page.GOOD), 0.25 + 0.75 * share / shares.max()) for share in shares]
    widths = np.diff(found.edges)[filled]
    made.bar(found.edges[:-1][filled], found.accuracy[filled], widths * 0.94, align="edge", color=colors)
    made.plot([0, 1], [0, 1], "--", color=page.SOFT, linewidth=1)
    made.plot(found.confidence[filled], found.accuracy[filled], ".", color=page.BAD, clip_on=False)
    made.set_xlim(0, 1)
    made.set_ylim(0, 1)
    made.set_xlabel("probability of the guess", fontsize=9)
    made.set_ylabel("share that is right", fontsize=9)
    return page.drawing(made)


def coverage_curve(found: Coverage, threshold: float | None = None) -> Any:
    """Accuracy against coverage: how often guesses are right when only the surest count.

    Args:
        threshold: the coverage at which a threshold stands, marked by a line; None for no line.
    """
    made = page.axes("Accuracy against coverage", height=3.6)
    made.plot(found.coverage, found.accuracy, color=page.GOOD)
    if threshold is not None:
        made.axvline(threshold, linestyle="--", color=page.SOFT, linewidth=1)
    made.set_xlim(0, 1)
    made.set_ylim(min(0.5, float(found.accuracy.min())), 1.01)
    made.set_xlabel("share of the photographs, the surest first", fontsize=9)
    made.set_ylabel("share that is right", fontsize=9)
    return page.drawing(made)


def _rgb(color: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(color)


def worst_mistakes(judged: Judged) -> npt.NDArray[np.int64]:
    """The wrong guesses that the classifier was surest of, at most `MISTAKES`: their places, the worst first."""
    wrong = np.flatnonzero(~judged.right)
    return wrong[np.argsort(-judged.confidences[wrong], kind="stable")][:MISTAKES]
