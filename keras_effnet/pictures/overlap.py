"""Which photographs of one listing are in another too, byte for byte, wherever they lie."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from keras_effnet.pictures.decoding import Part, content_of
from keras_effnet.pictures.listing import Listing


def same_files(some: Listing, others: Listing) -> Iterator[tuple[int, int]]:
    """The index of each photograph of `some` that is also one of `others`, with its index there."""
    of_size: defaultdict[int, list[int]] = defaultdict(list)
    for index, source in enumerate(others.sources()):
        of_size[_size(source)].append(index)
    digests: dict[int, bytes] = {}
    for index, source in enumerate(some.sources()):
        alike = of_size.get(_size(source))
        if alike is None:
            continue
        own = _digest(source)
        for known in alike:
            if known not in digests:
                digests[known] = _digest(others.source(known))
            if digests[known] == own:
                yield index, known
                break


def _size(source: str | Part) -> int:
    return source.length if isinstance(source, Part) else Path(source).stat().st_size


def _digest(source: str | Part) -> bytes:
    return hashlib.sha256(content_of(source)).digest()
