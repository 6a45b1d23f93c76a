"""Protocol buffers as they stand in a file: numbers, and where the fields of a message lie. Nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # how a field is stored
_FIXED = {_EIGHT: 8, _FOUR: 4}


class Content(Protocol):
    """Bytes, or a file in memory."""

    def __getitem__(self, place: int, /) -> int: ...


def varint(content: Content, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, and the position behind it.

    Raises:
        ValueError: a number of more than 64 bits.
        IndexError: it ends behind the content.
    """
    number = shift = 0
    while True:
        byte = content[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def fields(content: Content, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of the message between two positions: number, and where its value begins and ends.

    Raises:
        ValueError: no message, or a field that ends behind it.
    """
    at = start
    while at < end:
        key, at = varint(content, at)
        kind = key & 7
        if kind == _BYTES:
            length, at = varint(content, at)
        elif kind == _VARINT:
            _, behind = varint(content, at)
            length = behind - at
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise ValueError("a field of an unknown kind")
        if at + length > end:
            raise ValueError("a field that ends behind its message")
        yield key >> 3, at, at + length
        at += length
