"""What is known about weights beside their values, and whether a model was built for them.

The values of a network say nothing of how its pixels were prepared, how its convolutions were
padded, or which epsilon its batch normalization had; wrong ones give plausible, wrong numbers. The
knowledge comes from a file's metadata, from its hash in the catalog, from what a Keras file says of its
input layers, or from whose names a file uses.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.network.conventions import (
    CONVENTIONS,
    CUSTOM,
    Convention,
    composed,
    convention_with,
    input_constants,
)
from keras_effnet.network.variants import STEM_LAYER, prefix_of, variant_of_blocks
from keras_effnet.weights.catalog import CATALOG, Source, WeightSet
from keras_effnet.weights.checkpoint import CHUNK_BYTES, Checkpoint, LazyArray, WeightFacts

FULL_SHA256 = 64
TORCHVISION_EPSILON = {f"b{index}": 1e-5 if index < 5 else 1e-3 for index in range(8)}


def facts_of_set(entry: WeightSet) -> WeightFacts:
    """What is known about a published set."""
    return WeightFacts(
        variant=entry.variant,
        weight_set=entry.name,
        preprocessing=CONVENTIONS[entry.preprocessing],
        padding=entry.padding,
        epsilon=entry.epsilon,
    )


def facts_of_file(path: Path, checkpoint: Checkpoint) -> WeightFacts:
    """What is known about an opened weight file: from its metadata, its hash, its network or its names."""
    if checkpoint.metadata:
        return WeightFacts.of_metadata(checkpoint.metadata)
    published = recognize(path)
    if published:
        # the constants in published Keras files are not those of the training, see docs/weights.md
        return facts_of_set(published[0])
    variant = guess_variant(checkpoint.layers)
    if checkpoint.naming == "torchvision" and variant in TORCHVISION_EPSILON:
        epsilon = TORCHVISION_EPSILON[variant]
        return WeightFacts(variant=variant, padding="symmetric" if epsilon == 1e-5 else None, epsilon=epsilon)
    return replace(checkpoint.network or WeightFacts(), variant=variant)


def check_built_for(model: Any, facts: WeightFacts, source: str) -> None:
    """Make sure that a model prepares its pixels, pads and normalizes as its weights need.

    Raises:
        WeightsError: it does not; the message says which arguments to build with.
    """
    built = built_with(model)
    keys = ("preprocessing", "padding", "epsilon")
    needed = {
        key: value for key in keys if (value := getattr(facts, key)) is not None and built[key] is not None
    }
    channels = _channels_of(model)
    if any(not same(built[key], value, channels) for key, value in needed.items()):
        raise WeightsError(
            f"Expected a model built with {arguments(needed)}, as the weights {source!r} were trained. "
            f"Received one with {arguments({key: built[key] for key in needed})}. "
            f"Build it with {arguments(needed)}."
        )
    used = built["preprocessing"]
    if used is not None and facts.choices and not any(used.same_as(each, channels) for each in facts.choices):
        raise WeightsError(
            f"{in_doubt(facts, source)} Received a model with {arguments({'preprocessing': used})}."
        )


def in_doubt(facts: WeightFacts, source: str) -> str:
    """What to say of weights that leave open how their pixels were prepared."""
    ways = " or ".join(f"preprocessing={each.argument}" for each in facts.choices)
    known = ", ".join(map(repr, CONVENTIONS))
    return (
        f"Expected to know how the pixels were prepared that {source!r} was trained on: {facts.doubt}. "
        f"Pass {ways or f'preprocessing= as one of {known}, or as (mean, std) of pixels 0–1'} (--preprocessing on "
        "the command line); keras-effnet convert --preprocessing writes a file that says it."
    )


def same(left: Any, right: Any, channels: int | None = None) -> bool:
    """Whether two values of a fact mean the same; conventions for a network of so many input channels."""
    if isinstance(right, Convention):
        return bool(left.same_as(right, channels))
    return (
        bool(np.isclose(left, right, rtol=1e-3, atol=0)) if isinstance(right, float) else bool(left == right)
    )


def arguments(values: Mapping[str, Any]) -> str:
    """As a caller would write them: `padding='symmetric', epsilon=1e-05`."""
    return ", ".join(
        f"{key}={value.argument if isinstance(value, Convention) else repr(value)}"
        for key, value in values.items()
    )


def built_with(model: Any) -> dict[str, Any]:
    """Preprocessing, padding and epsilon of a model of this package, read from its layers.

    Returns:
        `preprocessing` (a `Convention`; None without preprocessing in the graph), `padding`, `epsilon`
        (None without a stem).
    """
    layers = _layers_by_name(model)
    stem_bn, stem_pad = layers.get("stem_bn"), layers.get("stem_conv_pad")
    # keras.applications pads in a layer of this name too, only not symmetrically
    symmetric = stem_pad is not None and len({side for pair in stem_pad.padding for side in pair}) == 1
    return {
        "preprocessing": _preprocessing_of(model),
        "padding": None if stem_bn is None else "symmetric" if symmetric else "same",
        "epsilon": None if stem_bn is None else float(stem_bn.epsilon),
    }


def _preprocessing_of(model: Any) -> Convention | None:
    """The convention of all that scales pixels before the stem, or of our layer behind other people's."""
    constants = input_constants(model)
    if not constants:
        return None
    together, last = (convention_with(*part) for part in (composed(constants), constants[-1]))
    return last if together.name == CUSTOM != last.name else together


def _channels_of(model: Any) -> int | None:
    stem = _layers_by_name(model).get(STEM_LAYER)
    return None if stem is None else int(stem.kernel.shape[2])


def _layers_by_name(model: Any) -> dict[str, Any]:
    """A model's layers, under the names of keras.applications."""
    prefix = prefix_of(model.layers)
    return {layer.name.removeprefix(prefix): layer for layer in model.layers}


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


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's content."""
    stat = path.stat()
    return _file_hash(path.resolve(), algorithm, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=64)
def _file_hash(path: Path, algorithm: str, *state: int) -> str:
    """The size, time and inode in `state` make a changed file a different question."""
    # these are checks for identity with what was published, not signatures
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """SHA-256 of a weight file; for a TensorFlow checkpoint, of its files' SHA-256, sorted by name."""
    if path.is_file():
        return file_hash(path)
    files = sorted(path.iterdir() if path.is_dir() else path.parent.glob(f"{path.name}.*"))
    digests = [file_hash(file) for file in files if file.is_file()]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def agrees(path: Path, published: str) -> bool:
    """Whether a file has a hash of the catalog, `md5:…` or `sha256:…` (perhaps only its start)."""
    algorithm, _, digits = published.partition(":")
    return file_hash(path, algorithm).startswith(digits)


def is_complete(published: str) -> bool:
    """Whether a hash of the catalog identifies a file beyond doubt: not just eight digits of it."""
    return published.startswith("md5:") or len(published) == len("sha256:") + FULL_SHA256


def recognize(path: Path) -> tuple[WeightSet, Source] | None:
    """The published file that `path` is, whatever its name; None for any other file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        is_hdf5 = file.read(4) == b"\x89HDF"
    algorithm = "md5" if is_hdf5 else "sha256"
    for entry in CATALOG:
        for source in entry.sources:
            if source.hash.startswith(algorithm) and agrees(path, source.hash):
                return entry, source
    return None
