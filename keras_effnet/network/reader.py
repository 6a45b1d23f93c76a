"""The layers of a built model, wherever they lie, and what the first of them do to a pixel."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.network.conventions import CUSTOM, convention_with

Constants = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def flat_layers(model: Any) -> Iterator[Any]:
    """All layers of a Keras (or tf_keras) model in its order, those of models inside it too."""
    for layer in model.layers:
        yield from flat_layers(layer) if hasattr(layer, "layers") else (layer,)


def input_constants(model: Any) -> list[Constants]:
    """Scale and offset of each layer that only scales pixels, in front of the first with a kernel."""
    ahead = takewhile(lambda layer: not hasattr(layer, "kernel"), flat_layers(model))
    return [constants for layer in ahead if (constants := _constants(layer)) is not None]


def composed(constants: list[Constants]) -> Constants:
    """Several scalings, one after the other, as one; (1, 0) for none."""
    scale, offset = np.ones(1), np.zeros(1)
    for factor, summand in constants:
        scale, offset = scale * factor, offset * factor + summand
    return scale, offset


def convention_of(constants: Constants) -> str | None:
    """The key of `CONVENTIONS` with this scale and offset, or None."""
    name = convention_with(*constants).name
    return None if name == CUSTOM else name


def _constants(layer: Any) -> Constants | None:
    kind = type(layer).__name__
    if kind == "Rescaling":
        return np.atleast_1d(np.asarray(layer.scale, np.float64)), np.asarray(layer.offset, np.float64)
    if kind == "Normalization" and getattr(layer, "mean", None) is not None:
        mean, variance = (np.ravel(np.asarray(part, np.float64)) for part in (layer.mean, layer.variance))
        scale = 1 / np.maximum(np.sqrt(variance), 1e-7)  # as Keras guards it
        return scale, -mean * scale
    return None
