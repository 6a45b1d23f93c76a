"""Keras 3 `.weights.h5`: a group for each layer, its variables numbered below `vars`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from keras_effnet.errors import WeightsError
from keras_effnet.weights.arrays import LayerArrays, LazyArray, name_weights
from keras_effnet.weights.readers import hdf5

FORMAT = "Keras 3 .weights.h5"
PREPROCESSING_GROUPS = ("rescaling", "normalization")


def matches(path: Path) -> bool:
    if not hdf5.has_signature(path):
        return False
    with hdf5.open_hdf5(path, path) as file:
        return "layers" in file and "layer_names" not in file.attrs


@contextmanager
def read(path: Path, content: IO[bytes] | None = None) -> Iterator[LayerArrays]:
    """Read from `path`, or from `content` when the file lies inside an archive.

    Raises:
        WeightsError: damaged, or written by a Keras that did not store layer names.
    """
    with hdf5.open_hdf5(content or path, path) as file:
        yield _layers(file["layers"], path)


def _layers(root: Any, path: Path) -> dict[str, dict[str, LazyArray]]:
    found: dict[str, dict[str, LazyArray]] = {}

    def visit(name: str, group: Any) -> None:
        # groups end in `vars`; nested models repeat `layers/<class>` on the way there
        if not name.endswith("/vars") or not len(group):
            return
        layer_group = name.split("/")[-2]
        if layer_group.startswith(PREPROCESSING_GROUPS) or layer_group == "seed_generator":
            return
        arrays = [hdf5.lazy(group[str(index)], path) for index in range(len(group))]
        layer = group.attrs.get("name")
        weights = name_weights(arrays)
        if layer is None or weights is None:
            raise WeightsError(
                f"Expected named layers with their weights inside {str(path)!r}. Received: {name!r} "
                f"with shapes {[array.shape for array in arrays]} and "
                f"{'no name' if layer is None else f'the name {layer!r}'}. "
                "Load the model with the Keras that saved it and save it again with Keras 3.13 or newer."
            )
        found[str(layer)] = weights

    root.visititems(visit)
    return found
