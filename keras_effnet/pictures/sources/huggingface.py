"""`hf:NAME[:split]`: data sets of Hugging Face's `datasets` that are on this machine. Nothing is fetched.

NAME is a folder that `save_to_disk` wrote, a folder that `load_dataset` reads, or the name of a data set in the
cache. The pictures are read from its Arrow files, where their encoded bytes stand as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError, require, require_installed
from keras_effnet.pictures.decoding import Part
from keras_effnet.pictures.sources.rows import UNDECIDED, FoundData, Row, Wish, split_called

PREFIX, EXTRA = "hf:", "hf"
_LABELS = ("label", "labels", "fine_label")  # of several class labels the one that is meant
_SAVED = ("dataset_info.json", "dataset_dict.json")  # what save_to_disk leaves
_OFFSETS = {"binary": np.int32, "large_binary": np.int64}


def split_name(text: str) -> tuple[str, str]:
    """The name of the data set and the split, empty where none is said; `text` without the prefix."""
    name, _, split = text.partition(":")
    return name, split


def check_installed() -> None:
    """Make sure that data sets can be opened.

    Raises:
        MissingExtraError: datasets is not installed.
    """
    require_installed("datasets", EXTRA)


def from_huggingface(text: str, wish: Wish) -> FoundData:
    """The pictures of a data set; `text` is `NAME[:split]`.

    Raises, some when the rows are read:
        InvalidInputError: it is not on this machine, has no such split, or no pictures with one label each.
        MissingExtraError: datasets is not installed.
    """
    name, split = split_name(text)
    opened = _opened(name)
    chosen = _chosen(opened, split, name, wish)
    image, label, classes = _features(next(iter(chosen.values())), name)
    found = [(number, list(_pictures(data, image, label, name))) for number, data in chosen.items()]
    kinds = {type(source) for _, pictures in found for source, _ in pictures}
    if len(kinds) > 1:
        raise InvalidInputError(
            f"Expected the pictures of {name!r} all in its own files or all outside. Received: both. Save it anew with "
            "save_to_disk."
        )

    def rows() -> Iterator[Row]:
        for number, pictures in found:
            for source, place in pictures:
                yield str(source), classes[place], number

    return FoundData(root=Path("/"), rows=rows(), classes=classes, packed=kinds == {Part})


def _opened(name: str) -> Any:
    """The data set, or the dictionary of its splits."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the library is first imported
    datasets = require("datasets", EXTRA)
    place = Path(name).expanduser()
    try:
        if any((place / file).is_file() for file in _SAVED):
            return datasets.load_from_disk(place)
        datasets.disable_progress_bars()
        return datasets.load_dataset(str(place) if place.exists() else name)
    except Exception as error:  # the library raises many kinds, with messages of many lines
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InvalidInputError(
            f"Expected the data set {name!r} on this machine: a folder of save_to_disk, or one in the cache of "
            f"datasets. Received: {said}. Fetch it once with datasets.load_dataset({name!r})."
        ) from error


def _chosen(opened: Any, split: str, name: str, wish: Wish) -> dict[int, Any]:
    """The wanted splits, by their indices in `SPLITS`."""
    if not isinstance(opened, Mapping):
        if split and str(opened.split) != split:
            raise _no_split(name, split, [str(opened.split)])
        return {UNDECIDED: opened}
    if split:
        if split not in opened:
            raise _no_split(name, split, list(opened))
        return {UNDECIDED: opened[split]}
    known = {number: data for each, data in opened.items() if (number := split_called(each)) is not None}
    if not known:
        raise _no_split(name, "none", list(opened))
    return {number: known[number] for number in wish.of(sorted(known), name)}


def _no_split(name: str, split: str, there: list[str]) -> InvalidInputError:
    return InvalidInputError(
        f"Expected a split of {name!r}: {', '.join(there)}. Received: {split!r}. Write {PREFIX}{name}:{there[0]}."
    )


def _features(data: Any, name: str) -> tuple[str, str, tuple[str, ...]]:
    """The columns with the picture and its class, and the names of the classes."""
    kinds = {column: type(feature).__name__ for column, feature in data.features.items()}
    images = [column for column, kind in kinds.items() if kind == "Image"]
    labels = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    if len(labels) > 1:
        labels = [column for column in _LABELS if column in labels][:1]
    if len(images) != 1 or len(labels) != 1:
        raise InvalidInputError(
            f"Expected a data set with one column of pictures (Image) and one of classes (ClassLabel). Received: {name!r} "
            f"with {', '.join(f'{column} ({kind})' for column, kind in kinds.items())}."
        )
    return images[0], labels[0], tuple(data.features[labels[0]].names)


def _pictures(data: Any, image: str, label: str, name: str) -> Iterator[tuple[str | Part, int]]:
    """Where each picture of a split lies, and the index of its class."""
    if getattr(data, "_indices", None) is not None or not data.cache_files:
        raise InvalidInputError(
            f"Expected the data set {name!r} as files on this machine. Received: a selection in memory. Save it with "
            "save_to_disk."
        )
    for file in data.cache_files:
        yield from _in_arrow_file(file["filename"], image, label, name)


def _in_arrow_file(file: str, image: str, label: str, name: str) -> Iterator[tuple[str | Part, int]]:
    arrow = require("pyarrow", EXTRA)
    whole = arrow.memory_map(file).read_buffer()
    for batch in arrow.ipc.open_stream(arrow.BufferReader(whole)):
        pictures, labels = batch.column(image), batch.column(label).to_numpy(zero_copy_only=False)
        contents, paths = pictures.field("bytes"), pictures.field("path").to_pylist()
        kind = str(contents.type)
        if kind not in _OFFSETS:
            raise _not_plain(name, file)
        _, offsets, values = contents.buffers()
        if contents.null_count == len(contents):
            yield from zip((os.path.abspath(path) for path in paths), map(int, labels), strict=True)  # noqa: PTH100
            continue
        bounds = np.frombuffer(offsets, _OFFSETS[kind])[contents.offset :].astype(np.int64)
        start = values.address - whole.address
        if not 0 <= start <= whole.size:
            raise _not_plain(name, file)
        for row, place in enumerate(labels):
            first, last = int(bounds[row]), int(bounds[row + 1])
            yield Part(file, start + first, last - first), int(place)


def _not_plain(name: str, file: str) -> InvalidInputError:
    return InvalidInputError(
        f"Expected the encoded pictures of {name!r} as plain bytes. Received: {file!r}, which stores them otherwise. "
        "Save the data set with save_to_disk."
    )
