"""A folder with a folder of photographs per class, or a CSV file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.folders import (
    IMAGE_SUFFIXES,
    KINDS,
    OTHER_PICTURES,
    LeftOut,
    csv_rows,
    entries,
    suffix_of,
    walk_pictures,
)
from keras_effnet.pictures.sources.rows import TRAIN, UNDECIDED, FoundData, Row, Wish, split_called

LABELS = ("label", "wnid", "class_index")  # columns of a CSV file; the first that is there counts
_ADVICE = "The first line must be file,label or file,label,split."


def from_folders(root: Path, wish: Wish) -> FoundData:
    """The photographs in the folders of `root`, of the wanted classes or of all.

    Raises, when the rows are read:
        InvalidInputError: folders that are missing, empty, unreadable, or that can be meant in two ways.
    """
    left_out: list[LeftOut] = []
    return FoundData(root=root, rows=_from_folders(root, wish, left_out), left_out=left_out)


def from_csv(path: Path, wish: Wish) -> FoundData:
    """The photographs that a CSV file with the columns `file,label` and perhaps `split` lists.

    Raises, when the rows are read:
        InvalidInputError: other columns, an incomplete line, a photograph listed twice, an unreadable file.
    """
    rows = _from_csv(path)
    if wish.judging:
        listed = list(rows)
        splits = set(wish.of(sorted({row[2] for row in listed}), str(path)))
        rows = iter(row for row in listed if row[2] in splits)
    return FoundData(root=path.parent, rows=rows, joined=True)


def _from_folders(root: Path, wish: Wish, left_out: list[LeftOut]) -> Iterator[Row]:
    splits = _split_folders(root, to_train=not wish.judging)
    wanted = set(wish.classes)
    chosen = wish.of(splits or [UNDECIDED], str(root))
    if not splits:
        yield from _from_classes(root, "", UNDECIDED, wanted, left_out)
        return
    left_out += _loose(root, "")
    for split, folder in splits.items():
        if split in chosen:
            yield from _from_classes(root, folder, split, wanted, left_out)


def _split_folders(root: Path, *, to_train: bool) -> dict[int, str]:
    """Split → its folder's name, if the folders of `root` are train, validation and test, not classes."""
    found: dict[int, list[str]] = {}
    others: list[str] = []
    for name in _folders(root):
        split = split_called(name)
        (others if split is None else found.setdefault(split, [])).append(name)
    training = found.get(TRAIN, [])
    telling = training if to_train else [name for names in found.values() for name in names]
    nested = any(_folders(root / name) for name in telling)
    if not found or (others and not nested):
        return {}  # with photographs in it and classes beside it, train is a class that is called so
    if others:
        raise InvalidInputError(
            f"Expected train, validation and test alone in {str(root)!r}, or a folder per class. Received: "
            f"{', '.join(others)} beside {telling[0]!r}, which has folders in it. Move "
            f"{'it' if len(others) == 1 else 'them'} elsewhere, or rename {telling[0]!r} if it is a class."
        )
    for names in found.values():
        if len(names) > 1:
            raise InvalidInputError(
                f"Expected one folder for each split in {str(root)!r}. Received: {' and '.join(names)}. "
                "Put their photographs into one."
            )
    if to_train and not training:
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
    if missing and split in (UNDECIDED, TRAIN):
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


def _from_csv(path: Path) -> Iterator[Row]:
    known: set[str] = set()
    label = _label_column(path)
    for number, row in csv_rows(path, ("file", label), _ADVICE):
        found = _csv_row(row, label, path, number)
        file = os.path.normpath(found[0])
        if file in known:
            raise InvalidInputError(
                f"Expected each photograph once in {str(path)!r}, with one label and one split. "
                f"Received again in line {number}: {found[0]!r}. Remove one of the lines."
            )
        known.add(file)
        yield found


def _label_column(path: Path) -> str:
    _, first = next(csv_rows(path, (), _ADVICE), (0, {}))
    return next((name for name in LABELS if name in first), LABELS[0])


def _csv_row(row: dict[str, str | None], column: str, path: Path, number: int) -> Row:
    file, label, split = ((row.get(name) or "").strip() for name in ("file", column, "split"))
    if not file or not label:
        raise InvalidInputError(
            f"Expected a file and a label in line {number} of {str(path)!r}. Received: {file!r}, {label!r}."
        )
    index = split_called(split) if split else UNDECIDED
    if index is None:
        raise InvalidInputError(
            f"Expected train, validation, test or nothing as the split in line {number} of {str(path)!r}. "
            f"Received: {split!r}."
        )
    return file, label, index
