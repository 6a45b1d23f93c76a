"""Strict assignment: every layer filled once, every array used once, or nothing is changed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.network.variants import identify, variant_of_blocks
from keras_effnet.weights.arrays import TOP_LAYER, LayerArrays, LazyArray
from keras_effnet.weights.fitting import Shapes, fit


def assign(model: Any, layers: LayerArrays, source: str) -> None:
    """Copy arrays into a model's variables by layer name.

    What may differ is declared in `fitting.fit`. Every array is read before the first variable
    changes, so a file that breaks off leaves the model as it was.

    Args:
        model: a Keras (or tf_keras) model with the layer names of keras.applications.
        layers: the arrays.
        source: for messages.

    Raises:
        WeightsError: a layer is missing, left over or of another shape; the message names the first
            one with both shapes. The model is unchanged.
    """
    variables = _variables(model)
    shapes = {
        layer: {key: tuple(variable.shape) for key, variable in weights.items()}
        for layer, weights in variables.items()
    }
    wanted, fitted = fit(shapes, layers, source)
    check(wanted, fitted, source, identify(model))
    pending = [
        (variables[layer][key], fitted[layer][key].read())
        for layer, weights in wanted.items()
        for key in weights
    ]
    pending.reverse()
    while pending:  # each array is freed as soon as it is copied
        variable, array = pending.pop()
        variable.assign(array if array.dtype == np.float32 else array.astype(np.float32))


def _variables(model: Any) -> dict[str, dict[str, Any]]:
    return {
        layer.name: {short_name(variable): variable for variable in layer.weights}
        for layer in model.layers
        if layer.weights
    }


def short_name(variable: Any) -> str:
    """A variable's name in `LayerArrays`; tf_keras calls one `block1a_dwconv/depthwise_kernel:0`."""
    name = str(variable.name).split("/")[-1].split(":")[0]
    return "kernel" if name == "depthwise_kernel" else name


def check(wanted: Shapes, layers: LayerArrays, source: str, variant: Any = None) -> None:
    """Make sure that arrays and shapes match one to one.

    Args:
        wanted: layer → weight → shape.
        layers: the arrays.
        source: for messages.
        variant: the `Variant` that is wanted, if it is a published one.

    Raises:
        WeightsError: at the first layer that differs, in the model's order.
    """
    for layer in (*wanted, *(layer for layer in layers if layer not in wanted)):
        shapes = dict(wanted.get(layer, {}))
        given = {key: array.shape for key, array in layers.get(layer, {}).items()}
        if shapes != given:
            advice = _advice(layer, shapes, given, layers, variant)
            raise WeightsError(
                f"Expected weights that fit the model; layer {layer!r} differs first: the model has "
                f"{_text(shapes)}, {source!r} has {_text(given)}. {advice}"
            )
        odd = [array.dtype for array in layers[layer].values() if not array.is_float]
        if odd:
            raise WeightsError(
                f"Expected floating point numbers; layer {layer!r} of {source!r} has {odd[0]}. "
                "Pass a file that was not quantized."
            )


def _advice(
    layer: str, wanted: Mapping[str, Any], given: Mapping[str, Any], layers: LayerArrays, variant: Any
) -> str:
    guess = guess_variant(layers)
    if guess and (variant is None or guess != variant.name):
        return f"These look like {guess} weights."
    if layer == TOP_LAYER and wanted and given:
        classes = given.get("bias", ("?",))[-1]
        return f"The file has {classes} classes: build the model with classes={classes}."
    if layer == TOP_LAYER and wanted:
        return "The file was saved without its classifier: build the model with include_top=False."
    near = difflib.get_close_matches(layer, layers, n=1) if not given else []
    hint = f" The nearest layer in the file is {near[0]!r}." if near else ""
    return f"Check which variant the file is of.{hint}"


def _text(shapes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items()) or "no such layer"


def guess_variant(layers: Mapping[str, Mapping[str, LazyArray]]) -> str | None:
    """The name of the variant whose blocks these arrays have, or None."""
    found = {
        match[1]: arrays["kernel"].shape[-1]
        for layer, arrays in layers.items()
        if (match := re.fullmatch(r"(block\d+[a-z]+)_project_conv", layer))
        and "kernel" in arrays
        and arrays["kernel"].shape
    }
    has_se = any(layer.endswith("_se_reduce") for layer in layers)
    variant = variant_of_blocks(found, has_se=has_se)
    return variant.name if variant else None
