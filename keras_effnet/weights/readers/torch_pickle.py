"""PyTorch state dicts, read without PyTorch and without running anything from the file.

A checkpoint is a pickle that describes tensors, and the raw numbers. The pickle is read by an
unpickler that admits tensor rebuilding, ordered dictionaries and the storage types listed here and
raises on every other name, before anything is called. What it admits are inert functions of this
module; PyTorch's own code never runs.

Two containers exist: the zip that PyTorch writes since 1.6, and the older sequence of pickles with
the numbers behind it. The older one is only read for files whose SHA-256 is in the catalog.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import WeightsError
from keras_effnet.weights.arrays import LazyArray, OpenCheckpoint, opened
from keras_effnet.weights.catalog import TRUSTED_LEGACY_SHA256
from keras_effnet.weights.naming import lukemelas

FORMAT = "PyTorch .pth"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PREFIX = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
MAX_PICKLE_BYTES = 16 * 2**20  # the pickle of the largest variant is below 1 MiB

STORAGE_TYPES: dict[str, npt.DTypeLike] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


def matches(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(len(LEGACY_PREFIX)) == LEGACY_PREFIX:
            return True
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def read(path: Path) -> OpenCheckpoint:
    """Read a state dict and name its arrays as the layers of Keras.

    Raises:
        WeightsError: damaged, holding anything but tensors, or in the older container from an
            unknown source.
    """
    return opened(lukemelas.to_layers(read_tensors(path), path))


def read_tensors(path: Path) -> dict[str, LazyArray]:
    """The tensors of a state dict, under the names that the file gives them."""
    try:
        tensors = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except WeightsError:
        raise
    except Exception as error:  # a hostile pickle can make the unpickler raise nearly anything
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    return tensors


@dataclass(frozen=True)
class _Storage:
    """A run of numbers in the file."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A strided view into a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor without a storage")
    if any(type(number) is not int or number < 0 for number in numbers):
        raise pickle.UnpicklingError(f"a tensor with impossible shape or strides: {numbers}")
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    # no overlapping views: a short storage must not unfold into terabytes
    if (math.prod(shape) and last >= storage.count) or math.prod(shape) > storage.count:
        raise pickle.UnpicklingError(f"a tensor of shape {shape} in a storage of {storage.count}")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _StateDict(OrderedDict[str, Any]):
    """PyTorch sets an attribute on its dictionaries; a subclass has room for it."""


@dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype[Any]


class _TensorUnpickler(pickle.Unpickler):
    """Admits tensor descriptions and nothing else."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): _StateDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        **{("torch", name): _StorageType(np.dtype(dtype)) for name, dtype in STORAGE_TYPES.items()},
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise WeightsError(
                "Expected a checkpoint that holds tensors only. It asks for the Python object "
                f"{module}.{name}, which was not loaded. Do not trust this file; get the weights from "
                "their publisher."
            )
        return self.ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"an unknown persistent object {kind!r}")
        if type(count) is not int or count < 0 or not isinstance(key, str):
            raise pickle.UnpicklingError(f"a storage with impossible size {count!r}")
        return _Storage(key, storage_type.dtype, count)


def _read_zip(path: Path) -> dict[str, LazyArray]:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        prefix = name.removesuffix("data.pkl")
        if archive.getinfo(name).file_size > MAX_PICKLE_BYTES:
            raise _damaged(path, f"its description claims {archive.getinfo(name).file_size} bytes")
        if f"{prefix}byteorder" in archive.namelist() and archive.read(f"{prefix}byteorder") != b"little":
            raise _damaged(path, "its numbers are not little-endian")
        state = _TensorUnpickler(io.BytesIO(archive.read(name))).load()
        members = {info.filename: info for info in archive.infolist()}
    size = path.stat().st_size
    starts: dict[str, int] = {}
    with path.open("rb") as file:
        for storage in {tensor.storage for tensor in _tensors(state).values()}:
            info = members.get(f"{prefix}data/{storage.key}")
            needed = storage.count * storage.dtype.itemsize
            if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size < needed:
                raise _damaged(path, f"the numbers of storage {storage.key!r} are missing or compressed")
            start = _data_start(file, info)
            if start + needed > size:
                raise _damaged(path, f"storage {storage.key!r} ends behind the file")
            starts[storage.key] = start
    return _lazy_tensors(state, path, lambda storage: starts[storage.key])


def _data_start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: behind its local header, whose extra field varies."""
    file.seek(info.header_offset)
    header = file.read(30)
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    return info.header_offset + 30 + int(name_length) + int(extra_length)


def _read_legacy(path: Path) -> dict[str, LazyArray]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest not in TRUSTED_LEGACY_SHA256:
        raise WeightsError(
            f"Expected a zip-format PyTorch checkpoint. Received: {str(path)!r} in the container that "
            "PyTorch wrote before 1.6, which is only read for known published files. In PyTorch, run "
            "torch.save(torch.load(path, weights_only=True), new_path) and load the new file."
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        header = [_TensorUnpickler(file).load() for _ in range(3)]
        if header[0] != LEGACY_MAGIC or not header[2]["little_endian"]:
            raise _damaged(path, "its header is not that of a PyTorch checkpoint")
        state = _TensorUnpickler(file).load()
        keys = _TensorUnpickler(file).load()
        storages = {tensor.storage.key: tensor.storage for tensor in _tensors(state).values()}
        starts: dict[str, int] = {}
        for key in keys:
            (count,) = struct.unpack("<q", file.read(8))
            storage = storages[key]
            starts[key] = file.tell()
            end = starts[key] + count * storage.dtype.itemsize
            if count != storage.count or end > size:
                raise _damaged(path, f"storage {key!r} has {count} numbers, expected {storage.count}")
            file.seek(end)
    return _lazy_tensors(state, path, lambda storage: starts[storage.key])


def _tensors(state: Any) -> dict[str, _Tensor]:
    if not isinstance(state, dict):
        raise pickle.UnpicklingError(f"a {type(state).__name__} instead of a state dict")
    return {str(name): value for name, value in state.items() if isinstance(value, _Tensor)}


def _lazy_tensors(state: Any, path: Path, start: Callable[[_Storage], int]) -> dict[str, LazyArray]:
    def lazy(tensor: _Tensor) -> LazyArray:
        def load() -> npt.NDArray[Any]:
            storage = tensor.storage
            flat = np.memmap(path, storage.dtype, "r", offset=start(storage), shape=(storage.count,))
            strides = [stride * storage.dtype.itemsize for stride in tensor.strides]
            view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides)
            return np.array(view)

        return LazyArray(tensor.shape, load)

    return {name: lazy(tensor) for name, tensor in _tensors(state).items()}


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(
        f"Expected a complete PyTorch checkpoint. Received: {str(path)!r}, which is damaged or not a "
        f"state dict ({why}). Download or save it again."
    )
