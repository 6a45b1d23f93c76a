"""Drawing one network's answers to another's, in the child process of a training recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..ranges import Array

JUDGED_BY = 4  # one of so many pictures, which is not trained on
CHECKS = 15  # looks at the held-out pictures during training
MARGIN = 0.1  # crops keep at least this much less than the whole side


def fit(
    teacher: Any,
    student: Any,
    images: Array,
    labels: Array | None,
    training: dict[str, Any],
    *,
    title: str,
    eligible_from: int = 0,
    before_step: Callable[[int], None] = lambda step: None,
) -> None:
    """Draw the student's logits to the teacher's, on crops and mirror images.

    A quarter of the pictures is not trained on; the weights that do best on it win. With
    `eligible_from=0` those of the start take part: training cannot make a network worse than it came.

    Args:
        images: uint8 `[N, H, W, C]`.
        labels: class indices `[N]`, or None to learn from the teacher alone.
        training: `steps`, `batch`, `learning_rate`, `label_weight`.
        eligible_from: first step whose weights may win.
        before_step: called with the number of each step.
    """
    import tensorflow as tf
    import tf_keras
    from tqdm.auto import tqdm

    rate = tf_keras.optimizers.schedules.CosineDecay(training["learning_rate"], training["steps"])
    optimizer = tf_keras.optimizers.Adam(rate)
    rng = np.random.default_rng(0)
    held_out = np.arange(len(images)) % JUDGED_BY == 0
    judge = _Judge(teacher, student, images[held_out], start_counts=eligible_from == 0)

    @tf.function  # type: ignore[untyped-decorator]
    def update(pictures: Any, goal: Any, classes: Any) -> Any:
        with tf.GradientTape() as tape:
            made = tf.nest.flatten(student(pictures, training=True))
            loss = tf.add_n(
                [_noise(one, other) for one, other in zip(tf.nest.flatten(goal), made, strict=True)]
            )
            if labels is not None:
                entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, made[0])
                loss += training["label_weight"] * tf.reduce_mean(entropy)
        variables = student.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    places = np.flatnonzero(~held_out)
    every = max(1, training["steps"] // CHECKS)
    progress = tqdm(range(training["steps"]), desc=title, unit="step", disable=None)
    for step in progress:
        before_step(step)
        chosen = rng.choice(places, training["batch"])
        pictures = tf.stack([_augmented(images[index], rng) for index in chosen])
        classes = np.zeros(len(chosen), np.int64) if labels is None else labels[chosen]
        update(pictures, teacher(pictures, training=False), tf.constant(classes))
        last = step == training["steps"] - 1
        if ((step + 1) % every == 0 and step >= eligible_from) or last:
            progress.set_postfix(noise=f"{judge.look():.4f}", start=f"{judge.start:.4f}")
    judge.restore_best()


def _noise(goal: Any, values: Any) -> Any:
    """The power of the error of an output, as a share of its own."""
    import tensorflow as tf

    return tf.reduce_sum(tf.square(values - goal)) / tf.reduce_sum(tf.square(goal))


class _Judge:
    """Keeps the weights with the least noise on held-out pictures."""

    def __init__(self, teacher: Any, student: Any, images: Array, *, start_counts: bool) -> None:
        self.student = student
        self.images = images
        self.goal = self._logits(teacher)
        self.start = self._noise()
        self.best, self.least = student.get_weights(), self.start if start_counts else np.inf

    def _logits(self, model: Any) -> list[Array]:
        import tensorflow as tf

        parts = [self.images[at : at + 4].astype(np.float32) for at in range(0, len(self.images), 4)]
        made = [tf.nest.flatten(model(part, training=False)) for part in parts]
        return [np.concatenate(each) for each in zip(*made, strict=True)]

    def _noise(self) -> float:
        made = zip(self.goal, self._logits(self.student), strict=True)
        return sum(float(np.sum((values - goal) ** 2) / np.sum(goal**2)) for goal, values in made)

    def look(self) -> float:
        """Noise now, relative to the signal."""
        noise = self._noise()
        if noise < self.least:
            self.best, self.least = self.student.get_weights(), noise
        return noise

    def restore_best(self) -> None:
        self.student.set_weights(self.best)


def _augmented(image: Array, rng: np.random.Generator) -> Any:
    """A crop of at least 90 % of the side, resized back, mirrored every other time."""
    import tensorflow as tf

    height, width, _ = image.shape
    share = 1 - MARGIN * rng.random()
    tall, wide = int(height * share), int(width * share)
    top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    crop = tf.cast(image[top : top + tall, left : left + wide], tf.float32)
    resized = tf.round(tf.image.resize(crop, (height, width)))
    return tf.reverse(resized, [1]) if rng.random() < 0.5 else resized
