"""The head of a small data set: logistic regression, solved exactly instead of approached.

On fixed features the last layer is a convex problem. Its solution does not depend on a seed, an order or
a learning rate; the one thing to choose is how strongly weights are drawn to 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import require
from keras_effnet.system.resources import one_blas_thread
from keras_effnet.train.features import FloatArray

STRENGTHS = tuple(float(value) for value in np.geomspace(1e-3, 10.0, 9))  # scikit-learn's C
AFFORDABLE = 1e9  # multiply-adds of one pass over the features; a few hundred passes are made
ITERATIONS = 300


def affordable(views: Sequence[FloatArray], classes: int) -> bool:
    """Whether solving takes seconds rather than minutes."""
    return sum(view.size for view in views) * classes <= AFFORDABLE


def solve_head(
    views: Sequence[FloatArray],
    labels: npt.NDArray[np.int32],
    validation: tuple[FloatArray, npt.NDArray[np.int32]],
    *,
    classes: int,
    class_weights: FloatArray | None,
) -> tuple[FloatArray, FloatArray, dict[str, Any]]:
    """Weights of the last layer.

    Args:
        views: features of the training photographs, each `[N, C]`.
        labels: their class indices `[N]`; every class occurs.
        validation: features `[M, C]` and class indices `[M]`, which choose the strength.
        classes: their number.
        class_weights: per class, or None.

    Returns:
        Kernel `[C, classes]`, bias `[classes]`, and for each strength that was tried the validation
        cross-entropy and accuracy.
    """
    linear = require("sklearn.linear_model", "train")
    exceptions = require("sklearn.exceptions", "train")
    features = np.concatenate(views)
    targets = np.tile(labels, len(views))
    weights = None if class_weights is None else class_weights[targets]
    regression = linear.LogisticRegression(max_iter=ITERATIONS, warm_start=True)
    tried: list[dict[str, float]] = []
    best: tuple[FloatArray, FloatArray] | None = None
    least, since = np.inf, 0
    for strength in STRENGTHS:
        regression.set_params(C=strength)
        with warnings.catch_warnings(), one_blas_thread():
            # the weakest pulls may not converge; validation judges what they came to
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
            regression.fit(features, targets, sample_weight=weights)
        kernel, bias = _for_each_class(regression, classes)
        loss, accuracy = _judge(validation, kernel, bias)
        tried.append({"strength": strength, "val_loss": loss, "val_accuracy": accuracy})
        if loss < least:
            best, least, since = (kernel, bias), loss, 0
        elif (since := since + 1) == 2:
            break  # weaker pulls take longest, and it only gets worse
    assert best is not None
    return *best, {name: [row[name] for row in tried] for name in tried[0]}


def _for_each_class(regression: Any, classes: int) -> tuple[FloatArray, FloatArray]:
    """Kernel and bias of a softmax; with two classes the library keeps the difference only."""
    kernel, bias = regression.coef_, regression.intercept_
    if classes == 2:
        kernel, bias = np.concatenate([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
    return kernel.T.astype(np.float32), bias.astype(np.float32)


def _judge(
    validation: tuple[FloatArray, npt.NDArray[np.int32]], kernel: FloatArray, bias: FloatArray
) -> tuple[float, float]:
    features, labels = validation
    logits = (features @ kernel + bias).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    return float(losses.mean()), float((logits.argmax(axis=1) == labels).mean())
