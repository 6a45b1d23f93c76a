"""Published weights: the catalog, where files come from, one reader per format, strict loading."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError
from keras_effnet.network.variants import STEM_LAYER, identify
from keras_effnet.weights.assign import assign
from keras_effnet.weights.catalog import SET_NAMES
from keras_effnet.weights.checkpoint import TOP_LAYER
from keras_effnet.weights.facts import WeightFacts, check_built_for, facts_of
from keras_effnet.weights.readers import open_checkpoint
from keras_effnet.weights.sources import WeightPlan, check_source, find_set, obtain, plan_weights

__all__ = ["WeightPlan", "load_planned", "load_weights", "plan_weights"]


def load_weights(model: Any, source: str | os.PathLike[str], *, ema: bool = True) -> None:
    """Load weights into a model, exactly or not at all.

    Args:
        model: an EfficientNet of this package (Keras or tf_keras).
        source: the name of a published set (`"imagenet"`), a file (Keras `.weights.h5`, `.keras`,
            legacy `.h5`; PyTorch `.pth`; `.safetensors`; TensorFlow `.tar.gz`), or a TensorFlow
            checkpoint's directory or prefix.
        ema: where a checkpoint holds exponential moving averages, take them, as published; False
            for the raw values.

    Raises:
        WeightsError: the file cannot be read, does not fit, or was trained with another
            preprocessing, padding or epsilon than the model has; the model is unchanged.
        InvalidInputError: neither a set nor a path, a set for a model that is no published variant, or a
            model around an EfficientNet.
    """
    check_source(source, None)
    _check_outermost(model)
    if not (isinstance(source, str) and source in SET_NAMES):
        _load(model, source, None, ema)
        return
    variant = identify(model)
    if variant is None:
        raise InvalidInputError(
            f"Expected a weight file for a model that is no published variant. Received: {source!r}. "
            "Pass the path of a file."
        )
    entry = find_set(source, variant)
    facts = WeightFacts.of_set(entry)
    check_built_for(model, facts, source)
    has_top = any(layer.name.endswith(TOP_LAYER) for layer in model.layers)
    _load(model, obtain(entry, include_top=has_top), facts, ema)


def _check_outermost(model: Any) -> None:
    """Refuse a model around an EfficientNet: the weights belong to the one inside."""
    inner = [layer.name for layer in model.layers if hasattr(layer, "layers")]
    if inner and not any(layer.name.endswith(STEM_LAYER) for layer in model.layers):
        raise InvalidInputError(
            f"Expected an EfficientNet to load weights into. Received: {model.name!r}, a model around "
            f"{inner[0]!r}. Pass model.get_layer({inner[0]!r})."
        )


def load_planned(model: Any, plan: WeightPlan) -> None:
    """Load what `plan_weights` found.

    Raises:
        WeightsError: as `load_weights`.
    """
    if plan.source is not None:
        _load(model, plan.source, plan.facts, ema=True)


def _load(model: Any, path: str | os.PathLike[str], facts: WeightFacts | None, ema: bool) -> None:
    with open_checkpoint(path, ema=ema) as checkpoint:
        check_built_for(model, facts or facts_of(Path(path), checkpoint), os.fspath(path))
        assign(model, checkpoint, os.fspath(path))
