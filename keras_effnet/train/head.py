"""Phase 1: the classifier's last layer, trained on cached features.

The backbone is frozen, so it says the same of a photograph in every epoch: it is asked once, and what
is left is a small convex problem. Up to some ten thousand photographs it is solved (see `logistic`), above
that it is trained in batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_effnet.train.features import FloatArray
from keras_effnet.train.logistic import affordable, solve_head

BATCH_SIZE = 128
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.02
PATIENCE = 20


class _Rows(keras.utils.PyDataset):
    """Rows of several feature files with their labels, in a new order each epoch."""

    def __init__(
        self,
        views: Sequence[FloatArray],
        targets: FloatArray,
        weights: FloatArray | None,
        seed: int | None,
    ) -> None:
        super().__init__()
        self.views, self.targets, self.weights = views, targets, weights
        self.generator = None if seed is None else np.random.default_rng(seed)
        self.order = np.arange(len(views) * len(targets))
        self.on_epoch_end()

    def __len__(self) -> int:
        return math.ceil(len(self.order) / BATCH_SIZE)

    def on_epoch_end(self) -> None:
        if self.generator is not None:
            self.order = self.generator.permutation(self.order)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        chosen = self.order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
        view, row = np.divmod(chosen, len(self.targets))
        features = np.stack([self.views[v][r] for v, r in zip(view, row, strict=True)])
        batch = (features, self.targets[row])
        return batch if self.weights is None else (*batch, self.weights[row])


def train_head(
    model: Any,
    views: Sequence[FloatArray],
    labels: npt.NDArray[np.int32],
    validation: tuple[FloatArray, npt.NDArray[np.int32]],
    *,
    class_weights: FloatArray | None,
    epochs: int,
    seed: int,
    callbacks: Sequence[Any] = (),
    verbose: int = 0,
) -> dict[str, list[float]]:
    """Train the last layer of `model` and put it in place.

    Args:
        model: a classifier whose last layers are `avg_pool`, dropout and `predictions`.
        views: features of the training photographs, each `[N, C]`: as they are, and mirrored.
        labels: class indices `[N]`.
        validation: features `[M, C]` and class indices `[M]`, to stop at the right time.
        class_weights: per class, or None.
        epochs: at most.
        seed: of the order and the dropout.
        callbacks: for `fit`.
        verbose: as in `fit`.

    Returns:
        `fit`'s history, or what `solve_head` tried.
    """
    last = model.get_layer("predictions")
    if affordable(views, last.units):
        kernel, bias, tried = solve_head(
            views, labels, validation, classes=last.units, class_weights=class_weights
        )
        last.set_weights([kernel, bias])
        return tried
    rate = next((layer.rate for layer in model.layers if layer.name == "top_dropout"), 0.0)
    dense = keras.layers.Dense(
        last.units, activation=last.activation, kernel_initializer="zeros", dtype="float32"
    )
    head = keras.Sequential([keras.Input((views[0].shape[1],)), keras.layers.Dropout(rate, seed=seed), dense])
    head.compile(
        keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY),
        # no label smoothing: one layer on fixed features underfits with it (validation loss 0.60 against 0.50
        # on 500 photographs of clothing)
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    eye = np.eye(last.units, dtype=np.float32)
    weights = None if class_weights is None else class_weights[labels]
    stop = keras.callbacks.EarlyStopping("val_loss", patience=PATIENCE, restore_best_weights=True)
    features, truth = validation
    history = head.fit(
        _Rows(views, eye[labels], weights, seed),
        epochs=epochs,
        validation_data=_Rows([features], eye[truth], None, None),
        callbacks=[stop, *callbacks],
        verbose=verbose,
    )
    last.set_weights(dense.get_weights())
    return {key: [float(value) for value in values] for key, values in history.history.items()}
