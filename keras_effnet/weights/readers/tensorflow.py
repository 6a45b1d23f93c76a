"""TensorFlow checkpoints of the reference code: a directory, the prefix of its files, or a `.tar.gz`.

`PREFIX.index` says where in `PREFIX.data-00000-of-00001` each variable lies. The graph (`.meta`) is
never looked at. An archive is unpacked member by member into a temporary folder that is deleted after
reading.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.system.files import reachable
from keras_effnet.system.quiet import quiet_native
from keras_effnet.weights.checkpoint import (
    BFLOAT16,
    CHUNK_BYTES,
    MAX_RANK,
    Checkpoint,
    LazyArray,
    OpenCheckpoint,
    Reader,
    damaged,
    guarded,
    in_file,
    opened,
    too_large,
)
from keras_effnet.weights.naming import tensorflow as tensorflow_naming
from keras_effnet.weights.readers.sstable import read_table

FORMAT = "TensorFlow checkpoint"
MAX_INDEX_BYTES = 16 * 2**20  # the largest variant's has 1 MB
MAX_SHARDS = 1024
# numbers of TensorFlow's DataType
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
    14: BFLOAT16,
    19: np.dtype("<f2"),
}

ARCHIVE_FORMAT = "TensorFlow checkpoint .tar.gz"
GZIP_SIGNATURE = b"\x1f\x8b\x08"
MAX_UNPACKED_BYTES = 12 * 2**30  # L2 with averages and optimizer state
MAX_RATIO = 20  # trained numbers hardly compress; a bomb does a thousandfold
FREE_BYTES = 64 * 2**20  # small archives may compress better: graphs are text
MAX_MEMBERS = 1000


def is_checkpoint(path: Path) -> bool:
    return path.is_dir() or _index_of(path).is_file()


def read(path: Path, ema: bool = True) -> OpenCheckpoint:
    """Read the variables of a checkpoint.

    Args:
        path: a directory with one checkpoint, a prefix, or one of its files.
        ema: take the exponential moving averages, as published; False for the raw variables.

    Raises:
        WeightsError: damaged, of another network, or a directory without one clear checkpoint.
    """
    prefix = _prefix_in(path) if path.is_dir() else _index_of(path).with_suffix("")
    with guarded(path, FORMAT):
        layers = tensorflow_naming.to_layers(read_variables(prefix), path, ema)
    return opened(Checkpoint(layers, naming="tensorflow"))


def read_variables(prefix: Path) -> dict[str, LazyArray]:
    """Every variable of numbers, by name.

    Raises:
        WeightsError: damaged.
    """
    index = Path(f"{prefix}.index")
    size = index.stat().st_size
    if size > MAX_INDEX_BYTES:
        raise too_large(index, "an index", size, MAX_INDEX_BYTES)
    with guarded(index, FORMAT):
        entries = dict(read_table(index.read_bytes()))
        shards = _shard_count(entries.pop(b"", b""), index)
        return {name.decode(): _variable(entry, prefix, shards) for name, entry in entries.items()}


def _messages() -> Any:
    """The descriptions of an index; TensorFlow, which has them, says nothing while it is imported."""
    with nullcontext() if "tensorflow" in sys.modules else quiet_native():
        from tensorflow.core.protobuf import tensor_bundle_pb2
    return tensor_bundle_pb2


def _shard_count(header: bytes, index: Path) -> int:
    from google.protobuf.message import DecodeError

    try:
        parsed = _messages().BundleHeaderProto.FromString(header)
    except DecodeError as error:
        raise damaged(index, FORMAT, "its header cannot be read") from error
    if not 1 <= parsed.num_shards <= MAX_SHARDS or parsed.endianness != parsed.LITTLE:
        raise damaged(index, FORMAT, f"{parsed.num_shards} shards, or numbers that are not little-endian")
    return int(parsed.num_shards)


def _variable(entry: bytes, prefix: Path, shards: int) -> LazyArray:
    from google.protobuf.message import DecodeError

    try:
        parsed = _messages().BundleEntryProto.FromString(entry)
    except DecodeError as error:
        raise damaged(prefix, FORMAT, "an entry of its index cannot be read") from error
    shape = tuple(int(dim.size) for dim in parsed.shape.dim)
    dtype = DTYPES.get(parsed.dtype)
    if dtype is None or parsed.slices or len(shape) > MAX_RANK or any(side < 0 for side in shape):
        raise damaged(prefix, FORMAT, f"a variable of type {parsed.dtype} and shape {list(shape)}")
    file = Path(f"{prefix}.data-{parsed.shard_id:05d}-of-{shards:05d}")
    if parsed.size != math.prod(shape) * dtype.itemsize or parsed.offset < 0:
        raise damaged(prefix, FORMAT, f"a variable of shape {list(shape)} with {parsed.size} bytes")
    if not file.is_file() or parsed.offset + parsed.size > file.stat().st_size:
        raise damaged(file, FORMAT, "the file is missing, or a variable ends behind it")
    return in_file(file, dtype, parsed.offset, shape)


def _index_of(path: Path) -> Path:
    """`x.index` for the prefix `x` and for any of the checkpoint's files."""
    stem = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name)
    return path.with_name(f"{stem}.index")


def _prefix_in(directory: Path) -> Path:
    """The checkpoint of a directory: the only one, or the one that the `checkpoint` file names."""
    with reachable(directory, "a directory with a checkpoint that can be read", WeightsError):
        # Path.glob takes a folder that may not be read for an empty one
        names = sorted(path.name for path in directory.iterdir() if path.suffix == ".index")
    prefixes = [name.removesuffix(".index") for name in names]
    chosen = next(iter(prefixes), "")
    if len(prefixes) > 1:
        chosen = _latest(directory / "checkpoint")
    if chosen not in prefixes:
        raise WeightsError(
            f"Expected a directory with one TensorFlow checkpoint (PREFIX.index). Received: "
            f"{str(directory)!r} with {len(prefixes)} of them. Pass the prefix of one, for example "
            f"{str(directory / next(iter(prefixes), 'model.ckpt'))!r}."
        )
    return directory / chosen


def _latest(state: Path) -> str:
    """The name, never the path, that a `checkpoint` file calls the latest."""
    if not state.is_file():
        return ""
    with state.open("rb") as file:
        text = file.read(2**16).decode("utf-8", "replace")
    found = re.search(r'^model_checkpoint_path: "([^"]*)"', text, re.MULTILINE)
    return found[1].rsplit("/")[-1] if found else ""


def is_archive(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(262)
    return start.startswith(GZIP_SIGNATURE) or start[257:262] == b"ustar"


@contextmanager
def read_archive(path: Path, ema: bool = True) -> Iterator[Checkpoint]:
    """Unpack and read.

    Raises:
        WeightsError: damaged; a member that would leave the folder; more content than any
            checkpoint has.
    """
    with tempfile.TemporaryDirectory(prefix="keras-effnet-") as folder:
        target = Path(folder)
        unpack(path, target)
        with read(_checkpoint_folder(target), ema) as checkpoint:
            yield checkpoint


def unpack(path: Path, target: Path) -> None:
    """Write the regular files of a tar archive below `target`, and nothing anywhere else."""
    limit = min(MAX_UNPACKED_BYTES, MAX_RATIO * path.stat().st_size + FREE_BYTES)
    written = 0
    with (
        guarded(path, ARCHIVE_FORMAT),
        _content(path) as content,
        tarfile.open(fileobj=content, mode="r:") as archive,
    ):
        for count, member in enumerate(archive):
            if count > MAX_MEMBERS or written + max(0, member.size) > limit:
                raise too_large(path, "unpacked content", written + member.size, limit)
            place = _place(member, target, path)
            source = archive.extractfile(member) if member.isreg() else None
            if source is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
                written += _copy(source, place)
    if not written:
        raise damaged(path, ARCHIVE_FORMAT, "it holds no file")


def _content(path: Path) -> _Bounded:
    with path.open("rb") as file:
        zipped = file.read(len(GZIP_SIGNATURE)) == GZIP_SIGNATURE
    opener: Any = gzip.open if zipped else open
    return _Bounded(opener(path, "rb"))


class _Bounded(io.RawIOBase):
    """A file that is never read in large pieces: tarfile reads a header of any claimed size at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= CHUNK_BYTES:
            raise ValueError(f"a header of {size} bytes")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def close(self) -> None:
        self.file.close()
        super().close()


def _place(member: tarfile.TarInfo, target: Path, path: Path) -> Path:
    name = PurePosixPath(member.name)
    kind = "link or device" if not (member.isreg() or member.isdir()) else ""
    if kind or name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in member.name:
        raise WeightsError(
            f"Expected an archive of plain files that stay inside their folder. Received: {str(path)!r} with "
            f"the {kind or 'path'} {member.name!r}. Do not trust this file; get it from its publisher."
        )
    return target.joinpath(*name.parts)


def _copy(content: IO[bytes], place: Path) -> int:
    written = 0
    with place.open("xb") as file:
        while chunk := content.read(CHUNK_BYTES):
            try:
                written += file.write(chunk)
            except OSError as error:
                raise WeightsError(
                    f"Expected room to unpack a checkpoint in {str(place.parent)!r}. Received: {error}. "
                    "Free some space, or set TMPDIR to another disk."
                ) from error
    return written


def _checkpoint_folder(target: Path) -> Path:
    folders = sorted({index.parent for index in target.rglob("*.index")})
    return folders[0] if len(folders) == 1 else target


READERS = (Reader(FORMAT, is_checkpoint, read), Reader(ARCHIVE_FORMAT, is_archive, read_archive))
