"""Phase 1: the classifier's last layer, trained on what the frozen backbone says of each photograph.

The backbone is frozen, so it says the same of a photograph in every epoch: it is asked once, its answers are
kept on disk, and what is left is a small convex problem. Up to some ten thousand photographs that is solved:
a logistic regression, whose solution does not depend on a seed, an order or a learning rate; the one thing to
choose is how strongly weights are drawn to 0. Above that the layer is trained in batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_effnet.errors import ExportError, require
from keras_effnet.evaluation.confidence import cross_entropy
from keras_effnet.pictures.prefetching import Batch, dataset_of
from keras_effnet.system.files import system_said
from keras_effnet.system.resources import one_blas_thread
from keras_effnet.train.batches import in_chunks

CHUNK = 512  # photographs between two writes of their features
STRENGTHS = tuple(float(value) for value in np.geomspace(1e-3, 10.0, 9))  # scikit-learn's C
AFFORDABLE = 1e9  # multiply-adds of one pass over the features; a few hundred passes are made
ITERATIONS = 300
# where it is trained in batches
BATCH_SIZE = 128
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.02
PATIENCE = 20

FloatArray = npt.NDArray[np.float32]


def cached_features(
    ask: Callable[[Any], FloatArray],
    channels: int,
    indices: npt.NDArray[np.int64],
    batches: Callable[[npt.NDArray[np.int64]], Any],
    path: Path,
    *,
    mirrored: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> FloatArray:
    """A network's features of photographs, or other answers, float32 `[N, C]`, read from `path` as far as they are there.

    The file holds one row of float32 per photograph and nothing else. Its length says how far the work came,
    so a run that was killed goes on where it was; and a full disk is an error at the write, which a
    memory-mapped file could not report.

    Args:
        ask: from a data set of pixels to the network's answers `[n, channels]`.
        channels: C.
        batches: from some of the indices to a `tf.data.Dataset` of (pixels, labels).
        mirrored: of the photographs' mirror images.
        progress: called with the number of photographs done since the last call.

    Raises:
        ExportError: the disk is full or failed.
    """
    import tensorflow as tf

    row = channels * np.dtype(np.float32).itemsize
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            done = file.tell() // row
            file.truncate(done * row)
            progress(done)
            for chunk in in_chunks(indices[done:], CHUNK):
                pixels = batches(chunk).map(lambda image, _: tf.reverse(image, [2]) if mirrored else image)
                features = np.asarray(ask(pixels), dtype=np.float32)
                file.write(features.tobytes())
                file.flush()
                progress(len(chunk))
    except OSError as error:
        raise ExportError(
            f"Expected to write {str(path)!r}. The system said: {system_said(error)}. Free some space and "
            "resume; what was written so far is kept."
        ) from error
    if len(indices) == 0:
        return np.zeros((0, channels), np.float32)
    return np.memmap(path, dtype=np.float32, mode="r", shape=(len(indices), channels))


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a head learns from, and what it is judged by.

    Attributes:
        views: features of the training photographs, each `[N, C]`: as they are, and mirrored.
        labels: what the columns are to say of them: class indices `[N]` of a softmax, each of which occurs, or yes and
            no `[N, columns]` of sigmoids; see `answers.targets_of`.
        validation: features `[M, C]` and labels, which choose the strength or the time to stop.
        weights: how much each photograph counts `[N]`, or None.
    """

    views: Sequence[FloatArray]
    labels: npt.NDArray[Any]
    validation: tuple[FloatArray, npt.NDArray[Any]]
    weights: FloatArray | None = None

    def is_solved_in_seconds(self, classes: int) -> bool:
        """Whether solving takes seconds rather than minutes."""
        return sum(view.size for view in self.views) * classes <= AFFORDABLE


def train_head(
    model: Any, lesson: Lesson, *, epochs: int, seed: int, callbacks: Sequence[Any] = ()
) -> dict[str, list[float]]:
    """Train the last layer of `model` and put it in place.

    Args:
        model: a classifier whose last layers are `avg_pool`, dropout and `predictions`.
        lesson: the features.
        epochs, seed, callbacks: where it is trained in batches: at most, of order and dropout, for `fit`.

    Returns:
        `fit`'s history, or what `solve_head` tried.
    """
    last = model.get_layer("predictions")
    if lesson.is_solved_in_seconds(last.units):
        kernel, bias, tried = solve_head(lesson, last.units)
        last.set_weights([kernel, bias])
        return tried
    rate = next((layer.rate for layer in model.layers if layer.name == "top_dropout"), 0.0)
    dense = keras.layers.Dense(
        last.units, activation=last.activation, kernel_initializer="zeros", dtype="float32"
    )
    width = lesson.views[0].shape[1]
    head = keras.Sequential([keras.Input((width,)), keras.layers.Dropout(rate, seed=seed), dense])
    history = _fit_in_batches(head, lesson, last.units, epochs, seed, callbacks)
    last.set_weights(dense.get_weights())
    return history


def _fit_in_batches(
    head: Any, lesson: Lesson, columns: int, epochs: int, seed: int, callbacks: Sequence[Any]
) -> dict[str, list[float]]:
    softmax = lesson.labels.ndim == 1
    head.compile(
        keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY),
        # no label smoothing: one layer on fixed features underfits with it (validation loss 0.60 against 0.50
        # on 500 photographs of clothing)
        loss="categorical_crossentropy" if softmax else "binary_crossentropy",
        metrics=["accuracy" if softmax else keras.metrics.BinaryAccuracy(name="accuracy")],
    )

    def rows(targets: npt.NDArray[Any]) -> FloatArray:
        return np.eye(columns, dtype=np.float32)[targets] if softmax else np.asarray(targets, np.float32)

    stop = keras.callbacks.EarlyStopping("val_loss", patience=PATIENCE, restore_best_weights=True)
    features, truth = lesson.validation
    history = head.fit(
        _batches(lesson.views, rows(lesson.labels), lesson.weights, np.random.default_rng(seed)),
        epochs=epochs,
        validation_data=_batches([features], rows(truth)),
        callbacks=[stop, *callbacks],
        shuffle=False,  # by Keras, which would warn that it cannot
        verbose=0,
    )
    return {key: [float(value) for value in values] for key, values in history.history.items()}


def _batches(
    views: Sequence[FloatArray],
    targets: FloatArray,
    weights: FloatArray | None = None,
    generator: np.random.Generator | None = None,
) -> Any:
    """Rows of several feature files with their labels; with a generator in a new order each epoch."""
    import tensorflow as tf

    rows = np.arange(len(views) * len(targets))

    def make() -> Iterator[Batch]:
        order = rows if generator is None else generator.permutation(rows)
        for chosen in in_chunks(order, BATCH_SIZE):
            view, row = np.divmod(chosen, len(targets))
            features = np.stack([views[v][r] for v, r in zip(view, row, strict=True)])
            yield (features, targets[row]) if weights is None else (features, targets[row], weights[row])

    kinds = [tf.TensorSpec((None, views[0].shape[1])), tf.TensorSpec((None, targets.shape[1]))]
    if weights is not None:
        kinds.append(tf.TensorSpec((None,)))
    return dataset_of(make, kinds, -(-len(rows) // BATCH_SIZE))


def solve_head(lesson: Lesson, columns: int) -> tuple[FloatArray, FloatArray, dict[str, Any]]:
    """Weights of the last layer; of sigmoids each column is a problem of its own, with the same strength.

    Returns:
        Kernel `[C, columns]`, bias `[columns]`, and for each strength that was tried the validation
        cross-entropy and accuracy.
    """
    linear = require("sklearn.linear_model", "train")
    exceptions = require("sklearn.exceptions", "train")
    features = np.concatenate(lesson.views)
    targets = np.concatenate([lesson.labels] * len(lesson.views))
    weights = None if lesson.weights is None else np.tile(lesson.weights, len(lesson.views))
    problems = [targets] if targets.ndim == 1 else list(targets.T)
    regressions = [linear.LogisticRegression(max_iter=ITERATIONS, warm_start=True) for _ in problems]
    tried: list[dict[str, float]] = []
    best: tuple[FloatArray, FloatArray] | None = None
    least, since = np.inf, 0
    for strength in STRENGTHS:
        with warnings.catch_warnings(), one_blas_thread():
            # the weakest pulls may not converge; validation judges what they came to
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
            for regression, answer in zip(regressions, problems, strict=True):
                regression.set_params(C=strength).fit(features, answer, sample_weight=weights)
        kernel, bias = _for_each_column(regressions, columns)
        loss, accuracy = judge_head(lesson.validation, kernel, bias)
        tried.append({"strength": strength, "val_loss": loss, "val_accuracy": accuracy})
        if loss < least:
            best, least, since = (kernel, bias), loss, 0
        elif (since := since + 1) == 2:
            break  # weaker pulls take longest, and it only gets worse
    assert best is not None
    return *best, {name: [row[name] for row in tried] for name in tried[0]}


def _for_each_column(regressions: Sequence[Any], columns: int) -> tuple[FloatArray, FloatArray]:
    """Kernel and bias; of a softmax over two classes the library keeps the difference only."""
    kernel = np.concatenate([regression.coef_ for regression in regressions])
    bias = np.concatenate([regression.intercept_ for regression in regressions])
    if len(kernel) < columns:
        kernel, bias = np.concatenate([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
    return kernel.T.astype(np.float32), bias.astype(np.float32)


def judge_head(
    validation: tuple[FloatArray, npt.NDArray[Any]], kernel: FloatArray, bias: FloatArray
) -> tuple[float, float]:
    """Mean cross-entropy, and the share of right guesses, or of right decisions."""
    features, targets = validation
    logits = (features @ kernel + bias).astype(np.float64)
    right = logits.argmax(axis=1) == targets if targets.ndim == 1 else (logits > 0) == targets
    return cross_entropy(logits, targets) / targets.size, float(right.mean())
