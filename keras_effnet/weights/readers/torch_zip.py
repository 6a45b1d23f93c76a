"""PyTorch checkpoints in the zip container that `torch.save` writes since 1.6, read without PyTorch."""

from __future__ import annotations

import zipfile
from pathlib import Path

from keras_effnet.weights.arrays import LazyArray, OpenCheckpoint, opened
from keras_effnet.weights.naming import name_tensors
from keras_effnet.weights.readers import unpickler
from keras_effnet.weights.readers.problems import damaged, guarded, too_large
from keras_effnet.weights.readers.state_dict import lazy_tensors, tensors_of
from keras_effnet.weights.readers.zipped import data_start, holds, open_zip

FORMAT = "PyTorch .pth"
DESCRIPTION = "/data.pkl"


def matches(path: Path) -> bool:
    return holds(path, DESCRIPTION)


def read(path: Path, ema: bool = True) -> OpenCheckpoint:
    """Read a state dict and name its arrays as the layers of Keras.

    Raises:
        WeightsError: damaged, or holding anything but tensors.
    """
    with guarded(path, FORMAT):
        return opened(name_tensors(read_tensors(path, ema), path))


def read_tensors(path: Path, ema: bool = True) -> dict[str, LazyArray]:
    """The tensors of a state dict, under the names that the file gives them."""
    with open_zip(path, FORMAT) as archive:
        tensors = tensors_of(unpickler.load(_description(archive, path)), ema)
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
                        path, FORMAT, f"storage {storage.key!r} is missing, too short or compressed"
                    )
                starts[storage.key] = data_start(file, info)
                if starts[storage.key] + needed > path.stat().st_size:
                    raise damaged(path, FORMAT, f"storage {storage.key!r} ends behind the file")
    return lazy_tensors(tensors, path, lambda storage: starts[storage.key])


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
                raise damaged(path, FORMAT, "its numbers are not little-endian")
    with archive.open(info) as member:
        return member.read(unpickler.MAX_PICKLE_BYTES)
