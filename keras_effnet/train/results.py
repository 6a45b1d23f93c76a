"""What a run has made: its figures, its mistakes, and why this network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import require
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import Listing
from keras_effnet.train.folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run made.

    Attributes:
        folder: the run's folder.
        model: the trained classifier, float32, not compiled.
        listing: the photographs.
        metrics: the content of `metrics.json`.
        probabilities: of the photographs of `judged`, float `[N, classes]`.
        framing: how photographs are read.
        judged: the split they are of: `"test"`, or `"validation"` where there is no test split.
    """

    folder: RunFolder
    model: Any
    listing: Listing
    metrics: dict[str, Any]
    probabilities: npt.NDArray[np.float32]
    judged: str
    framing: Framing


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
    of_classes = metrics.precision_recall_fscore_support(labels, guesses, labels=numbers, zero_division=0.0)
    return {
        "photographs": len(labels),
        "accuracy": float(metrics.accuracy_score(labels, guesses)),
        "loss": float(metrics.log_loss(labels, probabilities, labels=numbers)),
        "per_class": {
            name: {
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
                "photographs": int(count),
            }
            for name, precision, recall, f1, count in zip(classes, *of_classes, strict=True)
        },
        "confusion_matrix": metrics.confusion_matrix(labels, guesses, labels=numbers).tolist(),
    }


def reason_for_result(metrics: dict[str, Any]) -> str:
    """Which network a run has kept, and why, in one sentence without its point."""
    head, tuned, refit = metrics["head"], metrics["fine_tuning"], metrics.get("refit")
    if tuned is None:
        return "the head alone on the pretrained network; nothing was fine-tuned (--epochs 0)"
    judged = tuned["history"]["val_accuracy"]
    best = tuned["best_epoch"] or int(np.argmin(tuned["history"]["val_loss"])) + 1
    right = f"{judged[best - 1]:.3f} of the validation photographs right"
    if head is None:
        return f"the network of epoch {best}, which had the lowest validation loss and got {right}"
    before = head["validation_accuracy"]
    if not tuned["best_epoch"]:
        return (
            f"the head alone on the pretrained network: it got {before:.3f} of the validation photographs "
            f"right, the best fine-tuned epoch {judged[best - 1]:.3f}"
        )
    if refit:
        return (
            f"the refitted network, fine-tuned on training and validation photographs for {refit['epochs']} "
            f"epochs, as many as got {right} before, where the head alone got {before:.3f}"
        )
    equal = "; of equal ones the fine-tuned network is kept" if judged[best - 1] == before else ""
    return f"the fine-tuned network of epoch {best}: it got {right}, the head alone {before:.3f}{equal}"


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
