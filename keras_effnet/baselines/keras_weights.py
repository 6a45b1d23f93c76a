"""Weights of keras.applications for the baselines that it has too, copied layer by layer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from keras_effnet.errors import InvalidInputError, WeightsError
from keras_effnet.network.table import MOBILENET_V1, MOBILENET_V2, RESNET50
from keras_effnet.network.variants import STEM_LAYER, Variant

_THEIR_NAMES = {MOBILENET_V1: "MobileNet", MOBILENET_V2: "MobileNetV2", RESNET50: "ResNet50"}


def keras_application(variant: Variant, weights: str | os.PathLike[str], options: Mapping[str, Any]) -> Any:
    """The network of keras.applications that equals a baseline at scale 1, with `"imagenet"` or a file as weights.

    Raises:
        InvalidInputError: the network is scaled, or keras.applications does not have it.
        WeightsError: keras.applications cannot load the weights.
    """
    baseline, scale = variant.baseline, (variant.depth, variant.width)
    if baseline not in _THEIR_NAMES or scale != (1.0, 1.0):
        raise InvalidInputError(
            "Expected weights only for MobileNetV1, MobileNetV2 or ResNet-50 with depth=1 and width=1. "
            f"Received: weights={os.fspath(weights)!r} for {baseline.title} with depth, width = {scale}. "
            "Pass weights=None."
        )
    wanted = {key: options[key] for key in ("classes", "include_top") if key in options}
    import keras

    build = getattr(keras.applications, _THEIR_NAMES[baseline])
    try:
        return build(weights=weights, input_shape=(224, 224, 3), **wanted)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"Expected 'imagenet' or a weight file of keras.applications.{_THEIR_NAMES[baseline]}. "
            f"Received: {os.fspath(weights)!r}; keras.applications says: {error}"
        ) from error
    except Exception as error:
        if "URL fetch failure" not in str(error):
            raise
        raise WeightsError(
            f"Expected to download the weights of keras.applications.{_THEIR_NAMES[baseline]}. {error}. "
            "Pass the path of a downloaded file."
        ) from error


def copy_weights(source: Any, model: Any, *, bgr: bool = False) -> None:
    """Copy every weight of a keras.applications network into ours, which has the same layers under other names.

    Layers are paired along each network from input to output, within their kinds; shapes must agree
    (a classifier may be a dense layer here and a 1×1 convolution there). With `bgr` the stem's kernel is
    turned round.

    Raises:
        WeightsError: the networks differ; the message names the first layer that does. Ours is unchanged.
    """
    theirs, ours = _by_kind(source), _by_kind(model)
    assignments = []
    for kind in sorted({*theirs, *ours}):
        given, wanted = theirs.get(kind, []), ours.get(kind, [])
        if len(given) != len(wanted):
            raise WeightsError(
                f"Expected {len(wanted)} layers of kind {kind}. Received: {len(given)} in {source.name!r}."
            )
        for layer, target in zip(given, wanted, strict=True):
            arrays = layer.get_weights()
            shapes = [tuple(weight.shape) for weight in target.weights]
            if [_squeezed(array.shape) for array in arrays] != [_squeezed(shape) for shape in shapes]:
                raise WeightsError(
                    f"Expected shapes {shapes} in {target.name!r}. "
                    f"Received: {[array.shape for array in arrays]} from {layer.name!r}."
                )
            assignments.append((target, [a.reshape(s) for a, s in zip(arrays, shapes, strict=True)]))
    for target, arrays in assignments:
        if bgr and target.name == STEM_LAYER:
            arrays[0] = arrays[0][:, :, ::-1, :]
        target.set_weights(arrays)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A 1×1 kernel without its sides, as a dense layer has it."""
    return shape[2:] if len(shape) == 4 and shape[:2] == (1, 1) else shape


def _by_kind(model: Any) -> dict[str, list[Any]]:
    """Layers with weights, by kind, in the order in which the network computes them.

    The skip of a ResNet block runs beside its other convolutions; it is a kind of its own here.
    """
    layers: dict[str, list[Any]] = {}
    for layer in model.layers:
        if layer.weights:
            layers.setdefault(_kind(layer), []).append(layer)
    return layers


def _kind(layer: Any) -> str:
    skip = "shortcut" in layer.name or "_0_" in layer.name
    classifier = layer.name in ("predictions", "conv_preds")
    return "classifier" if classifier else f"{type(layer).__name__}{' of a skip' if skip else ''}"
