"""TFRecord files: where in them each encoded picture lies, and its class. TensorFlow is not imported.

A record is a `tf.train.Example`; its parts are called as in ImageNet's files (`image/encoded`, `image/class/synset`,
`image/class/text` or `image/class/label`, which counts from 1) or as tfds calls them (`image`, `label`, from 0).
"""

from __future__ import annotations

import glob
import mmap
import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.decoding import Part
from keras_effnet.pictures.sources.rows import UNDECIDED, FoundData, Row, Wish, split_called
from keras_effnet.system.protobuf import fields, varint

IMAGES = ("image/encoded", "image")
LABELS = ("image/class/synset", "image/class/text", "image/class/label", "label")
_FROM_ONE = "image/class/label"  # ImageNet's own numbers; 0 was the background
_BEFORE, _BEHIND = 12, 4  # bytes around a record: its length with a checksum, and a checksum
_GZIP = b"\x1f\x8b"
_BYTES_LIST, _INT64_LIST = 1, 3  # fields of a Feature
_ADVICE = "Pass uncompressed TFRecord files of tf.train.Example with 'image/encoded' and 'image/class/label'."


def are_records(data: str) -> bool:
    """Whether a text names TFRecord files: by `.tfrecord` in it, or by wildcards where no file is called so."""
    return ".tfrecord" in Path(data).name or (any(sign in data for sign in "*?[") and not Path(data).exists())


def files_of(pattern: str) -> list[str]:
    """The files that a pattern means, sorted.

    Raises:
        InvalidInputError: there are none.
    """
    if Path(pattern).is_file():
        return [pattern]
    found = sorted(glob.glob(os.path.expanduser(pattern)))  # noqa: PTH111, PTH207 - Path.glob takes no absolute pattern
    if not found:
        raise InvalidInputError(
            f"Expected TFRecord files at {pattern!r}. Received: none. Check the path; in a shell, quote the "
            "pattern: '/data/validation-*'."
        )
    return found


def from_records(pattern: str, wish: Wish) -> FoundData:
    """The pictures in TFRecord files. Names such as `validation-00000-of-00128` tell the split.

    Raises, some when the rows are read:
        InvalidInputError: no such files, no such records in them, or none of the split asked for.
    """
    files = files_of(pattern)
    splits = {file: _split_of(file) for file in files}
    chosen = wish.of(sorted(set(splits.values())), pattern)
    root = Path(files[0]).parent

    def rows() -> Iterator[Row]:
        for file, split in splits.items():
            if split in chosen:
                for part, label in parts_of(file):
                    yield _named(part, root), label, split

    return FoundData(root=root, rows=rows(), packed=True)


def _named(part: Part, root: Path) -> str:
    name = os.path.relpath(part.file, root)
    return str(Part(name, part.start, part.length))


def _split_of(file: str) -> int:
    words = re.split(r"[-._]", Path(file).name)
    return next((index for word in words if (index := split_called(word)) is not None), UNDECIDED)


def parts_of(
    file: str, images: Sequence[str] = IMAGES, labels: Sequence[str] = LABELS
) -> Iterator[tuple[Part, str]]:
    """Each encoded picture of a TFRecord file, and its class: a text, or a number from 0 as one.

    Args:
        file: the file.
        images, labels: what the parts of a record may be called; the first that is there counts.

    Raises:
        InvalidInputError: no TFRecord file, a damaged one, or records without these parts.
    """
    path = Path(file)
    if not path.stat().st_size:
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:2] == _GZIP:
            raise _unusable(file, "a compressed file, in which nothing can be found again")
        at = 0
        while at < len(content):
            try:
                (length,) = struct.unpack_from("<Q", content, at)
                end = at + _BEFORE + length
                if end + _BEHIND > len(content):
                    raise ValueError("a record that ends behind the file")
                found = _features(content, at + _BEFORE, end)
            except (ValueError, IndexError, struct.error) as error:
                raise _unusable(file, str(error)) from error
            image = next((found[name] for name in images if name in found), None)
            label = next((name for name in labels if name in found), None)
            if image is None or label is None:
                raise _unusable(file, f"records with {', '.join(map(repr, sorted(found)))}")
            start, stop = _first(content, *image)
            yield Part(file, start, stop - start), _class(content, label, *found[label])
            at = end + _BEHIND


def _unusable(file: str, received: str) -> InvalidInputError:
    return InvalidInputError(
        f"Expected TFRecords with pictures and labels in {file!r}. Received: {received}. {_ADVICE}"
    )


def _features(content: Any, start: int, end: int) -> dict[str, tuple[int, int]]:
    """The features of an Example, and where they lie."""
    found = {}
    for _, features_start, features_end in fields(content, start, end):
        for _, entry_start, entry_end in fields(content, features_start, features_end):
            name, place = "", (entry_end, entry_end)
            for number, value_start, value_end in fields(content, entry_start, entry_end):
                if number == 1:
                    name = content[value_start:value_end].decode("utf-8")
                else:
                    place = value_start, value_end
            found[name] = place
    return found


def _first(content: Any, start: int, end: int) -> tuple[int, int]:
    """Where the first value of a feature with bytes lies."""
    for number, list_start, list_end in fields(content, start, end):
        if number == _BYTES_LIST:
            for _, value_start, value_end in fields(content, list_start, list_end):
                return value_start, value_end
    return start, start


def _class(content: Any, name: str, start: int, end: int) -> str:
    """The class that a feature says."""
    for number, list_start, list_end in fields(content, start, end):
        for _, value_start, value_end in fields(content, list_start, list_end):
            if number != _INT64_LIST:
                return str(content[value_start:value_end].decode("utf-8")).split(",")[0].strip()
            label, _ = varint(content, value_start)
            return str(label - 1 if name == _FROM_ONE else label)
    return ""
