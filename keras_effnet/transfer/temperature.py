"""Probabilities that can be believed, and thresholds below which a photograph shows none of the classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import keras

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.labels import classes_of
from keras_effnet.pictures.thresholds import check_thresholds, is_thresholds_layer, thresholds_layer_name

HEAD = "predictions"  # the last layer of every classifier here


def scale_temperature(model: keras.Model, temperature: float) -> None:
    """Divide a classifier's logits by a temperature, exactly and for good: its kernel and bias are divided.

    Above 1 the probabilities move towards each other, below 1 apart; the order of the classes stays. No layer is
    added, so every exported file is as large and as fast as before. The temperature to take is the one at which
    validation photographs are most probable (Guo et al., arXiv:1706.04599), which `keras-effnet train` does.

    Args:
        model: a classifier that ends in the layer `predictions`: softmax, sigmoids or logits. It is changed.
        temperature: above 0.

    Raises:
        InvalidInputError: another model, or a temperature that is no number above 0.
    """
    if not isinstance(temperature, Real) or not 0 < float(temperature) < float("inf"):
        raise InvalidInputError(
            f"Expected a temperature above 0. Received: {temperature!r}. 1 changes nothing."
        )
    head = head_of(model)
    head.set_weights([array / float(temperature) for array in head.get_weights()])


def with_thresholds(model: keras.Model, thresholds: float | Sequence[float]) -> keras.Model:
    """A classifier that says below which probability a photograph shows none of its classes.

    It computes what it computed before. The thresholds survive `save` and `load_model`, every export carries them,
    and `keras-effnet predict`, `export.score` and the bundles answer "none of these" by them.

    Args:
        model: a classifier that ends in the layer `predictions` with a softmax or sigmoids. It stays as it is, but
            shares its layers with the new one, apart from the last.
        thresholds: 0–1: one for all classes, or one for each; none to take those away that it has. With a single
            sigmoid they hold for both of its sides.

    Returns:
        A functional `keras.Model` with the same layers by the same names.

    Raises:
        InvalidInputError: another model, one that gives logits, or thresholds that do not fit.
    """
    head = head_of(model)
    activation = getattr(head.activation, "__name__", "")
    if activation not in ("softmax", "sigmoid"):
        raise InvalidInputError(
            f"Expected a classifier that gives probabilities. Received: {model.name!r}, which ends in {activation!r}. "
            "Build it with a softmax or sigmoids."
        )
    given = list(thresholds) if isinstance(thresholds, Iterable) else [thresholds]
    told = check_thresholds(given, classes_of(model)) if given else ()
    x = head.input
    if is_thresholds_layer(before := _maker(model, x)):
        x = before.input
    if told:
        x = keras.layers.Identity(name=thresholds_layer_name(told))(x)
    last = type(head).from_config(head.get_config())
    changed = keras.Model(model.input, last(x), name=model.name)
    last.set_weights(head.get_weights())
    return changed


def head_of(model: keras.Model) -> Any:
    """The last layer of a classifier.

    Raises:
        InvalidInputError: it has another end.
    """
    last = model.layers[-1] if model.layers else None
    if last is None or last.name != HEAD or type(last).__name__ != "Dense" or len(model.outputs) != 1:
        raise InvalidInputError(
            f"Expected a classifier that ends in the layer {HEAD!r}. Received: {model.name!r}. Build it with "
            "keras_effnet.transfer.classifier."
        )
    return last


def _maker(model: keras.Model, tensor: Any) -> Any:
    """The layer that makes a tensor."""
    return next(layer for layer in model.layers if tensor is layer.output)
