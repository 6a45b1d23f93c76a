"""Strict loading: every layer filled once, every array used once, or nothing is changed.

Before it the arrays are fitted to the model asked for: other channels, another head, no head.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError, WeightsError, warn
from keras_effnet.network.variants import STEM_LAYER, identify, prefix_of
from keras_effnet.pictures.labels import IMAGENET_CLASSES
from keras_effnet.weights.catalog import SET_NAMES
from keras_effnet.weights.checkpoint import TOP_LAYER, Array, Checkpoint, LayerArrays, LazyArray, WeightFacts
from keras_effnet.weights.facts import check_built_for, facts_of_file, facts_of_set, guess_variant
from keras_effnet.weights.readers import open_checkpoint
from keras_effnet.weights.sources import WeightPlan, check_source, find_set, obtain

RGB = 3
TOP_CONV = "top_conv"
_BLOCK = re.compile(r"block(\d+)([a-z]+)_")
_AT_START = (0, 0, "")

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]


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
    facts = facts_of_set(entry)
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
    """Load what `plan_weights` found."""
    if plan.source is not None:
        _load(model, plan.source, plan.facts, ema=True)


def _load(model: Any, path: str | os.PathLike[str], facts: WeightFacts | None, ema: bool) -> None:
    with open_checkpoint(path, ema=ema) as checkpoint:
        check_built_for(model, facts or facts_of_file(Path(path), checkpoint), os.fspath(path))
        assign(model, checkpoint, os.fspath(path))


def assign(model: Any, checkpoint: Checkpoint, source: str) -> None:
    """Copy arrays into a model's variables by layer name.

    What may differ is declared in `fitted_to`; what a file has behind its backbone is left out where no
    classifier is asked for. Every array is read before the first variable changes, so a file that breaks off
    leaves the model as it was.

    Raises:
        WeightsError: a layer is missing, left over or of another shape; the message names the first
            one with both shapes. The model is unchanged.
    """
    variables = _variables(model)
    shapes = {
        layer: {key: tuple(variable.shape) for key, variable in weights.items()}
        for layer, weights in variables.items()
    }
    if TOP_LAYER in shapes and checkpoint.others:
        raise _foreign_head(checkpoint, source)
    wanted, fitted = fitted_to(shapes, checkpoint.layers, source)
    check_match(wanted, fitted, source, identify(model))
    pending = [
        (variables[layer][key], fitted[layer][key].read())
        for layer, weights in wanted.items()
        for key in weights
    ]
    pending.reverse()
    while pending:  # each array is freed as soon as it is copied
        variable, array = pending.pop()
        variable.assign(array if array.dtype == np.float32 else array.astype(np.float32))


def _foreign_head(checkpoint: Checkpoint, source: str) -> WeightsError:
    """The error for the file of a network that ends in other layers than an EfficientNet."""
    names = ", ".join(map(repr, checkpoint.others[:3])) + (", …" if len(checkpoint.others) > 3 else "")
    if guess_variant(checkpoint.layers) is None and STEM_LAYER not in checkpoint.layers:
        return WeightsError(
            f"Expected an EfficientNet inside {source!r}. Received layers like {names}. Pass a file of an EfficientNet."
        )
    return WeightsError(
        f"Expected an EfficientNet and its classifier inside {source!r}. Received a network with layers of its own: "
        f"{names}. Take its backbone, with include_top=False or keras_effnet.transfer.classifier, or open the whole "
        "with keras.saving.load_model (--model on the command line)."
    )


def _variables(model: Any) -> dict[str, dict[str, Any]]:
    prefix = prefix_of(model.layers)
    return {
        layer.name.removeprefix(prefix): {short_name(variable): variable for variable in layer.weights}
        for layer in model.layers
        if layer.weights
    }


def short_name(variable: Any) -> str:
    """A variable's name in `LayerArrays`; tf_keras calls one `block1a_dwconv/depthwise_kernel:0`."""
    name = str(variable.name).split("/")[-1].split(":")[0]
    return "kernel" if name == "depthwise_kernel" else name


def check_match(wanted: Shapes, layers: LayerArrays, source: str, variant: Any = None) -> None:
    """Make sure that arrays and shapes match one to one; `variant` is the published one that is wanted, for advice.

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
        return (
            f"The file has {classes} classes: build the model with classes={classes}. For a new classifier on its "
            "backbone there is keras_effnet.transfer.classifier."
        )
    if layer == TOP_LAYER and wanted:
        return "The file was saved without its classifier: build the model with include_top=False."
    near = difflib.get_close_matches(layer, layers, n=1) if not given else []
    hint = f" The nearest layer in the file is {near[0]!r}." if near else ""
    return f"Check which variant the file is of.{hint}"


def _text(shapes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items()) or "no such layer"


def fitted_to(wanted: Shapes, layers: LayerArrays, source: str) -> tuple[Shapes, LayerArrays]:
    """The shapes to fill and the arrays to fill them with, fitted to each other where there is one meaningful way.

    - A model without classifier leaves the file's out, and one of feature maps what lies behind its last block.
    - A model with other than 1000 classes keeps its fresh head when the file has ImageNet's 1000;
      that is a UserWarning.
    - One input channel: the RGB kernel is summed, so gray gives what three equal channels gave. N
      channels: the RGB kernels take turns, times 3 / N, so the sum over the channels stays.
    """
    wanted, fitted = dict(wanted), dict(layers)
    if TOP_LAYER not in wanted:
        fitted.pop(TOP_LAYER, None)
        if TOP_CONV in fitted and TOP_CONV not in wanted:
            fitted = _without_end(fitted, wanted)
    elif TOP_LAYER in fitted and _is_fresh_head(wanted[TOP_LAYER], fitted[TOP_LAYER]):
        classes = wanted.pop(TOP_LAYER)["bias"][-1]
        del fitted[TOP_LAYER]
        warn(
            f"Expected {classes} classes in {source}, as the model has. Received: {IMAGENET_CLASSES}. The model's "
            "classifier keeps its random initial weights: train it, or begin with "
            "keras_effnet.transfer.classifier, which is made for that.",
        )
    stem = fitted.get(STEM_LAYER, {})
    if "kernel" in stem and "kernel" in wanted.get(STEM_LAYER, {}):
        kernel = fit_channels(stem["kernel"], wanted[STEM_LAYER]["kernel"])
        fitted[STEM_LAYER] = {**stem, "kernel": kernel}
    return wanted, fitted


def _without_end(layers: LayerArrays, wanted: Shapes) -> dict[str, Any]:
    """A file's arrays without the layers behind the last block of a model that ends in a block."""
    last = max(map(_place, wanted), default=_AT_START)
    return {name: arrays for name, arrays in layers.items() if _place(name) <= last}


def _place(layer: str) -> tuple[int, int, str]:
    """Where a layer stands in the order of the blocks: the stem first, `top_conv` last."""
    if found := _BLOCK.match(layer):
        return int(found[1]), len(found[2]), found[2]
    return (sys.maxsize, 0, "") if layer.startswith("top_") else _AT_START


def _is_fresh_head(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, Any]) -> bool:
    if "bias" not in wanted or "bias" not in given or not given["bias"].shape:
        return False
    return given["bias"].shape[-1] == IMAGENET_CLASSES != wanted["bias"][-1]


def fit_channels(kernel: LazyArray, wanted: tuple[int, ...]) -> LazyArray:
    """The stem kernel `[h, w, 3, out]` for another number of input channels; see `fitted_to`."""
    if len(kernel.shape) != 4 or kernel.shape[2] != RGB or len(wanted) != 4 or wanted[2] == RGB:
        return kernel
    channels = wanted[2]
    height, width, _, filters = kernel.shape

    def change(rgb: Array) -> Array:
        if channels == 1:
            return rgb.sum(axis=2, keepdims=True)
        scale = rgb.dtype.type(RGB / channels)
        return rgb[:, :, [index % RGB for index in range(channels)], :] * scale

    return kernel.changed((height, width, channels, filters), change)
