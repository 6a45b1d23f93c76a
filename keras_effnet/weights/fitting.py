"""From the arrays of a file to those of the model asked for: other channels, another head, no head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_effnet.errors import warn
from keras_effnet.pictures.labels import IMAGENET_CLASSES
from keras_effnet.weights.arrays import TOP_LAYER, Array, LayerArrays, LazyArray

STEM_LAYER = "stem_conv"
RGB = 3

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]


def fit(wanted: Shapes, layers: LayerArrays, source: str) -> tuple[Shapes, LayerArrays]:
    """Fit a file's arrays to a model's shapes, where there is one meaningful way to.

    - A model without classifier leaves the file's out.
    - A model with other than 1000 classes keeps its fresh head when the file has ImageNet's 1000;
      that is a UserWarning.
    - One input channel: the RGB kernel is summed, so gray gives what three equal channels gave. N
      channels: the RGB kernels take turns, times 3 / N, so the sum over the channels stays.

    Args:
        wanted: layer → weight → shape, of the model.
        layers: the file's arrays.
        source: for the message.

    Returns:
        The shapes to fill, and the arrays to fill them with.
    """
    wanted, fitted = dict(wanted), dict(layers)
    if TOP_LAYER not in wanted:
        fitted.pop(TOP_LAYER, None)
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


def _is_fresh_head(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, Any]) -> bool:
    if "bias" not in wanted or "bias" not in given or not given["bias"].shape:
        return False
    return given["bias"].shape[-1] == IMAGENET_CLASSES != wanted["bias"][-1]


def fit_channels(kernel: LazyArray, wanted: tuple[int, ...]) -> LazyArray:
    """The stem kernel `[h, w, 3, out]` for another number of input channels; see `fit`."""
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
