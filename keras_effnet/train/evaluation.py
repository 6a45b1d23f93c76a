"""How good a classifier is: accuracy, precision and recall of each class, the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import require


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A photograph whose class the model got wrong.

    Attributes:
        index: of the photograph in the listing.
        truth, guess: class indices.
        probability: that the model gave its guess, 0–1.
    """

    index: int
    truth: int
    guess: int
    probability: float


def measure(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], classes: tuple[str, ...]
) -> dict[str, Any]:
    """The figures of one split, as JSON takes them.

    Args:
        probabilities: float `[N, classes]`.
        labels: class indices `[N]`.
        classes: names.

    Returns:
        `photographs`, `accuracy`, `loss` (mean cross entropy), `per_class` (name → `precision`,
        `recall`, `f1`, `photographs`) and `confusion_matrix` (rows: truth, columns: guess).
    """
    metrics = require("sklearn.metrics", "train")
    numbers = np.arange(len(classes))
    guesses = probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, guesses, labels=numbers, zero_division=0.0
    )
    truth = np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1)
    return {
        "photographs": len(labels),
        "accuracy": float(metrics.accuracy_score(labels, guesses)),
        "loss": float(-np.log(truth).mean()),
        "per_class": {
            name: {
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "photographs": int(support[index]),
            }
            for index, name in enumerate(classes)
        },
        "confusion_matrix": metrics.confusion_matrix(labels, guesses, labels=numbers).tolist(),
    }


def worst_mistakes(
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    indices: npt.NDArray[np.int64],
    limit: int,
) -> list[Mistake]:
    """The mistakes that the model was surest of, at most `limit`.

    Args:
        probabilities: float `[N, classes]`.
        labels: class indices `[N]`.
        indices: of the same photographs in the listing, `[N]`.
        limit: how many.
    """
    guesses = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != labels)
    order = wrong[np.argsort(-sure[wrong], kind="stable")][:limit]
    return [
        Mistake(
            index=int(indices[i]), truth=int(labels[i]), guess=int(guesses[i]), probability=float(sure[i])
        )
        for i in order
    ]
