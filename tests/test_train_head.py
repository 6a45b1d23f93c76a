"""The head of a classifier, solved on features of the backbone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keras_effnet.train import head
from keras_effnet.train.head import Lesson, solve_head


def features(classes: int, count: int, seed: int, *, noise: float = 1.0) -> tuple[Any, Any]:
    """Classes around corners of a cube, in 24 dimensions, the last 20 of them only noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count).astype(np.int32)
    labels[:classes] = np.arange(classes)
    centres = np.zeros((classes, 24), np.float32)
    centres[np.arange(classes), np.arange(classes)] = 2.0
    return (centres[labels] + rng.normal(0, noise, (count, 24))).astype(np.float32), labels


def probabilities(kernel: Any, bias: Any, rows: Any) -> Any:
    logits = rows @ kernel + bias
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
def test_solved_head_is_where_the_gradient_vanishes(classes: int) -> None:
    (rows, labels), validation = features(classes, 200, 0), features(classes, 100, 1)
    kernel, bias, tried = solve_head(Lesson(views=[rows], labels=labels, validation=validation), classes)
    assert (kernel.shape, bias.shape) == ((24, classes), (classes,))
    found = probabilities(kernel, bias, validation[0])
    assert np.mean(found.argmax(1) == validation[1]) == max(
        accuracy
        for accuracy, loss in zip(tried["val_accuracy"], tried["val_loss"], strict=True)
        if loss == min(tried["val_loss"])
    )
    # without a pull, the mean residual of each class is the derivative by its bias, and 0
    residual = probabilities(kernel, bias, rows) - np.eye(classes)[labels]
    assert np.abs(residual.mean(0)).max() < 1e-3


def test_solved_head_is_drawn_the_more_to_zero_the_noisier_the_features() -> None:
    chosen = []
    for noise in (0.5, 4.0):
        rows, labels = features(4, 60, 0, noise=noise)
        validation = features(4, 400, 1, noise=noise)
        *_, tried = solve_head(Lesson(views=[rows], labels=labels, validation=validation), 4)
        chosen.append(tried["strength"][int(np.argmin(tried["val_loss"]))])
    assert chosen[1] < chosen[0]


def test_class_weights_let_a_rare_class_count() -> None:
    rows, labels = features(2, 400, 0, noise=2.0)
    keep = np.flatnonzero((labels == 0) | (np.arange(400) % 10 == 1))
    rows, labels = rows[keep], labels[keep]
    validation = features(2, 400, 1, noise=2.0)
    recall = []
    for weights in (None, np.array([1.0, 10.0], np.float32)):
        lesson = Lesson(
            views=[rows],
            labels=labels,
            validation=validation,
            weights=None if weights is None else weights[labels],
        )
        kernel, bias, _ = solve_head(lesson, 2)
        found = probabilities(kernel, bias, validation[0]).argmax(1)
        recall.append(float(np.mean(found[validation[1] == 1] == 1)))
    assert recall[1] > recall[0] + 0.1


def test_head_is_trained_in_batches_when_solving_would_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    (rows, labels), validation = (features(3, 90, seed, noise=0.5) for seed in (0, 1))
    lesson = Lesson(views=[rows], labels=labels, validation=validation)
    many = Lesson(views=[np.broadcast_to(np.float32(0), (10**6, 1280))], labels=labels, validation=validation)
    assert lesson.is_solved_in_seconds(3) and not many.is_solved_in_seconds(10)
    image = keras.Input((24,))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax", name="predictions")(image))
    solved = head.train_head(model, lesson, epochs=40, seed=0)
    exact = model.get_weights()
    monkeypatch.setattr(head, "AFFORDABLE", 0)
    trained = head.train_head(model, lesson, epochs=40, seed=0)
    assert "strength" in solved and "loss" in trained
    # both are regressions on the same features
    assert np.mean((rows @ exact[0] + exact[1]).argmax(1) == model.predict(rows, verbose=0).argmax(1)) > 0.9
