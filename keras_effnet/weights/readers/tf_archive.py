"""The reference checkpoints as they are published: a `.tar.gz` with one checkpoint in it.

It is unpacked member by member into a temporary folder that is deleted after reading.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from keras_effnet.errors import WeightsError
from keras_effnet.weights.arrays import Checkpoint
from keras_effnet.weights.readers import tf_checkpoint
from keras_effnet.weights.readers.problems import damaged, guarded, too_large

FORMAT = "TensorFlow checkpoint .tar.gz"
GZIP_SIGNATURE = b"\x1f\x8b\x08"
MAX_UNPACKED_BYTES = 12 * 2**30  # L2 with averages and optimizer state
MAX_RATIO = 20  # trained numbers hardly compress; a bomb does a thousandfold
FREE_BYTES = 64 * 2**20  # small archives may compress better: graphs are text
MAX_MEMBERS = 1000
CHUNK_BYTES = 2**20


def matches(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(262)
    return start.startswith(GZIP_SIGNATURE) or start[257:262] == b"ustar"


@contextmanager
def read(path: Path, ema: bool = True) -> Iterator[Checkpoint]:
    """Unpack and read.

    Raises:
        WeightsError: damaged; a member that would leave the folder; more content than any
            checkpoint has.
    """
    with tempfile.TemporaryDirectory(prefix="keras-effnet-") as folder:
        target = Path(folder)
        unpack(path, target)
        with tf_checkpoint.read(_checkpoint_folder(target), ema) as checkpoint:
            yield checkpoint


def unpack(path: Path, target: Path) -> None:
    """Write the regular files of a tar archive below `target`, and nothing anywhere else.

    Raises:
        WeightsError: as in `read`.
    """
    limit = min(MAX_UNPACKED_BYTES, MAX_RATIO * path.stat().st_size + FREE_BYTES)
    written = 0
    with (
        guarded(path, FORMAT),
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
        raise damaged(path, FORMAT, "it holds no file")


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
