"""Which photographs of one listing are in another too, byte for byte, wherever they lie."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from keras_effnet.pictures.decoding import Part
from keras_effnet.pictures.listing import Listing


def same_files(some: Listing, others: Listing) -> Iterator[tuple[int, int]]:
    """The index of each photograph of `some` that is also one of `others`, with its index there."""
    of_size: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(others.files)):
        of_size[_size(others.source(index))].append(index)
    digests: dict[int, bytes] = {}
    for index in range(len(some.files)):
        alike = of_size.get(_size(some.source(index)))
        if alike is None:
            continue
        own = _digest(some.source(index))
        for known in alike:
            if known not in digests:
                digests[known] = _digest(others.source(known))
            if digests[known] == own:
                yield index, known
                break


def _size(source: str | Part) -> int:
    return source.length if isinstance(source, Part) else Path(source).stat().st_size


def _digest(source: str | Part) -> bytes:
    if isinstance(source, Part):
        with Path(source.file).open("rb") as stream:
            stream.seek(source.start)
            return hashlib.sha256(stream.read(source.length)).digest()
    with Path(source).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
