"""Keras files: `.keras`, `.weights.h5` and the legacy `.h5`, of an EfficientNet or of a network around one.

- `.keras`: a zip with `model.weights.h5` and `config.json`; the description, which can name arbitrary
  Python objects, is read as data and never deserialized.
- `.weights.h5`: a group for each layer, its variables numbered below `vars`. Keras 3 writes a layer's name
  as an attribute of its group; early releases did not, and then only the order of the layers of each class
  tells them apart (`naming.by_order`).
- `.h5`: layers and weights listed in attributes, names like `stem_conv/kernel:0`. keras.applications
  publishes its weights so. Whole models keep the same groups below `model_weights`, and a description.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.network.variants import STEM_LAYER
from keras_effnet.weights.checkpoint import (
    METADATA_KEY,
    TOP_LAYER,
    WEIGHT_NAMES,
    Checkpoint,
    LayerArrays,
    LazyArray,
    Reader,
    WeightFacts,
    damaged,
    guarded,
    parse_metadata,
    too_large,
)
from keras_effnet.weights.naming import by_order
from keras_effnet.weights.readers import hdf5
from keras_effnet.weights.readers.keras_network import (
    NORMALIZATION,
    RESCALING,
    facts_of_config,
    facts_of_names,
)
from keras_effnet.weights.readers.zipped import StoredMember, holds, open_zip

ARCHIVE_FORMAT, WEIGHTS_FORMAT, LEGACY_FORMAT = "Keras 3 .keras", "Keras 3 .weights.h5", "Keras legacy .h5"
WEIGHTS_MEMBER = "model.weights.h5"
CONFIG_MEMBER = "config.json"
MAX_CONFIG_BYTES = 8 * 2**20  # the largest variant's has 1 MB
MAX_STATISTICS = 4096  # numbers in a Normalization
CLASSIFIER_ALIAS = "probs"  # qubvel/efficientnet, and keras.applications before it was released
BATCH_NORM_ORDER = ("gamma", "beta", "moving_mean", "moving_variance")
# behind the prefix that `EfficientNet(…, prefix=)` gave all of them
EFFICIENTNET_LAYER = re.compile(
    r"(.*?)((?:stem|top)_(?:conv|bn)|predictions"
    r"|block\d+[a-z]+_(?:expand_conv|expand_bn|dwconv|bn|se_reduce|se_expand|project_conv|project_bn))"
)

Named = dict[str, dict[str, LazyArray]]


@dataclass
class _Found:
    """What a walk through a file has met.

    Attributes:
        layers: those of the EfficientNet.
        unnamed: layers by their group, in files that keep no names.
        others: names of the other layers with weights.
        statistics: mean and variance of the `Normalization` layers.
        scaling: the layers that scale: the model that each lies in, its class, its name.
        stem: the model that the stem lies in.
    """

    layers: Named = field(default_factory=dict)
    unnamed: Named = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    statistics: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    scaling: list[tuple[str, str, str]] = field(default_factory=list)
    stem: str | None = None

    def add(self, layer: str, weights: dict[str, LazyArray], path: Path) -> None:
        if layer in self.layers:
            raise WeightsError(
                f"Expected one EfficientNet, with each layer once, inside {str(path)!r}. Received two layers "
                f"called {layer!r}: the file is damaged, or of a network with two of them. Save the one you mean alone."
            )
        self.layers[layer] = weights

    def checkpoint(
        self, path: Path, config: Mapping[str, Any] | None, metadata: dict[str, Any]
    ) -> Checkpoint:
        prefix = self._prefix(path)
        layers: LayerArrays = {
            match[2]: weights
            for name, weights in self.layers.items()
            if (match := EFFICIENTNET_LAYER.fullmatch(name)) and match[1] == prefix
        }
        others = dict.fromkeys(
            [*self.others, *(name for name in self.layers if name.removeprefix(prefix) not in layers)]
        )
        _check_generation(others, path)
        if layers or others:
            others |= dict.fromkeys(self.unnamed)
        elif self.unnamed:
            layers = by_order.to_layers(self.unnamed, path)
        facts = self._facts(config, prefix)
        return Checkpoint(layers, metadata=metadata, others=tuple(others), network=facts)

    def _prefix(self, path: Path) -> str:
        """What the names of the EfficientNet's layers begin with."""
        stems = [name.removesuffix(STEM_LAYER) for name in self.layers if name.endswith(STEM_LAYER)]
        if len(stems) > 1:
            raise WeightsError(
                f"Expected one EfficientNet inside {str(path)!r}. Received {len(stems)}, whose layers begin with "
                f"{', '.join(map(repr, stems))}. Save the one you mean alone."
            )
        return stems[0] if stems else ""

    def _facts(self, config: Mapping[str, Any] | None, prefix: str) -> WeightFacts | None:
        if config is not None:
            return facts_of_config(config, self.statistics, prefix)
        beside = [
            (kind, name.removeprefix(prefix)) for model, kind, name in self.scaling if model == self.stem
        ]
        return facts_of_names(beside, self.statistics, outside=len(beside) < len(self.scaling))


def _check_generation(others: Iterable[str], path: Path) -> None:
    """Refuse EfficientNetV2, whose names are like ours; only its depthwise convolutions tell.

    Raises:
        WeightsError: it is one.
    """
    if any(re.search(r"block\d+[a-z]+_dwconv2$", name) for name in others):
        raise WeightsError(
            f"Expected an EfficientNet B, L2 or Lite inside {str(path)!r}. Received an EfficientNetV2, another "
            "network. If the file is a whole model, open it with keras.saving.load_model (--model on the command line)."
        )


# `.keras`


def is_archive(path: Path) -> bool:
    return holds(path, WEIGHTS_MEMBER)


@contextmanager
def read_archive(path: Path, ema: bool = True) -> Iterator[Checkpoint]:
    """Read the arrays of a saved model.

    Raises:
        WeightsError: damaged, or its weights are compressed (Keras never does that).
    """
    with open_zip(path, ARCHIVE_FORMAT) as archive:
        with guarded(path, ARCHIVE_FORMAT):
            config = _config_of(archive, path)
            info = archive.getinfo(WEIGHTS_MEMBER)
            if info.compress_type != zipfile.ZIP_STORED:
                raise damaged(path, ARCHIVE_FORMAT, f"{WEIGHTS_MEMBER} is compressed, which Keras never does")
            member = StoredMember(path, info)
        with member, _read_numbered(path, member, config) as checkpoint:
            yield checkpoint


def _config_of(archive: zipfile.ZipFile, path: Path) -> dict[str, Any] | None:
    if CONFIG_MEMBER not in archive.namelist():
        return None
    info = archive.getinfo(CONFIG_MEMBER)
    if info.file_size > MAX_CONFIG_BYTES:
        raise too_large(path, "a description", info.file_size, MAX_CONFIG_BYTES)
    with archive.open(info) as member:
        return _table(member.read(MAX_CONFIG_BYTES).decode("utf-8"))


def _table(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("its description is no table")
    return found


# `.weights.h5`


def is_numbered(path: Path) -> bool:
    if not hdf5.has_signature(path):
        return False
    with hdf5.open_hdf5(path, path) as file, guarded(path, WEIGHTS_FORMAT):
        return "layers" in file and "layer_names" not in file.attrs


@contextmanager
def read_numbered(path: Path, ema: bool = True) -> Iterator[Checkpoint]:
    """Read weights that Keras 3 saved alone.

    Raises:
        WeightsError: damaged, or layers that no EfficientNet has.
    """
    with _read_numbered(path) as checkpoint:
        yield checkpoint


@contextmanager
def _read_numbered(
    path: Path, content: io.RawIOBase | None = None, config: Mapping[str, Any] | None = None
) -> Iterator[Checkpoint]:
    """Read from `path`, or from `content` when the file lies inside an archive with a description."""
    with hdf5.open_hdf5(content or path, path) as file:
        with guarded(path, WEIGHTS_FORMAT):
            found = _walk(hdf5.member(file, "layers", path), path)
            metadata = parse_metadata("".join(hdf5.texts(file, METADATA_KEY, path)))
            checkpoint = found.checkpoint(path, config, metadata)
        yield checkpoint


def _walk(root: Any, path: Path) -> _Found:
    found = _Found()
    for name, group in hdf5.walk(root, path):
        # groups end in `vars`; nested models repeat `layers/<class>` on the way there
        if not name.endswith("/vars"):
            continue
        model, _, layer_group = name.removesuffix("/vars").rpartition("/")
        layer = "".join(hdf5.texts(group, "name", path))
        kind = re.sub(r"_\d+$", "", layer_group)
        if kind in (RESCALING, NORMALIZATION):
            found.scaling.append((model, kind, layer or layer_group))
            if kind == NORMALIZATION and len(group) >= 2:
                found.statistics[layer or layer_group] = _statistics(group["0"], group["1"], path)
            continue
        if not len(group) or layer_group.startswith("seed_generator"):
            continue
        if layer and not EFFICIENTNET_LAYER.fullmatch(layer):
            found.others.append(layer)
            continue
        if layer.endswith(STEM_LAYER) or layer_group == "conv2d":
            found.stem = model
        arrays = [hdf5.lazy(hdf5.member(group, str(index), path), path) for index in range(len(group))]
        weights = _name_weights(arrays)
        if weights is None or (not layer and layer_group in found.unnamed):
            raise damaged(
                path, WEIGHTS_FORMAT, f"{name!r} is of a layer that no EfficientNet has, or there twice"
            )
        if layer:
            found.add(layer, weights, path)
        else:
            found.unnamed[layer_group] = weights
    return found


def _name_weights(arrays: list[LazyArray]) -> dict[str, LazyArray] | None:
    """Name a layer's weights that came in Keras' order; None when they are of no layer that an EfficientNet has."""
    ranks = [len(array.shape) for array in arrays]
    if ranks == [1, 1, 1, 1]:
        return dict(zip(BATCH_NORM_ORDER, arrays, strict=True))
    if ranks in ([2], [2, 1], [4], [4, 1]):
        return dict(zip(("kernel", "bias"), arrays, strict=False))
    return None


def _statistics(mean: Any, variance: Any, path: Path) -> tuple[Any, Any]:
    """The numbers of a `Normalization`, read at once: they are few, and say how to build the model."""
    arrays = [hdf5.lazy(part, path) for part in (mean, variance)]
    if any(np.prod(array.shape) > MAX_STATISTICS for array in arrays):
        raise damaged(path, hdf5.EXPECTED, "a Normalization of more numbers than a picture has channels")
    return tuple(np.asarray(array.read(), np.float64) for array in arrays)  # type: ignore[return-value]


# legacy `.h5`


def is_legacy(path: Path) -> bool:
    if not hdf5.has_signature(path):
        return False
    with hdf5.open_hdf5(path, path) as file, guarded(path, LEGACY_FORMAT):
        return any(name.startswith("layer_names") for name in file.attrs) or "model_weights" in file


@contextmanager
def read_legacy(path: Path, ema: bool = True) -> Iterator[Checkpoint]:
    """Read the arrays of a legacy file.

    Raises:
        WeightsError: damaged, or a weight that no EfficientNet has.
    """
    with hdf5.open_hdf5(path, path) as file:
        with guarded(path, LEGACY_FORMAT):
            text = "".join(hdf5.texts(file, "model_config", path))
            if len(text) > MAX_CONFIG_BYTES:
                raise too_large(path, "a description", len(text), MAX_CONFIG_BYTES)
            checkpoint = _walk_legacy(file, path).checkpoint(path, _table(text) if text else None, {})
        yield checkpoint


def _walk_legacy(file: Any, path: Path) -> _Found:
    root = hdf5.member(file, "model_weights", path) if "model_weights" in file else file
    found = _Found()
    listed: set[str] = set()
    for layer in _names(root, "layer_names", path):
        if layer in listed:
            raise damaged(path, LEGACY_FORMAT, f"layer {layer!r} is listed twice")
        listed.add(layer)
        group = hdf5.member(root, layer, path)
        for inner, members in _layers_in(layer, _names(group, "weight_names", path)).items():
            _add_legacy(found, layer, inner, {name: hdf5.member(group, name, path) for name in members}, path)
    return found


def _layers_in(layer: str, weight_names: list[str]) -> dict[str, list[str]]:
    """A layer's weights by the layer that they are of: others than itself where it is a model.

    The names are paths: `stem_conv/kernel:0`, `sequential/efficientnetb0/stem_conv/kernel`.
    """
    owners: dict[str, list[str]] = {}
    for name in weight_names:
        owners.setdefault(name.rpartition("/")[0].rpartition("/")[2], []).append(name)
    return owners if len(owners) > 1 else {layer: weight_names}


def _add_legacy(found: _Found, listed: str, layer: str, members: dict[str, Any], path: Path) -> None:
    """Sort one layer of a legacy file in; `listed` is its name, or that of the model that holds it."""
    model = "" if listed == layer else listed
    shorts = {name: name.rpartition("/")[2].partition(":")[0] for name in members}
    if {"mean", "variance"} <= set(shorts.values()):
        by_short = {short: members[name] for name, short in shorts.items()}
        found.scaling.append((model, NORMALIZATION, layer))
        found.statistics[layer] = _statistics(by_short["mean"], by_short["variance"], path)
        return
    if not members and RESCALING in layer:
        found.scaling.append((model, RESCALING, layer))
        return
    name = TOP_LAYER if layer == CLASSIFIER_ALIAS else layer
    if not members:
        return
    if not EFFICIENTNET_LAYER.fullmatch(name):
        found.others.append(layer)
        return
    if name.endswith(STEM_LAYER):
        found.stem = model
    weights: dict[str, LazyArray] = {}
    for full, member in members.items():
        short = shorts[full].replace("depthwise_kernel", "kernel")
        if short not in WEIGHT_NAMES:
            raise WeightsError(
                f"Expected the weights {', '.join(sorted(WEIGHT_NAMES))} inside {str(path)!r}. "
                f"Received: {full!r} in layer {layer!r}. This is not an EfficientNet of Keras."
            )
        if short in weights:
            raise damaged(path, LEGACY_FORMAT, f"layer {layer!r} has two weights of one name")
        weights[short] = hdf5.lazy(member, path)
    found.add(name, weights, path)


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


READERS = (
    Reader(ARCHIVE_FORMAT, is_archive, read_archive),
    Reader(WEIGHTS_FORMAT, is_numbered, read_numbered),
    Reader(LEGACY_FORMAT, is_legacy, read_legacy),
)
