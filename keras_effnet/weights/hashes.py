"""Hashes of files, and the published files that they identify."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from keras_effnet.weights.catalog import CATALOG, Source, WeightSet

CHUNK_BYTES = 2**20
FULL_SHA256 = 64


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's content."""
    stat = path.stat()
    return _file_hash(path.resolve(), algorithm, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=64)
def _file_hash(path: Path, algorithm: str, *state: int) -> str:
    """The size, time and inode in `state` make a changed file a different question."""
    # these are checks for identity with what was published, not signatures
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """SHA-256 of a weight file; for a TensorFlow checkpoint, of its files' SHA-256, sorted by name."""
    if path.is_file():
        return file_hash(path)
    files = sorted(path.iterdir() if path.is_dir() else path.parent.glob(f"{path.name}.*"))
    digests = [file_hash(file) for file in files if file.is_file()]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def agrees(path: Path, published: str) -> bool:
    """Whether a file has a hash of the catalog, `md5:…` or `sha256:…` (perhaps only its start)."""
    algorithm, _, digits = published.partition(":")
    return file_hash(path, algorithm).startswith(digits)


def is_complete(published: str) -> bool:
    """Whether a hash of the catalog identifies a file beyond doubt: not just eight digits of it."""
    return published.startswith("md5:") or len(published) == len("sha256:") + FULL_SHA256


def recognize(path: Path) -> tuple[WeightSet, Source] | None:
    """The published file that `path` is, whatever its name; None for any other file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        is_hdf5 = file.read(4) == b"\x89HDF"
    algorithm = "md5" if is_hdf5 else "sha256"
    for entry in CATALOG:
        for source in entry.sources:
            if source.hash.startswith(algorithm) and agrees(path, source.hash):
                return entry, source
    return None
