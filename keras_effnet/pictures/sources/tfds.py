"""`tfds:NAME[/config][:split]`: data sets that tensorflow-datasets has prepared on this machine. Nothing is fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError, require, require_installed
from keras_effnet.pictures.decoding import Part
from keras_effnet.pictures.sources.records import parts_of
from keras_effnet.pictures.sources.rows import UNDECIDED, FoundData, Row, Wish, split_called

PREFIX, EXTRA = "tfds:", "tfds"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_INFO = "dataset_info.json"


def data_folder() -> Path:
    """Where tfds keeps what it prepared."""
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def check_prepared(name: str, advice: str = "") -> Path:
    """The folder of a prepared data set's newest version; `advice` says how else to come by it.

    Raises:
        InvalidInputError: it is not on this machine, or has several configurations and none is named.
        MissingExtraError: tensorflow-datasets is not installed.
    """
    require_installed("tensorflow_datasets", EXTRA)
    place = data_folder() / name
    found = _versions(place)
    if not found and place.is_dir():
        configurations = [each.name for each in sorted(place.iterdir()) if each.is_dir() and _versions(each)]
        if len(configurations) > 1:
            raise InvalidInputError(
                f"Expected one configuration of the data set {name!r}. Received: {PREFIX}{name}, of which there are "
                f"{', '.join(configurations)}. Write {PREFIX}{name}/{configurations[0]}, for example."
            )
        found = [version for each in configurations for version in _versions(place / each)]
    if not found:
        prepare = f"Prepare it with tfds.builder({name!r}).download_and_prepare(), or set TFDS_DATA_DIR."
        raise InvalidInputError(
            f"Expected the data set {name!r} prepared in {str(data_folder())!r}. Received: none. {advice or prepare}"
        )
    return found[-1]


def _versions(place: Path) -> list[Path]:
    """The folders of the prepared versions, the newest last."""
    found = [each for each in place.glob("*") if _VERSION.fullmatch(each.name) and (each / _INFO).is_file()]
    return sorted(found, key=lambda each: tuple(map(int, each.name.split("."))))


def split_name(text: str) -> tuple[str, str]:
    """The name of the data set and the split, empty where none is said; `text` without the prefix."""
    name, _, split = text.partition(":")
    return name.strip("/"), split


def from_tfds(text: str, wish: Wish, names: dict[int, str] | None = None, advice: str = "") -> FoundData:
    """The pictures of a prepared data set.

    Args:
        text: `NAME[/config][:split]`; a split may be one that tfds computes, `train[:90%]`.
        wish: what is wanted of them.
        names: index into `SPLITS` → the data set's name for it; None to tell by the names.
        advice: as of `check_prepared`.

    Raises, some when the rows are read:
        InvalidInputError: it is not on this machine, has no such split, or no pictures with one label each.
        MissingExtraError: tensorflow-datasets is not installed.
    """
    name, split = split_name(text)
    folder = check_prepared(name, advice)
    builder = require("tensorflow_datasets", EXTRA).builder_from_directory(folder)
    image, label, classes = _features(builder, name)
    there = names or _known_splits(builder)
    chosen = [(UNDECIDED, split)] if split else [(each, there[each]) for each in wish.of(sorted(there), name)]

    def rows() -> Iterator[Row]:
        for number, called in chosen:
            for part, place in _parts(builder, called, name, image, label):
                yield (
                    str(Part(os.path.relpath(part.file, folder), part.start, part.length)),
                    classes[int(place)],
                    number,
                )

    return FoundData(root=folder, rows=rows(), classes=classes, packed=True)


def _known_splits(builder: Any) -> dict[int, str]:
    """The splits that a data set has by names which people know; without any, all of them."""
    known = {number: name for name in builder.info.splits if (number := split_called(name)) is not None}
    return known or {UNDECIDED: "+".join(builder.info.splits)}


def _features(builder: Any, name: str) -> tuple[str, str, tuple[str, ...]]:
    """What the picture and its class are called, and the names of the classes."""
    features = builder.info.features
    keys = builder.info.supervised_keys or ("image", "label")
    kinds = [type(features[key]).__name__ if key in features else "none" for key in keys]
    if kinds != ["Image", "ClassLabel"]:
        raise InvalidInputError(
            f"Expected a data set of pictures with one label each (Image, ClassLabel). Received: {name!r} with "
            f"{' and '.join(kinds)}. Write a CSV file with the columns file,label instead."
        )
    image, label = keys
    return image, label, tuple(features[label].names)


def _parts(builder: Any, split: str, name: str, image: str, label: str) -> Iterator[tuple[Part, str]]:
    try:
        instructions = builder.info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise InvalidInputError(
            f"Expected a split of {name!r}: {', '.join(builder.info.splits)}, or a part such as train[:90%]. "
            f"Received: {split!r}."
        ) from error
    for instruction in instructions:
        file = os.fspath(instruction.filename)
        if ".tfrecord" not in Path(file).name:
            raise InvalidInputError(
                f"Expected {name!r} prepared as TFRecords. Received: {file!r}. Prepare it with "
                "file_format='tfrecord', the default of tfds."
            )
        end = instruction.examples_in_shard if instruction.take < 0 else instruction.skip + instruction.take
        for number, found in enumerate(parts_of(file, (image,), (label,))):
            if instruction.skip <= number < end:
                yield found
