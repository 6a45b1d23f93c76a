"""How a classifier answers, and what follows: its last layer, its loss, and what counts as right.

softmax    one of the classes: a probability each, 1 in sum
sigmoid    one of two classes by a single number, the probability of the second
sigmoids   any of the classes: a probability each, on its own

Everywhere else a single sigmoid counts as its two sides, and a photograph with several labels as one decision, yes or
no, for each class.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_effnet import transfer
from keras_effnet.errors import InvalidInputError
from keras_effnet.evaluation.measures import Judged, judge, measure
from keras_effnet.evaluation.several import measure_several
from keras_effnet.pictures.labels import both_sides
from keras_effnet.pictures.listing import Listing
from keras_effnet.train.batches import Course
from keras_effnet.train.settings import SIGMOID, SIGMOIDS, SOFTMAX, Settings

Floats = npt.NDArray[np.float32]
FEWEST = 2  # classes that can be told apart; as many as a single sigmoid decides between


def answers_for(settings: Settings, listing: Listing) -> str:
    """How the classifier of a run answers, one of `ANSWERS`.

    Raises:
        InvalidInputError: the photographs do not suit what was asked for.
    """
    several = listing.marks is not None
    wanted = settings.answers or (SIGMOIDS if several else SOFTMAX)
    if several and (settings.teacher or settings.unlabelled):
        raise InvalidInputError(
            "Expected one label for each photograph, to learn from a teacher or from photographs without labels. "
            "Received several. Leave --teacher and --unlabelled out."
        )
    if wanted == SIGMOID and len(listing.classes) != FEWEST:
        raise InvalidInputError(
            f"Expected two classes for a single sigmoid. Received: {len(listing.classes)}. Pass --answers softmax, or "
            "two names with --classes."
        )
    return wanted


def classifier(answers: str, listing: Listing, variant: Any, **options: Any) -> keras.Model:
    """`transfer.classifier` with the last layer for these answers."""
    if answers == SIGMOID:
        return transfer.classifier(variant, 1, labels=listing.classes, **options)
    activation = "sigmoid" if answers == SIGMOIDS else "softmax"
    return transfer.classifier(variant, listing.classes, classifier_activation=activation, **options)


def as_probabilities(made: Any, listing: Listing) -> Floats:
    """What a classifier gave, as a probability of each class, `[N, classes]`."""
    return both_sides(np.asarray(made, np.float32), len(listing.classes))


def probabilities_of(answers: str, logits: Floats) -> Floats:
    """What the last layer makes of logits `[N, columns]`, as a probability of each class, `[N, classes]`."""
    if answers == SOFTMAX:
        return np.asarray(keras.ops.softmax(logits))
    made = np.asarray(keras.ops.sigmoid(logits))
    return both_sides(made, FEWEST) if answers == SIGMOID else made


def decisions_of(
    probabilities: Floats, listing: Listing, indices: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], Floats]:
    """The truth and the probabilities of photographs, a row for each; of several labels for each photograph and class."""
    if listing.marks is None:
        return listing.labels[indices], probabilities
    return listing.marks[indices].ravel().astype(np.int32), both_sides(probabilities.reshape(-1, 1), FEWEST)


def judged_by(probabilities: Floats, listing: Listing, indices: npt.NDArray[np.int64]) -> Judged:
    """What was said of photographs beside the truth, in the rows of `decisions_of`."""
    truth, said = decisions_of(probabilities, listing, indices)
    return judge(said, truth)


def measured(model: Any, listing: Listing, split: str, probabilities: Floats) -> dict[str, Any]:
    """Accuracy and the rest of a split's photographs; several labels at the thresholds that the network carries."""
    indices = listing.of(split)
    if listing.marks is None:
        return measure(judge(probabilities, listing.labels[indices]), listing.classes)
    least = transfer.thresholds_of(model)
    return measure_several(probabilities, listing.marks[indices], listing.classes, least)


def targets_of(answers: str, listing: Listing, indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """What the last layer's columns are to say: class numbers `[N]` of a softmax, else yes and no `[N, columns]`."""
    if answers == SOFTMAX:
        return listing.labels[indices]
    return listing.targets(indices)[:, 1:] if answers == SIGMOID else listing.targets(indices)


class Labelled(Course):
    """The course of photographs with labels, for any kind of answers, balanced or not."""

    def __init__(
        self, listing: Listing, settings: Settings, answers: str, class_weights: Floats | None = None
    ) -> None:
        super().__init__(listing, class_weights)
        self._answers, self._focal, self._balanced = answers, settings.focal, settings.balanced_sampling

    def order(self, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """As many as there are; balanced, each class as often as every other, whatever it has."""
        if not self._balanced:
            return super().order(generator)
        training = self.listing.of("train")
        labels = self.listing.labels[training]
        counts = np.bincount(labels, minlength=len(self.listing.classes))
        present = np.flatnonzero(counts)
        share = -(-len(training) // len(present))
        drawn = [
            np.concatenate(
                [generator.permutation(training[labels == label]) for _ in range(-(-share // counts[label]))]
            )
            for label in present
        ]
        return generator.permutation(np.concatenate([part[:share] for part in drawn]))[: len(training)]

    def loss(self, label_smoothing: float) -> Any:
        if self._answers == SOFTMAX and not self._focal:
            return super().loss(label_smoothing)
        if self._answers == SOFTMAX:
            return keras.losses.CategoricalFocalCrossentropy(
                alpha=1.0, gamma=self._focal, label_smoothing=label_smoothing
            )
        return Sigmoids(self._focal, label_smoothing)

    def accuracy(self) -> Any:
        return (
            "accuracy"
            if self._answers == SOFTMAX
            else keras.metrics.MeanMetricWrapper(_right, name="accuracy")
        )


class Sigmoids(keras.losses.Loss):
    """Binary cross-entropy, focal or not; of a single sigmoid for two classes the second column is the truth."""

    def __init__(self, focal: float, label_smoothing: float) -> None:
        super().__init__(name="sigmoids")
        options: dict[str, Any] = {"label_smoothing": label_smoothing, "reduction": "none"}
        self._inner = (
            keras.losses.BinaryFocalCrossentropy(gamma=focal, **options)
            if focal
            else keras.losses.BinaryCrossentropy(**options)
        )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._inner.call(_columns(y_true, y_pred), y_pred)


def _columns(y_true: Any, y_pred: Any) -> Any:
    return y_true[:, 1:] if y_pred.shape[-1] == 1 else y_true


def _right(y_true: Any, y_pred: Any) -> Any:
    """The share of decisions at one half that are right, of each photograph."""
    same = ops.equal(_columns(y_true, y_pred) > 0.5, y_pred > 0.5)
    return ops.mean(ops.cast(same, "float32"), axis=-1)
