"""Zip containers of two formats, opened with a limit on what their directory may claim."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

from keras_effnet.errors import WeightsError
from keras_effnet.weights.checkpoint import guarded, too_large

# The directory of the largest variant has about 2,000 entries of some 100 bytes each.
MAX_DIRECTORY_BYTES = 4 * 2**20
END_RECORD = b"PK\x05\x06"
END_RECORD_64 = b"PK\x06\x06"
MAX_COMMENT_BYTES = 2**16
LOCAL_HEADER_BYTES = 30


def open_zip(path: Path, expected: str) -> zipfile.ZipFile:
    """Open a zip file that should be `expected`.

    Raises:
        WeightsError: damaged, or its directory claims more than `MAX_DIRECTORY_BYTES`.
    """
    with guarded(path, expected):
        _check_directory(path)
        return zipfile.ZipFile(path)


def holds(path: Path, suffix: str) -> bool:
    """Whether `path` is a zip with a member whose name ends in `suffix`."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with open_zip(path, "zip") as archive:
            return any(name.endswith(suffix) for name in archive.namelist())
    except WeightsError:
        return False


def data_start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: behind its local header, whose extra field varies."""
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER_BYTES)
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    return info.header_offset + LOCAL_HEADER_BYTES + int(name_length) + int(extra_length)


class StoredMember(io.RawIOBase):
    """An uncompressed member as a file; zipfile's own re-reads from the start to go back."""

    def __init__(self, path: Path, info: zipfile.ZipInfo) -> None:
        self.file = path.open("rb")
        self.start = data_start(self.file, info)
        self.size = info.file_size
        self.at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence])
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self.size - self.at)]
        self.file.seek(self.start + self.at)
        count = self.file.readinto(view)
        self.at += count
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


def _check_directory(path: Path) -> None:
    """Look at the size that the end record claims before zipfile reads the whole directory."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - MAX_COMMENT_BYTES - 22))
        tail = file.read()
    at = tail.rfind(END_RECORD)
    if at < 0 or len(tail) < at + 22:
        return  # no end record: zipfile says so
    (claimed,) = struct.unpack("<I", tail[at + 12 : at + 16])
    found = tail.rfind(END_RECORD_64, 0, at)  # holds the true size of a large directory
    if found >= 0 and len(tail) >= found + 48:
        claimed = max(struct.unpack("<Q", tail[found + 40 : found + 48])[0], claimed % (2**32 - 1))
    if claimed > MAX_DIRECTORY_BYTES:
        raise too_large(path, "a zip directory", claimed, MAX_DIRECTORY_BYTES)
