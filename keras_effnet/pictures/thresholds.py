"""Thresholds: how probable a class must be, so that a photograph is taken for it; they travel with the network.

A network that knows ten classes finds one of them in every picture. Its thresholds say when it had better answer
"none of these": a class is accepted where it is at least as probable as its threshold, and a photograph of which no
class is accepted shows none. One threshold holds for all classes; with several there is one for each.

A Keras model says them in the name of a `keras.layers.Identity`, in millionths, as it does its class names (see
`labels`), and every exported file in its metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.network.reader import flat_layers

NONE_OF_THESE = "none of these"
_MILLION = 1_000_000
_LAYER = re.compile(r"^thresholds\.(\d+(?:\.\d+)*)$")


def check_thresholds(thresholds: Sequence[float], classes: int) -> tuple[float, ...]:
    """Make sure that there is one threshold for all classes, or one for each, between 0 and 1.

    Raises:
        InvalidInputError: another number of them, or one that is no probability.
    """
    found = tuple(thresholds)
    if len(found) not in (1, classes):
        raise InvalidInputError(
            f"Expected one threshold for all classes, or {classes}, one for each. Received: {len(found)}. "
            "Pass them in the order of the classes."
        )
    for value in found:
        if not isinstance(value, Real) or not 0 <= float(value) <= 1:
            raise InvalidInputError(
                f"Expected thresholds as probabilities between 0 and 1. Received: {value!r}. Pass 0.8, for example."
            )
    return tuple(round(float(value) * _MILLION) / _MILLION for value in found)


def thresholds_layer_name(thresholds: Sequence[float]) -> str:
    """The layer name that tells `thresholds`."""
    return "thresholds." + ".".join(str(round(value * _MILLION)) for value in thresholds)


def is_thresholds_layer(layer: Any) -> bool:
    """Whether a layer is there to tell thresholds."""
    return type(layer).__name__ == "Identity" and _LAYER.match(layer.name) is not None


def thresholds_in(layers: Iterable[Any]) -> tuple[float, ...]:
    """The thresholds that the first of these layers with any tells; empty if none does."""
    for layer in layers:
        if is_thresholds_layer(layer):
            return tuple(int(value) / _MILLION for value in layer.name.split(".")[1:])
    return ()


def thresholds_of(model: Any) -> tuple[float, ...]:
    """The thresholds that a Keras model carries, also one that was saved and loaded again; empty if it has none."""
    return thresholds_in(flat_layers(model)) if hasattr(model, "layers") else ()


def accepted(probabilities: Any, thresholds: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Which classes are accepted; a picture of which none is shows none of the classes.

    Args:
        probabilities: float `[…, classes]`; of a single sigmoid both sides, see `labels.both_sides`.
        thresholds: one, or one for each class; none accept everything.
    """
    values = np.asarray(probabilities)
    return np.asarray(values >= np.asarray(thresholds or (0.0,), values.dtype))


def best_first(probabilities: Any, fits: Any = True) -> npt.NDArray[np.intp]:
    """The classes in the order in which people are told of them, `[N, classes]`: of equal ones the first comes first.

    Args:
        probabilities: float `[N, classes]`.
        fits: bool, which are accepted: they come before the others. None or all are, and only the probability counts.
    """
    values = np.asarray(probabilities)
    return np.lexsort((-values, ~np.broadcast_to(fits, values.shape)))  # by the last of these first
