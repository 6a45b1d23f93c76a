"""Zip containers of two formats, opened with a limit on what their directory may claim."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.weights.readers.problems import guarded, too_large

# The directory of the largest variant has about 2,000 entries of some 100 bytes each.
MAX_DIRECTORY_BYTES = 4 * 2**20
END_RECORD = b"PK\x05\x06"
END_RECORD_64 = b"PK\x06\x06"
MAX_COMMENT_BYTES = 2**16


def open_zip(path: Path, expected: str) -> zipfile.ZipFile:
    """Open a zip file whose directory is of a sane size.

    Args:
        path: the file.
        expected: what it should be, for messages.

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
