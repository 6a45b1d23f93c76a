"""Which photographs of one listing are in another too, byte for byte, wherever they lie."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from keras_effnet.pictures.listing import Listing


def same_files(some: Listing, others: Listing) -> Iterator[tuple[int, int]]:
    """The index of each photograph of `some` that is also one of `others`, with its index there."""
    of_size: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(others.files)):
        of_size[Path(others.path(index)).stat().st_size].append(index)
    digests: dict[int, bytes] = {}
    for index in range(len(some.files)):
        alike = of_size.get(Path(some.path(index)).stat().st_size)
        if alike is None:
            continue
        own = _digest(some.path(index))
        for known in alike:
            if known not in digests:
                digests[known] = _digest(others.path(known))
            if digests[known] == own:
                yield index, known
                break


def _digest(path: str) -> bytes:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
