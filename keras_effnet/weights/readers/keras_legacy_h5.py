"""The legacy Keras `.h5`: layers and weights listed in attributes, names like `stem_conv/kernel:0`.

keras.applications publishes its weights in this format. Whole-model files keep the same groups
below `model_weights`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_effnet.errors import WeightsError
from keras_effnet.weights.arrays import TOP_LAYER, WEIGHT_NAMES, Checkpoint, LazyArray
from keras_effnet.weights.readers import hdf5
from keras_effnet.weights.readers.problems import damaged, guarded

FORMAT = "Keras legacy .h5"
# The published files keep the standard deviation in the slot of the variance. The constants of a
# model come from its input convention, so the file's are never needed.
CLASSIFIER_ALIAS = "probs"  # qubvel/efficientnet, and keras.applications before it was released
IGNORED_PREFIXES = ("normalization", "rescaling")


def matches(path: Path) -> bool:
    if not hdf5.has_signature(path):
        return False
    with hdf5.open_hdf5(path, path) as file, guarded(path, FORMAT):
        return any(name.startswith("layer_names") for name in file.attrs) or "model_weights" in file


@contextmanager
def read(path: Path, ema: bool = True) -> Iterator[Checkpoint]:
    """Read the arrays of a legacy file.

    Raises:
        WeightsError: damaged, or a weight that no EfficientNet has.
    """
    with hdf5.open_hdf5(path, path) as file:
        with guarded(path, FORMAT):
            checkpoint = Checkpoint(_layers(file, path))
        yield checkpoint


def _layers(file: Any, path: Path) -> dict[str, dict[str, LazyArray]]:
    root = hdf5.child(file, "model_weights", path) if "model_weights" in file else file
    layers: dict[str, dict[str, LazyArray]] = {}
    for layer in _names(root, "layer_names", path):
        if layer.startswith(IGNORED_PREFIXES):
            continue
        name = TOP_LAYER if layer == CLASSIFIER_ALIAS else layer
        if name in layers:
            raise damaged(path, FORMAT, f"layer {layer!r} is listed twice")
        weights = _weights(hdf5.child(root, layer, path), layer, path)
        if weights:
            layers[name] = weights
    return layers


def _weights(group: Any, layer: str, path: Path) -> dict[str, LazyArray]:
    names = {name: _weight_name(name, layer, path) for name in _names(group, "weight_names", path)}
    if len(set(names.values())) != len(names):
        raise damaged(path, FORMAT, f"layer {layer!r} has two weights of one name")
    return {short: hdf5.lazy(hdf5.child(group, name, path), path) for name, short in names.items()}


def _names(group: Any, attribute: str, path: Path) -> list[str]:
    """An attribute with names; Keras splits long lists over `attribute0`, `attribute1` ….."""
    if attribute in group.attrs:
        return hdf5.texts(group, attribute, path)
    names: list[str] = []
    index = 0
    while f"{attribute}{index}" in group.attrs:
        names.extend(hdf5.texts(group, f"{attribute}{index}", path))
        index += 1
    return names


def _weight_name(name: str, layer: str, path: Path) -> str:
    short = name.rsplit("/", maxsplit=1)[-1].split(":", maxsplit=1)[0]
    short = "kernel" if short == "depthwise_kernel" else short
    if short not in WEIGHT_NAMES:
        raise WeightsError(
            f"Expected the weights {', '.join(sorted(WEIGHT_NAMES))} inside {str(path)!r}. "
            f"Received: {name!r} in layer {layer!r}. This is not an EfficientNet of Keras."
        )
    return short
