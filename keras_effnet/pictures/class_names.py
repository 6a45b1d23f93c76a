"""Class names that travel inside a plain Keras model.

A Keras file stores layers and nothing else, and only Keras' own layers load without the program that
wrote them. So the names are spelled in the name of a `keras.layers.Identity` that the classifier has
before its last layer: `labels.cat.t-shirt.ice_20cream`. It survives `save`, `load_model` and
`clone_model` on every backend, with and without compiling, and costs no operation.

Only letters, digits and `-` may stand for themselves (TensorFlow restricts names); every other byte of
the UTF-8 text is `_` and two hexadecimal digits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from keras_effnet.errors import InvalidInputError

PREFIX = "labels."
_ADVICE = "Pass a list with one name for each class."
_SAFE = re.compile(rb"[A-Za-z0-9-]")
_ESCAPED = re.compile(rb"_([0-9A-F]{2})")


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
    return PREFIX + ".".join(_quote(label) for label in labels)


def labels_of(model: Any) -> tuple[str, ...] | None:
    """The class names that a model carries, in the order of its outputs; None if it carries none.

    Args:
        model: a Keras model, also one that was saved and loaded again.
    """
    for layer in getattr(model, "layers", ()):
        if layer.name.startswith(PREFIX) and type(layer).__name__ == "Identity":
            return tuple(_unquote(text) for text in layer.name[len(PREFIX) :].split("."))
    return None


def _quote(label: str) -> str:
    encoded = label.encode("utf-8")
    return "".join(chr(byte) if _SAFE.match(bytes([byte])) else f"_{byte:02X}" for byte in encoded)


def _unquote(text: str) -> str:
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode("ascii")).decode("utf-8")
