"""Figures from what a classifier said of photographs whose class is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, require

EXTRA = "evaluate"  # of setup.py, with what this room needs
BINS = 15  # of the calibration error, as in the paper that introduced it to deep networks

_COLUMNS = ("labels", "guesses", "confidences", "rightful", "ranks")
_Floats = npt.NDArray[np.float32]
_Whole = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the figures need of a classifier's scores; 20 bytes for each of N photographs, however many classes.

    Attributes:
        labels: int32 `[N]`, the right classes.
        guesses: int32 `[N]`, the best classes; of equal ones the first.
        confidences: float32 `[N]`, 0–1, the probability of the guess.
        rightful: float32 `[N]`, 0–1, the probability of the right class.
        ranks: int32 `[N]`, how many classes stand before the right one; 0 where the guess is right.
        classes: how many there are.
    """

    labels: _Whole
    guesses: _Whole
    confidences: _Floats
    rightful: _Floats
    ranks: _Whole
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each guess is right, `[N]`."""
        return self.ranks == 0

    @classmethod
    def joined(cls, parts: Sequence[Judged]) -> Judged:
        """The photographs of several, in their order."""
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        return cls(**columns, classes=parts[0].classes)

    def only(self, places: npt.NDArray[Any]) -> Judged:
        """The photographs of these places."""
        return Judged(**{name: getattr(self, name)[places] for name in _COLUMNS}, classes=self.classes)

    def top(self, count: int) -> float:
        """The share of photographs whose class is among the best `count`, 0–1."""
        return float(np.mean(self.ranks < count))


def judge(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Judged:
    """Compare scores with the truth.

    Args:
        probabilities: float `[N, classes]`, 0–1.
        labels: whole numbers `[N]`, the right classes.

    Raises:
        InvalidInputError: other shapes, no photograph, or a label without a score.
    """
    scores, truth = np.asarray(probabilities, np.float32), np.asarray(labels, np.int32)
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or not len(truth):
        raise InvalidInputError(
            f"Expected probabilities [N, classes] and labels [N] of at least one photograph. Received: "
            f"{list(scores.shape)} and {list(truth.shape)}. Pass a row of probabilities for each label."
        )
    if truth.min() < 0 or truth.max() >= scores.shape[1]:
        raise InvalidInputError(
            f"Expected labels from 0 to {scores.shape[1] - 1}, one of the {scores.shape[1]} classes with a score. "
            f"Received: {truth.min()} to {truth.max()}. Take the labels and the scores from the same list of classes."
        )
    rows = np.arange(len(truth))
    rightful = scores[rows, truth]
    equal_before = (scores == rightful[:, None]) & (np.arange(scores.shape[1]) < truth[:, None])
    guesses = scores.argmax(axis=1).astype(np.int32)
    return Judged(
        labels=truth,
        guesses=guesses,
        confidences=scores[rows, guesses],
        rightful=rightful,
        ranks=((scores > rightful[:, None]) | equal_before).sum(axis=1, dtype=np.int32),
        classes=scores.shape[1],
    )


def measure(judged: Judged, classes: Sequence[str]) -> dict[str, Any]:
    """The figures, as JSON takes them; `classes` are the names.

    Returns:
        `photographs`, `accuracy`, `top5` (where there are more than five classes), `mean_per_class` (recall, over
        the classes with photographs), `loss` (mean cross entropy), `calibration_error`, `per_class` (name →
        `precision`, `recall`, `f1`, `photographs`) and `confusion_matrix` (rows: truth, columns: guess).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    metrics = require("sklearn.metrics", EXTRA)
    numbers = np.arange(judged.classes)
    of_classes = metrics.precision_recall_fscore_support(
        judged.labels, judged.guesses, labels=numbers, zero_division=0.0
    )
    _, recalls, _, counts = of_classes
    return {
        "photographs": len(judged),
        "accuracy": judged.top(1),
        **({"top5": judged.top(5)} if judged.classes > 5 else {}),
        "mean_per_class": float(recalls[counts > 0].mean()),
        "loss": _cross_entropy(judged.rightful),
        "calibration_error": _expected_error(reliability(judged)),
        "per_class": {
            name: {
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
                "photographs": int(count),
            }
            for name, precision, recall, f1, count in zip(classes, *of_classes, strict=True)
        },
        "confusion_matrix": metrics.confusion_matrix(judged.labels, judged.guesses, labels=numbers).tolist(),
    }


def _cross_entropy(rightful: _Floats) -> float:
    """The mean of −log p; a probability of 0 counts as the least that float32 tells from it beside 1."""
    return float(-np.log(np.clip(rightful, np.finfo(np.float32).eps, 1)).mean(dtype=np.float64))


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Whether a classifier is right as often as it is sure, by how sure it was.

    Attributes:
        edges: `[bins + 1]`, from 0 to 1; a bin takes its upper edge in, and the first one 0 too.
        counts: `[bins]`, photographs whose guess has a probability in the bin.
        confidence: `[bins]`, 0–1, the mean of these probabilities; NaN in an empty bin.
        accuracy: `[bins]`, 0–1, the share of these guesses that is right; NaN in an empty bin.
    """

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]


def reliability(judged: Judged, bins: int = BINS) -> Reliability:
    """The guesses in `bins` equally wide bins by their probability."""
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.digitize(judged.confidences, edges, right=True) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        confidence = np.bincount(places, judged.confidences, bins) / counts
        accuracy = np.bincount(places, judged.right, bins) / counts
    return Reliability(edges=edges, counts=counts, confidence=confidence, accuracy=accuracy)


def calibration_error(labels: npt.NDArray[Any], probabilities: npt.NDArray[Any], bins: int = BINS) -> float:
    """The expected calibration error of the best class, 0–1; 0 where the classifier is right as often as it is sure.

    Photographs are sorted into equally wide bins by the probability of the guess; the error is the mean
    distance of a bin's accuracy from its mean probability, weighted by its photographs.

    Args:
        labels: whole numbers `[N]`, the right classes.
        probabilities: float `[N, classes]`, 0–1.
        bins: how many bins.

    Raises:
        InvalidInputError: as of `judge`.

    Source: Guo et al., *On Calibration of Modern Neural Networks* (arXiv:1706.04599), eq. 3 with 15 bins.
    """
    return _expected_error(reliability(judge(probabilities, labels), bins))


def _expected_error(found: Reliability) -> float:
    distances = np.abs(found.accuracy - found.confidence)
    return float(np.nansum(found.counts * distances) / found.counts.sum())
