"""How far probabilities can be believed, and below which one it is better to say nothing.

temperature = fitted_temperature(logits, labels)          # what the logits are divided by
threshold = least_threshold(confidences, right, 0.95)     # 95 % of the guesses from there on are right
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, require
from keras_effnet.evaluation.measures import EXTRA
from keras_effnet.pictures.thresholds import accepted

STEEPEST = 20.0  # the largest temperature that is looked at, and one over the smallest
POINTS = 200  # of a curve at most

_Numbers = npt.NDArray[Any]


def fitted_temperature(logits: _Numbers, targets: _Numbers) -> float:
    """The temperature at which photographs are most probable that decided nothing before.

    A weak pull towards 1, as strong as a photograph or two, keeps it finite where every guess is right.

    Args:
        logits: float `[N, columns]`.
        targets: whole numbers `[N]`, the right columns of a softmax; or yes and no `[N, columns]` of sigmoids.

    Returns:
        1/20 to 20; above 1 where the network is too sure.

    Raises:
        MissingExtraError: SciPy, which comes with scikit-learn, is not installed.

    Source: Guo et al., *On Calibration of Modern Neural Networks* (arXiv:1706.04599), section 4.2.
    """
    optimize = require("scipy.optimize", EXTRA)
    values = np.asarray(logits, np.float64)

    def improbability(log: float) -> float:
        return cross_entropy(values / np.exp(log), targets) + log**2 / 2

    widest = float(np.log(STEEPEST))
    found = optimize.minimize_scalar(improbability, bounds=(-widest, widest), method="bounded")
    return float(np.exp(found.x))


def cross_entropy(logits: _Numbers, targets: _Numbers) -> float:
    """Of all photographs together, in nats; arguments as of `fitted_temperature`."""
    if targets.ndim == 1:
        largest = logits.max(axis=1)
        totals = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
        return float((totals - logits[np.arange(len(targets)), targets]).sum())
    return float((np.logaddexp(0, logits) - logits * targets).sum())


def softmax(logits: _Numbers) -> npt.NDArray[np.float32]:
    """The probabilities of logits `[N, classes]`, 1 in sum."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def at_temperature(probabilities: _Numbers, temperature: float) -> npt.NDArray[np.float32]:
    """Probabilities of a softmax as another temperature would have them: `softmax(log(p) / temperature)`."""
    known = np.clip(np.asarray(probabilities, np.float64), np.finfo(np.float64).tiny, 1)
    return softmax(np.log(known) / temperature)


def least_threshold(
    confidences: _Numbers, right: npt.NDArray[np.bool_], precision: float, weights: _Numbers | None = None
) -> float:
    """The least threshold from which on guesses have a precision.

    Args:
        confidences: float `[N]`, 0–1, the probability of each guess.
        right: `[N]`, whether it is right; never for a photograph of none of the classes.
        precision: the share that is to be right of those from the threshold on, 0–1.
        weights: float `[N]`, how much each counts; None for all alike.

    Returns:
        0–1; half-way between the least confidence that is accepted and the next below.

    Raises:
        InvalidInputError: no guess reaches the precision.
        MissingExtraError: scikit-learn is not installed.
    """
    metrics = require("sklearn.metrics", EXTRA)
    most, reached = 0.0, np.zeros(0, np.int64)
    if right.any():
        shares, _, steps = metrics.precision_recall_curve(right, confidences, sample_weight=weights)
        most = float(shares[:-1].max())  # the last is none's, and always 1
        reached = np.flatnonzero(shares[:-1] >= precision)
    if not len(reached):
        raise InvalidInputError(
            f"Expected a precision that the surest guesses reach. Received: {precision:.1%}, where they reach "
            f"{most:.1%} on {len(right)} photographs."
        )
    place = int(reached[0])
    return float((steps[place] + steps[max(0, place - 1)]) / 2)


def told_of(probabilities: _Numbers, thresholds: Sequence[float]) -> npt.NDArray[np.int32]:
    """What people are told of photographs: the best of the accepted classes `[N]`, −1 for none of these.

    Args:
        probabilities: float `[N, classes]`.
        thresholds: one, or one for each class; none accept everything.
    """
    taken = accepted(probabilities, thresholds)
    return np.where(taken.any(axis=1), np.where(taken, probabilities, -1).argmax(axis=1), -1).astype(np.int32)


def worth_of(
    taken: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_], mistaken: npt.NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    """What thresholds are worth, as JSON takes it.

    Args:
        taken: bool `[N, columns]`, whether a label is accepted; one column where only the best class is told.
        right: `[N, columns]`, whether it is accepted and true.
        mistaken: `[M, columns]`, what is accepted of photographs of none of the classes.

    Returns:
        `photographs` with an accepted label, their share `coverage`, the `precision` of accepted labels (None without
        any); of photographs of none of the classes their number `strangers`, the share that is `refused`, and
        `precision_among_strangers`, if they were met as often as the others.
    """
    worth: dict[str, Any] = {
        "photographs": int(taken.any(axis=1).sum()),
        "coverage": float(taken.any(axis=1).mean()),
        "precision": float(right.sum() / taken.sum()) if taken.any() else None,
    }
    if mistaken is not None and len(mistaken):
        of_all = float(taken.sum(axis=1).mean() + mistaken.sum(axis=1).mean())
        worth |= {
            "strangers": len(mistaken),
            "refused": float(1 - mistaken.any(axis=1).mean()),
            "precision_among_strangers": float(right.sum(axis=1).mean() / of_all) if of_all else None,
        }
    return worth


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Accuracy against coverage: how often guesses are right when only the surest count.

    Attributes:
        coverage: float `[points]`, rising to 1: the share of the photographs whose guess counts.
        accuracy: float `[points]`, 0–1: the share of these guesses that is right.
    """

    coverage: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]


def coverage_of(confidences: _Numbers, right: npt.NDArray[np.bool_]) -> Coverage:
    """The curve of these guesses, at most `POINTS` points of it."""
    order = np.argsort(-np.asarray(confidences, np.float64), kind="stable")
    counts = np.arange(1, len(order) + 1)
    places = np.unique(np.linspace(0, len(order) - 1, min(POINTS, len(order))).round().astype(int))
    return Coverage(
        coverage=(counts / len(order))[places], accuracy=(np.cumsum(right[order]) / counts)[places]
    )
