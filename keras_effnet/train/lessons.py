"""What a student learns: labels, a teacher's probabilities, and the loss towards both.

Distillation (Hinton et al. 2015, https://arxiv.org/abs/1503.02531): the loss is a mean of two, towards the labels
and towards the teacher's probabilities, both networks' softened by a temperature T and weighted by T². The teacher
sees each labelled photograph as the student does, with the same augmentation (Beyer et al. 2022, "a good teacher is
patient and consistent", https://arxiv.org/abs/2106.05237).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import Listing
from keras_effnet.pictures.prefetching import Batch
from keras_effnet.train.batches import Course
from keras_effnet.train.head import FloatArray
from keras_effnet.train.settings import Settings
from keras_effnet.train.unlabelled import Chosen

_TINY = 1e-7  # least probability whose logarithm is taken, as in Keras' losses


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A classifier to learn from: a Keras model, an exported file, or anything else that can be asked.

    Attributes:
        name: for messages and the report.
        classes: class names in the order of its outputs; empty where it has none, and is taken to have ours.
        size: side of its pictures in pixels.
        framing: how photographs are read for it.
        ask: from uint8 `[N, size, size, 3]` to probabilities, float `[N, classes]`.
    """

    name: str
    classes: tuple[str, ...]
    size: int
    framing: Framing
    ask: Callable[[npt.NDArray[np.uint8]], FloatArray]

    def of_classes(self, classes: tuple[str, ...]) -> Teacher:
        """The same teacher with its classes in this order.

        Raises:
            InvalidInputError: it has others.
        """
        if not self.classes:
            columns = self.ask(np.zeros((1, self.size, self.size, 3), np.uint8)).shape[-1]
            if columns != len(classes):
                raise InvalidInputError(
                    f"Expected a teacher of the {len(classes)} classes of the photographs. Received: {self.name!r}, "
                    f"which tells {columns} apart. Train it on the same folders."
                )
            return replace(self, classes=classes)
        if sorted(self.classes) != sorted(classes):
            missing = [name for name in classes if name not in self.classes]
            others = [name for name in self.classes if name not in classes]
            raise InvalidInputError(
                f"Expected a teacher of the {len(classes)} classes of the photographs. Received: {self.name!r} of "
                f"{len(self.classes)}{_some(', without', missing)}{_some(', with', others)}. Train it on the same "
                "folders, or pick its classes with --classes."
            )
        order = [self.classes.index(name) for name in classes]
        ask = self.ask
        return replace(self, classes=classes, ask=lambda pixels: np.asarray(ask(pixels))[:, order])

    def answers(self, batches: Any) -> FloatArray:
        """Probabilities `[N, classes]` for a data set of pixels."""
        return np.concatenate(
            [np.asarray(self.ask(pixels), np.float32) for pixels in batches.as_numpy_iterator()]
        )

    def resized(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Pictures `[N, H, W, 3]`, 0–255, at its size."""
        if pixels.shape[1:3] != (self.size, self.size):
            pixels = ops.image.resize(pixels, (self.size, self.size), antialias=True)
        return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)


def _some(before: str, names: list[str]) -> str:
    return f"{before} {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else ""


def softened(probabilities: FloatArray, temperature: float) -> FloatArray:
    """Probabilities whose logits were divided by a temperature; above 1 they come closer to each other."""
    powers = np.asarray(probabilities, np.float32) ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


class Lessons(Course):
    """Labelled photographs and others, with what a teacher says.

    The targets of a photograph are two rows, `[2 × classes]`: its class, and the teacher's probabilities, each
    times its share in the loss. An epoch has both kinds of photographs, in every batch, each of those without labels
    once; where these are more than the ratio of the settings allows, labelled ones come again. Never the others:
    with few of them a student would learn the teacher's mistakes by heart.

    Args:
        labelled: of the run.
        settings: of the student.
        teacher: who is asked about the labelled photographs as they are augmented; None for their labels alone.
        class_weights: per class, of the labelled photographs.
        unlabelled, chosen, probabilities: those without labels, those of them to learn from, and what their
            teacher said `[N, classes]`.
    """

    def __init__(
        self,
        labelled: Listing,
        settings: Settings,
        *,
        teacher: Teacher | None = None,
        class_weights: FloatArray | None = None,
        unlabelled: Listing | None = None,
        chosen: Chosen | None = None,
        probabilities: FloatArray | None = None,
    ) -> None:
        listing = labelled if unlabelled is None else _joined(labelled, unlabelled)
        super().__init__(listing)
        # a head of the labelled photographs alone is no student; whole networks are compared in the end
        self.knows_head = unlabelled is None
        self.classes = len(labelled.classes)
        self.width = 2 * self.classes
        self._first, self._settings, self._teacher = len(labelled.files), settings, teacher
        weights = np.ones(self.classes, np.float32) if class_weights is None else class_weights
        # never quite 0: the rows of classes tell which photographs the teacher is asked about
        self._share = max(settings.hard_labels, _TINY) if teacher else 1.0
        self._hard = self._share * self._rows * weights[:, None]
        self._soft = probabilities
        self._known = labelled.of("train")
        self._others = np.zeros(0, np.int64) if chosen is None else self._first + chosen.indices
        enough = round(len(self._others) / settings.ratio_for_students)
        self._counts = max(len(self._known), enough), len(self._others)

    def __len__(self) -> int:
        return sum(self._counts)

    def order(self, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        parts = [
            _drawn(indices, count, generator)
            for indices, count in zip((self._known, self._others), self._counts, strict=True)
        ]
        places = np.concatenate([(np.arange(len(part)) + 0.5) / max(len(part), 1) for part in parts])
        return np.concatenate(parts)[np.argsort(places, kind="stable")]

    def targets(self, indices: npt.NDArray[np.int64]) -> FloatArray:
        rows = np.zeros((len(indices), self.width), np.float32)
        known = indices < self._first
        rows[known, : self.classes] = self._hard[self.listing.labels[indices[known]]]
        if self._soft is not None:
            said = self._soft[indices[~known] - self._first]
            rows[~known, self.classes :] = self._pseudo_labels(said)
        return rows

    def _pseudo_labels(self, said: FloatArray) -> FloatArray:
        if self._settings.pseudo_labels == "soft":
            return softened(said, self._settings.temperature)
        smoothing = self._settings.label_smoothing
        return self._rows[said.argmax(axis=1)] * (1 - smoothing) + smoothing / self.classes

    def taught(self, batch: Batch) -> Batch:
        if self._teacher is None:
            return batch
        pixels, rows = batch
        # the share of a mixed picture that is labelled: 1 of one that is not mixed
        labelled = rows[:, : self.classes].sum(axis=1, keepdims=True) / self._share
        said = softened(self._teacher.ask(self._teacher.resized(pixels)), self._settings.temperature)
        rows = rows.copy()
        rows[:, self.classes :] += (1 - self._share) * labelled * said
        return pixels, rows

    def loss(self, label_smoothing: float) -> Any:
        return TwoTargets(label_smoothing, self._settings.temperature)

    def accuracy(self) -> Any:
        return keras.metrics.MeanMetricWrapper(_right, name="accuracy")


def _joined(labelled: Listing, unlabelled: Listing) -> Listing:
    """The labelled photographs, then the others."""
    return replace(
        labelled,
        files=[*labelled.files, *map(str, unlabelled.sources())],
        labels=np.concatenate([labelled.labels, unlabelled.labels]),
        splits=np.concatenate([labelled.splits, unlabelled.splits]),
    )


def _drawn(
    indices: npt.NDArray[np.int64], count: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """So many of them in any order, each as often as every other, or once more."""
    rounds = -(-count // max(len(indices), 1))
    drawn = [generator.permutation(indices) for _ in range(rounds)]
    return np.concatenate([*drawn, np.zeros(0, np.int64)])[:count]


class TwoTargets(keras.losses.Loss):
    """The cross-entropy to a class, and the one to a teacher's probabilities at a temperature.

    `y_true` is `[n, 2 × classes]` with each row times its share, or `[n, classes]` without a teacher.
    """

    def __init__(self, label_smoothing: float, temperature: float) -> None:
        super().__init__(name="two_targets")
        self.label_smoothing, self.temperature = label_smoothing, temperature

    def call(self, y_true: Any, y_pred: Any) -> Any:
        classes = y_pred.shape[-1]
        logs = ops.log(ops.clip(y_pred, _TINY, 1.0))
        hard = y_true[:, :classes]
        spread = self.label_smoothing / classes * ops.sum(hard, axis=-1, keepdims=True)
        loss = -ops.sum((hard * (1 - self.label_smoothing) + spread) * logs, axis=-1)
        if y_true.shape[-1] == classes:
            return loss
        softer = ops.log_softmax(logs / self.temperature)
        return loss - self.temperature**2 * ops.sum(y_true[:, classes:] * softer, axis=-1)


def _right(y_true: Any, y_pred: Any) -> Any:
    classes = y_pred.shape[-1]
    wanted = y_true[:, :classes]
    if y_true.shape[-1] > classes:
        wanted = wanted + y_true[:, classes:]
    return ops.cast(ops.equal(ops.argmax(wanted, axis=-1), ops.argmax(y_pred, axis=-1)), "float32")
