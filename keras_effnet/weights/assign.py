"""Strict assignment: every layer filled once, every array used once, or nothing is changed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from keras_effnet.errors import WeightsError
from keras_effnet.lookup import architecture_of
from keras_effnet.variants import VARIANTS
from keras_effnet.weights.arrays import LayerArrays, LazyArray

TOP_LAYER = "predictions"


def assign(model: Any, layers: LayerArrays, source: str) -> None:
    """Copy arrays into a model's variables by layer name.

    A model without top ignores the file's classifier; that is the only exception to strictness.

    Args:
        model: a Keras (or tf_keras) model with the layer names of keras.applications.
        layers: the arrays.
        source: for messages.

    Raises:
        WeightsError: a layer is missing, left over or of another shape; the message names the first
            one with both shapes. The model is unchanged.
    """
    variables = {
        layer.name: {_short_name(variable): variable for variable in layer.weights}
        for layer in model.layers
        if layer.weights
    }
    _check(variables, layers, source)
    for name, weights in variables.items():
        for key, variable in weights.items():
            variable.assign(layers[name][key].read())


def _short_name(variable: Any) -> str:
    """`kernel` for Keras' `kernel` and for tf_keras' `block1a_dwconv/depthwise_kernel:0`."""
    name = str(variable.name).split("/")[-1].split(":")[0]
    return "kernel" if name == "depthwise_kernel" else name


def _check(variables: Mapping[str, Mapping[str, Any]], layers: LayerArrays, source: str) -> None:
    for layer, weights in variables.items():
        wanted = {key: tuple(variable.shape) for key, variable in weights.items()}
        given = {key: array.shape for key, array in layers.get(layer, {}).items()}
        if wanted != given:
            raise _mismatch(layer, wanted, given, layers, source)
    for layer, arrays in layers.items():
        if layer not in variables and layer != TOP_LAYER:
            given = {key: array.shape for key, array in arrays.items()}
            raise _mismatch(layer, {}, given, layers, source)


def _mismatch(
    layer: str, wanted: Mapping[str, Any], given: Mapping[str, Any], layers: LayerArrays, source: str
) -> WeightsError:
    if layer == TOP_LAYER and wanted and given:
        classes = given.get("bias", (None,))[-1]
        advice = f"The file has {classes} classes: build the model with classes={classes}."
    elif layer == TOP_LAYER and wanted:
        advice = "The file was saved without its classifier: build the model with include_top=False."
    else:
        guess = guess_variant(layers)
        advice = f"These look like {guess} weights." if guess else "Check which variant the file is of."
        near = difflib.get_close_matches(layer, layers, n=1) if not given else []
        advice += f" The nearest layer in the file is {near[0]!r}." if near and not guess else ""
    return WeightsError(
        f"Expected weights that fit the model; layer {layer!r} differs first: the model has "
        f"{_shapes(wanted)}, {source!r} has {_shapes(given)}. {advice}"
    )


def _shapes(shapes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items()) or "no such layer"


def guess_variant(layers: Mapping[str, Mapping[str, LazyArray]]) -> str | None:
    """The variant whose blocks these arrays have, or None."""
    found = {
        match[1]: arrays["kernel"].shape[-1]
        for layer, arrays in layers.items()
        if (match := re.fullmatch(r"(block\d+[a-z]+)_project_conv", layer)) and "kernel" in arrays
    }
    has_se = any(layer.endswith("_se_reduce") for layer in layers)
    for variant in VARIANTS.values():
        blocks = {block.name: block.filters_out for block in architecture_of(variant).blocks}
        if blocks == found and has_se != variant.lite:
            return variant.name
    return None
