"""safetensors: eight bytes of length, a JSON table of tensors, the raw numbers."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.weights.arrays import BFLOAT16, Checkpoint, LazyArray, OpenCheckpoint, in_file, opened
from keras_effnet.weights.naming import name_tensors
from keras_effnet.weights.readers.metadata import KEY, parse
from keras_effnet.weights.readers.problems import damaged, guarded, too_large

FORMAT = "safetensors"
MAX_HEADER_BYTES = 4 * 2**20  # the largest variant's has 0.3 MB
MAX_RANK = 8
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


def read(path: Path, ema: bool = True) -> OpenCheckpoint:
    """Read the tensors, under the names of this package or of a PyTorch project.

    Raises:
        WeightsError: damaged: tensors that overlap, leave gaps or lie behind the end.
    """
    with guarded(path, FORMAT):
        header, data_start = _header(path)
        metadata = parse(dict(header.pop("__metadata__", {})).get(KEY, ""), path, FORMAT)
        checkpoint = name_tensors(_tensors(header, data_start, path), path)
        return opened(Checkpoint(checkpoint.layers, checkpoint.naming, metadata))


def _header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MAX_HEADER_BYTES:
            raise too_large(path, "a header", length, MAX_HEADER_BYTES)
        # decoded here: json would guess other encodings, and import their codecs
        header = json.loads(file.read(length).decode("utf-8"))
    if not isinstance(header, dict):
        raise damaged(path, FORMAT, "its header is no table")
    return header, 8 + length


def _tensors(header: dict[str, Any], data_start: int, path: Path) -> dict[str, LazyArray]:
    tensors: dict[str, LazyArray] = {}
    spans = []
    for name, entry in header.items():
        dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
            raise damaged(path, FORMAT, f"tensor {name!r} has an impossible shape or place")
        if len(shape) > MAX_RANK or end - begin != math.prod(shape) * dtype.itemsize:
            raise damaged(path, FORMAT, f"tensor {name!r} of shape {list(shape)} has {end - begin} bytes")
        spans.append((begin, end))
        tensors[name] = in_file(path, dtype, data_start + begin, shape)
    _check_spans(spans, path.stat().st_size - data_start, path)
    return tensors


def _check_spans(spans: list[tuple[int, int]], size: int, path: Path) -> None:
    """The numbers must fill the file: no gap, no overlap, nothing behind the end."""
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise damaged(path, FORMAT, f"its tensors overlap or leave a gap at byte {reached}")
        reached = end
    if reached != size:
        raise damaged(path, FORMAT, f"its tensors need {reached} bytes, the file has {size}")
