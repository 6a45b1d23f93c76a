"""Figures of a classifier of which each photograph may show several classes, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import require
from keras_effnet.evaluation.measures import EXTRA, Judged, judge
from keras_effnet.pictures.labels import both_sides

HALF = 0.5  # the threshold of a class that has none of its own


@dataclass(frozen=True, kw_only=True)
class Marked:
    """What the figures need of a classifier that may give a photograph several labels.

    Attributes:
        labels: bool `[N, classes]`, what is true.
        guesses: bool `[N, classes]`, what it says at its thresholds.
        probabilities: float32 `[N, classes]`, 0–1, each on its own.
    """

    labels: npt.NDArray[np.bool_]
    guesses: npt.NDArray[np.bool_]
    probabilities: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether all of a photograph's labels are told, and no others, `[N]`."""
        return np.asarray((self.guesses == self.labels).all(axis=1))

    @classmethod
    def joined(cls, parts: Sequence[Marked]) -> Marked:
        """The photographs of several, in their order."""
        names = ("labels", "guesses", "probabilities")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def only(self, places: npt.NDArray[Any]) -> Marked:
        """The photographs of these places."""
        return Marked(
            labels=self.labels[places], guesses=self.guesses[places], probabilities=self.probabilities[places]
        )

    def decisions(self) -> Judged:
        """Each yes or no as a classifier's guess between two, `[N · classes]`, whichever is more probable."""
        return judge(both_sides(self.probabilities.reshape(-1, 1), 2), self.labels.ravel())


def measure_several(
    probabilities: npt.NDArray[Any],
    marks: npt.NDArray[np.bool_],
    classes: Sequence[str],
    thresholds: Sequence[float] = (),
) -> dict[str, Any]:
    """The figures, as JSON takes them.

    Args:
        probabilities: float `[N, classes]`, 0–1, each on its own.
        marks: bool `[N, classes]`, what is true.
        classes: their names.
        thresholds: from which on a class counts as said: one for each, one for all, or none for 0.5.

    Returns:
        `photographs`, `accuracy` (the share of right decisions), `exact` (the share of photographs with all of them
        right), `mean_average_precision` (over the classes with photographs), `loss` (mean binary cross entropy),
        `per_class` (name → `precision`, `recall`, `f1`, `average_precision`, `threshold`, `photographs`).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    metrics = require("sklearn.metrics", EXTRA)
    scores = np.asarray(probabilities, np.float64)
    least = np.broadcast_to(np.asarray(thresholds or (HALF,), np.float32), len(classes))
    said = np.asarray(probabilities, np.float32) >= least
    rows = metrics.precision_recall_fscore_support(marks, said, average=None, zero_division=0.0)
    precisions = [
        float(metrics.average_precision_score(marks[:, k], scores[:, k])) if marks[:, k].any() else None
        for k in range(len(classes))
    ]
    known = [value for value in precisions if value is not None]
    tiny = np.finfo(np.float32).eps
    logs = np.log(np.clip(np.where(marks, scores, 1 - scores), tiny, 1))
    return {
        "photographs": len(marks),
        "accuracy": float((said == marks).mean()),
        "exact": float((said == marks).all(axis=1).mean()),
        "mean_average_precision": float(np.mean(known)) if known else None,
        "loss": float(-logs.mean()),
        "per_class": {
            name: {
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
                "average_precision": average,
                "threshold": float(threshold),
                "photographs": int(count),
            }
            for name, precision, recall, f1, count, average, threshold in zip(
                classes, *rows, precisions, least, strict=True
            )
        },
    }


def best_threshold(probabilities: npt.NDArray[Any], truth: npt.NDArray[np.bool_]) -> float:
    """The threshold of one class with the best F1; half-way to the next probability below, 0.5 where nothing is true.

    Args:
        probabilities: float `[N]`, 0–1.
        truth: bool `[N]`.
    """
    metrics = require("sklearn.metrics", EXTRA)
    if not truth.any():
        return HALF
    precision, recall, steps = metrics.precision_recall_curve(truth, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    place = int(f1[:-1].argmax())
    return float((steps[place] + steps[max(0, place - 1)]) / 2)
