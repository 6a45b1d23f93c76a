"""safetensors: read with the library of the format, under a limit on the header."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.weights.checkpoint import (
    BFLOAT16,
    METADATA_KEY,
    Array,
    Checkpoint,
    LazyArray,
    Reader,
    guarded,
    parse_metadata,
    too_large,
)
from keras_effnet.weights.naming.pytorch import name_tensors

FORMAT = "safetensors"
MAX_HEADER_BYTES = 4 * 2**20  # the largest variant's has 0.3 MB
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}


def matches(path: Path) -> bool:
    """The format has no signature: the length must be followed by the start of a JSON table."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and start[4:8] == bytes(4)


@contextmanager
def read(path: Path, ema: bool = True) -> Iterator[Checkpoint]:
    """Read the tensors, under the names of this package or of a PyTorch project.

    Raises:
        WeightsError: damaged: tensors that overlap, leave gaps or lie behind the end.
    """
    from safetensors import safe_open

    with guarded(path, FORMAT):
        with path.open("rb") as start:
            (length,) = struct.unpack("<Q", start.read(8))
        if length > MAX_HEADER_BYTES:
            raise too_large(path, "a header", length, MAX_HEADER_BYTES)
        opened = safe_open(str(path), framework="numpy")
    with opened as file:
        with guarded(path, FORMAT):
            metadata = parse_metadata((file.metadata() or {}).get(METADATA_KEY, ""))
            found = name_tensors({name: _lazy(file, name, path) for name in file.keys()}, path)  # noqa: SIM118
        yield Checkpoint(found.layers, found.naming, metadata)


def _lazy(file: Any, name: str, path: Path) -> LazyArray:
    described = file.get_slice(name)
    return LazyArray(
        tuple(described.get_shape()), DTYPES[described.get_dtype()], partial(_read, file, name, path)
    )


def _read(file: Any, name: str, path: Path) -> Array:
    with guarded(path, FORMAT):
        return np.asarray(file.get_tensor(name))


READERS = (Reader(FORMAT, matches, read),)
