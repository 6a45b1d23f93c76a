"""Checks of what people pass to the constructors; numbers may be NumPy's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any, TypeGuard

from keras_effnet.errors import InvalidInputError
from keras_effnet.network.table import MIN_SIZE


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, of Python or of NumPy, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_input_shape(shape: Any) -> tuple[int | None, int | None, int]:
    """Make sure that `shape` is (H, W, C) with sides of 32 pixels or more, or None.

    Returns:
        The same in Python's own integers.

    Raises:
        InvalidInputError: another rank, too small a side, no channel.
    """
    advice = "Pass for example (224, 224, 3), or (None, None, 3) for any size."
    expected = f"Expected input_shape as (height, width, channels) with sides of at least {MIN_SIZE}"
    sides = tuple(shape) if isinstance(shape, Iterable) and not isinstance(shape, str) else ()
    if len(sides) != 3 or not all(side is None or is_whole(side) for side in sides):
        raise InvalidInputError(f"{expected}. Received: {shape!r}. {advice}")
    height, width, channels = (None if side is None else int(side) for side in sides)
    if any(side is not None and side < MIN_SIZE for side in (height, width)):
        raise InvalidInputError(f"{expected}. Received: {shape!r}. {advice}")
    if channels is None or channels < 1:
        raise InvalidInputError(
            f"{expected} and at least one channel, in the last place. Received: {shape!r}. {advice}"
        )
    return height, width, channels


def check_classes(classes: Any) -> int:
    """Make sure that `classes` is a whole number of at least 1; returns it as Python's.

    Raises:
        InvalidInputError: it is not.
    """
    if not is_whole(classes) or classes < 1:
        raise InvalidInputError(
            f"Expected classes to be a whole number of at least 1. Received: {classes!r}. "
            "Pass how many outputs the classifier shall have."
        )
    return int(classes)


def check_rate(name: str, rate: Any) -> None:
    """Make sure that the argument `name` is a rate, 0–1.

    Raises:
        InvalidInputError: it is not.
    """
    if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 <= float(rate) < 1:
        raise InvalidInputError(
            f"Expected {name} to lie in [0, 1). Received: {rate!r}. Pass a number, for example 0.2."
        )


def check_epsilon(epsilon: Any) -> None:
    """Make sure that a batch normalization can add `epsilon` to a variance.

    Raises:
        InvalidInputError: not a finite number above 0.
    """
    if not isinstance(epsilon, Real) or isinstance(epsilon, bool) or not 0 < float(epsilon) < math.inf:
        raise InvalidInputError(
            f"Expected epsilon to be a number above 0. Received: {epsilon!r}. Pass 1e-3, or 1e-5 for "
            "torchvision's B0–B4."
        )


def check_activation(activation: Any, keras: Any) -> None:
    """Make sure that a Keras namespace knows `classifier_activation`.

    Raises:
        InvalidInputError: it does not.
    """
    try:
        keras.activations.get(activation)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            "Expected classifier_activation to be the name of a Keras activation, a function, or None. "
            f"Received: {activation!r}. Pass 'softmax', 'sigmoid', or None for logits."
        ) from error
