"""The sorted table that a TensorFlow checkpoint's `.index` is: names → descriptions.

TensorFlow's own reader is C++ that may stop the whole process on a malformed file; this one raises.
Layout (LevelDB's): blocks of prefix-compressed entries, an index block, a footer of 48 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from keras_effnet.system.protobuf import varint

FOOTER_BYTES = 48
MAGIC = 0xDB4775248B80FB57
TRAILER_BYTES = 5  # compression type, checksum
UNCOMPRESSED = 0
CASTAGNOLI = 0x82F63B78  # reversed polynomial of CRC-32C
MASK_DELTA = 0xA282EAD8


def read_table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a table, in order.

    Raises:
        ValueError: not a table, truncated, or a checksum that does not match.
    """
    footer = content[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise ValueError("the footer of an index is missing")
    _, _, at = _handle(footer, 0)
    offset, size, _ = _handle(footer, at)
    used = 0
    for _, handle in _entries(_block(content, offset, size)):
        block_offset, block_size, _ = _handle(handle, 0)
        used += block_size
        if used > len(content):
            raise ValueError("its blocks overlap")
        yield from _entries(_block(content, block_offset, block_size))


def _block(content: bytes, offset: int, size: int) -> bytes:
    block = content[offset : offset + size]
    trailer = content[offset + size : offset + size + TRAILER_BYTES]
    if len(block) != size or len(trailer) != TRAILER_BYTES:
        raise ValueError("a block ends behind the file")
    if trailer[0] != UNCOMPRESSED:
        raise ValueError("a compressed block, which TensorFlow does not write")
    (expected,) = struct.unpack("<I", trailer[1:])
    if mask(crc32c(block + trailer[:1])) != expected:
        raise ValueError("the checksum of a block does not match")
    return block


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    (restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError("a block without entries")
    at = 0
    key = b""
    while at < end:
        shared, at = varint(block, at)
        fresh, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or at + fresh + length > end:
            raise ValueError("an entry ends behind its block")
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length


def _handle(content: bytes, at: int) -> tuple[int, int, int]:
    offset, at = varint(content, at)
    size, at = varint(content, at)
    return offset, size, at


def _table() -> tuple[int, ...]:
    values = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (CASTAGNOLI if value & 1 else 0)
        values.append(value)
    return tuple(values)


CRC_TABLE = _table()


def crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli), the checksum of TensorFlow's files."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def mask(crc: int) -> int:
    """The form in which a checksum is stored, so that a checksum over checksums stays meaningful."""
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF
