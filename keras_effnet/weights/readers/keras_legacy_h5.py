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
from keras_effnet.weights.arrays import WEIGHT_NAMES, LayerArrays, LazyArray
from keras_effnet.weights.readers import hdf5

FORMAT = "Keras legacy .h5"
# The published files keep the standard deviation in the slot of the variance. The constants of a
# model come from its input convention, so the file's are never needed.
IGNORED_PREFIXES = ("normalization", "rescaling")


def matches(path: Path) -> bool:
    if not hdf5.has_signature(path):
        return False
    with hdf5.open_hdf5(path, path) as file:
        return "layer_names" in file.attrs or "model_weights" in file


@contextmanager
def read(path: Path) -> Iterator[LayerArrays]:
    """Read the arrays of a legacy file.

    Raises:
        WeightsError: damaged, or a weight that no EfficientNet has.
    """
    with hdf5.open_hdf5(path, path) as file:
        root = file.get("model_weights", file)
        layers: dict[str, dict[str, LazyArray]] = {}
        for layer in _names(root, "layer_names"):
            if layer.startswith(IGNORED_PREFIXES):
                continue
            weights = {
                _weight_name(name, layer, path): hdf5.lazy(root[layer][name], path)
                for name in _names(root[layer], "weight_names")
            }
            if weights:
                layers[layer] = weights
        yield layers


def _names(group: Any, attribute: str) -> list[str]:
    """An attribute with names; Keras splits long lists over `attribute0`, `attribute1` ….."""
    if attribute in group.attrs:
        values = list(group.attrs[attribute])
    else:
        values, index = [], 0
        while f"{attribute}{index}" in group.attrs:
            values.extend(group.attrs[f"{attribute}{index}"])
            index += 1
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _weight_name(name: str, layer: str, path: Path) -> str:
    short = name.rsplit("/", maxsplit=1)[-1].split(":", maxsplit=1)[0]
    short = "kernel" if short == "depthwise_kernel" else short
    if short not in WEIGHT_NAMES:
        raise WeightsError(
            f"Expected the weights {', '.join(sorted(WEIGHT_NAMES))} inside {str(path)!r}. "
            f"Received: {name!r} in layer {layer!r}. This is not an EfficientNet of Keras."
        )
    return short
