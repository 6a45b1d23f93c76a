"""Keras 3 `.weights.h5`: a group for each layer, its variables numbered below `vars`.

Keras 3 writes a layer's name as an attribute of its group; early releases did not, and then only
the order of the layers of each class tells them apart (`naming.by_order`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_effnet.weights.arrays import Checkpoint, LayerArrays, LazyArray, name_weights
from keras_effnet.weights.naming import by_order
from keras_effnet.weights.readers import hdf5
from keras_effnet.weights.readers.metadata import KEY, parse
from keras_effnet.weights.readers.problems import damaged, guarded

FORMAT = "Keras 3 .weights.h5"
WITHOUT_WEIGHTS = ("rescaling", "normalization", "seed_generator")


def matches(path: Path) -> bool:
    if not hdf5.has_signature(path):
        return False
    with hdf5.open_hdf5(path, path) as file, guarded(path, FORMAT):
        return "layers" in file and "layer_names" not in file.attrs


@contextmanager
def read(path: Path, ema: bool = True, content: io.RawIOBase | None = None) -> Iterator[Checkpoint]:
    """Read from `path`, or from `content` when the file lies inside an archive.

    Raises:
        WeightsError: damaged, or layers that no EfficientNet has.
    """
    with hdf5.open_hdf5(content or path, path) as file:
        with guarded(path, FORMAT):
            layers = _layers(hdf5.child(file, "layers", path), path)
            metadata = parse("".join(hdf5.texts(file, KEY, path)), path, FORMAT)
        yield Checkpoint(layers, metadata=metadata)


def _layers(root: Any, path: Path) -> LayerArrays:
    named: dict[str, dict[str, LazyArray]] = {}
    unnamed: dict[str, dict[str, LazyArray]] = {}
    for name, group in hdf5.walk(root, path):
        # groups end in `vars`; nested models repeat `layers/<class>` on the way there
        if not name.endswith("/vars") or not len(group):
            continue
        layer_group = name.split("/")[-2]
        if layer_group.startswith(WITHOUT_WEIGHTS):
            continue
        weights = name_weights([hdf5.lazy(hdf5.child(group, str(i), path), path) for i in range(len(group))])
        layer = "".join(hdf5.texts(group, "name", path))
        found, key = (named, layer) if layer else (unnamed, layer_group)
        if weights is None or key in found:
            raise damaged(path, FORMAT, f"{name!r} is of a layer that no EfficientNet has, or there twice")
        found[key] = weights
    if unnamed and not named:
        return by_order.to_layers(unnamed, path)
    return {**named, **unnamed}
