"""Photographs by folders: a folder per class, or train, validation and test with such folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.folders import (
    IMAGE_SUFFIXES,
    KINDS,
    OTHER_PICTURES,
    entries,
    suffix_of,
    walk_pictures,
)
from keras_effnet.train.rows import SPLITS, UNDECIDED, LeftOut, Row, split_called

_TRAIN = SPLITS.index("train")


def from_folders(root: Path, wanted: set[str], left_out: list[LeftOut]) -> Iterator[Row]:
    """The photographs in the folders of `root`.

    Args:
        root: has a folder per class, or train, validation and test with a folder per class each.
        wanted: classes to read; empty for all.
        left_out: gets the pictures that are no photographs of a class.

    Raises:
        InvalidInputError: folders that are missing, empty, unreadable, or that can be meant in two ways.
    """
    splits = _split_folders(root)
    if not splits:
        yield from _from_classes(root, "", UNDECIDED, wanted, left_out)
        return
    left_out += _loose(root, "")
    for split, folder in splits.items():
        yield from _from_classes(root, folder, split, wanted, left_out)


def _split_folders(root: Path) -> dict[int, str]:
    """Split → its folder's name, if the folders of `root` are train, validation and test, not classes."""
    found: dict[int, list[str]] = {}
    others: list[str] = []
    for name in _folders(root):
        split = split_called(name)
        (others if split is None else found.setdefault(split, [])).append(name)
    training = found.get(_TRAIN, [])
    nested = any(_folders(root / name) for name in training)
    if not found or (others and not nested):
        return {}  # with photographs in it and classes beside it, train is a class that is called so
    if others:
        raise InvalidInputError(
            f"Expected train, validation and test alone in {str(root)!r}, or a folder per class. Received: "
            f"{', '.join(others)} beside {training[0]!r}, which has folders in it. Move "
            f"{'it' if len(others) == 1 else 'them'} elsewhere, or rename {training[0]!r} if it is a class."
        )
    for names in found.values():
        if len(names) > 1:
            raise InvalidInputError(
                f"Expected one folder for each split in {str(root)!r}. Received: {' and '.join(names)}. "
                "Put their photographs into one."
            )
    if not training:
        raise InvalidInputError(
            f"Expected a folder train in {str(root)!r}. Received: "
            f"{', '.join(name for names in found.values() for name in names)} alone. Rename the one to train on."
        )
    return {split: names[0] for split, names in found.items()}


def _from_classes(
    root: Path, folder: str, split: int, wanted: set[str], left_out: list[LeftOut]
) -> Iterator[Row]:
    place = root / folder
    names = _folders(place)
    missing = sorted(wanted - set(names))
    if missing and split in (UNDECIDED, _TRAIN):
        raise InvalidInputError(
            f"Expected a folder in {str(place)!r} for each of the classes asked for. Received none for: "
            f"{', '.join(missing)}. The folders are: {', '.join(names) or 'none'}."
        )
    if len(names) == 1 and len(inner := _folders(place / names[0])) > 1:
        raise InvalidInputError(
            f"Expected a folder per class in {str(place)!r}. Received one folder, {names[0]!r}, with "
            f"{len(inner)} folders in it. Pass {str(place / names[0])!r} if those are the classes."
        )
    left_out += _loose(root, folder)
    for name in names:
        if wanted and name not in wanted:
            continue
        empty, before = True, len(left_out)
        for file in walk_pictures(root, os.path.join(folder, name), left_out=left_out):  # noqa: PTH118
            empty = False
            yield file, name, split
        if empty:
            others = f", and {len(left_out) - before} that cannot be used" if left_out[before:] else ""
            raise InvalidInputError(
                f"Expected photographs in every class folder. Received: {str(place / name)!r}, which has "
                f"none ({KINDS}){others}. Remove the folder or fill it."
            )


def _folders(place: Path) -> list[str]:
    return [name for name, is_folder in entries(place) if is_folder]


def _loose(root: Path, folder: str) -> Iterator[LeftOut]:
    """The pictures that lie where only class folders should."""
    for name, is_folder in entries(root / folder):
        if not is_folder and suffix_of(name) in IMAGE_SUFFIXES | OTHER_PICTURES:
            yield os.path.join(folder, name), "in no class folder"  # noqa: PTH118
