"""Whether a model can be exported at all: its weights are numbers, and it says the same twice."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.network.reader import flat_layers

KERAS = ("keras", "tf_keras")  # their own layers answer alike at inference, unless they were told to train
# of the largest value of an answer: far above what the order of additions moves, far below what a dropout does
SAME_ANSWER = 1e-3


def check_sound(model: Any, shape: tuple[int, int, int]) -> None:
    """Make sure that a model has finite weights and does not change its answer.

    Args:
        model: a built Keras model.
        shape: of one picture, (height, width, channels).

    Raises:
        InvalidInputError: it does not.
    """
    _check_weights(model)
    if (named := _in_training(model)) is not None:
        picture = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.float32)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the export itself will give them
                first, second = (_flat(model(picture, training=False)) for _ in range(2))
        except Exception:  # of a layer of somebody's own: the converter has the word for it
            return
        check_same_answer(model, first, second, named)


def check_same_answer(
    model: Any, first: list[npt.NDArray[Any]], second: list[npt.NDArray[Any]], named: str = ""
) -> None:
    """Make sure that two answers of a model for the same pictures, output by output, are the same.

    Args:
        model: for the message.
        first, second: the answers.
        named: what is to blame, if that is known.

    Raises:
        InvalidInputError: they differ by more than the order of additions explains.
    """
    for one, other in zip(first, second, strict=True):
        largest = float(np.abs(one).max(initial=0))
        if np.isfinite(one).all() and float(np.abs(one - other).max(initial=0)) > SAME_ANSWER * largest:
            raise InvalidInputError(
                f"Expected a model that gives the same answer for the same picture. Received: {model.name!r}, which "
                f"does not{f'; it has {named}' if named else ''}. Build it without training=True (dropout and noise "
                "are for training): no file could agree with it."
            )


def _check_weights(model: Any) -> None:
    for variable in model.weights:
        values = np.asarray(variable)
        if not np.issubdtype(values.dtype, np.floating) and values.dtype.name != "bfloat16":
            continue
        finite = np.isfinite(values.astype(np.float32) if values.dtype.name == "bfloat16" else values)
        if not finite.all():
            name = getattr(variable, "path", variable.name)
            raise InvalidInputError(
                f"Expected a model whose weights are numbers. Received: {model.name!r} with NaN or infinity in "
                f"{name!r}, {finite.size - int(finite.sum())} of {finite.size} values. Load other weights, or train "
                "again with a smaller learning rate."
            )


def _in_training(model: Any) -> str | None:
    """The first layer that may answer differently each time, in words: a foreign one, or one told to train."""
    for layer in flat_layers(model, nested=True):
        if type(layer).__module__.partition(".")[0] not in KERAS:
            return f"{layer.name!r}, a {type(layer).__name__} of its own"
        for node in getattr(layer, "_inbound_nodes", ()):
            kwargs = node.arguments.kwargs if hasattr(node, "arguments") else node.call_kwargs
            if kwargs.get("training") is True:
                return f"{layer.name!r}, a {type(layer).__name__} called with training=True"
    return None


def _flat(made: Any) -> list[npt.NDArray[Any]]:
    import tensorflow as tf

    return [np.asarray(tensor, np.float32) for tensor in tf.nest.flatten(made)]
