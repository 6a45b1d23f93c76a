"""Labelled photographs, each once: which there are, of which class, and what each is for.

Understood are a folder with a folder per class; a folder with `train/`, `validation/` and `test/` (each
with a folder per class; the last two may be missing); and a CSV file with the columns `file,label` and,
if wanted, `split`. A photograph anywhere below its class folder belongs to the class.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

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
from keras_effnet.pictures.labels import check_labels

SPLITS = ("train", "validation", "test")
UNDECIDED = -1
_TRAIN = SPLITS.index("train")
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}

_Row = tuple[str, str, int]  # file, class, index into SPLITS or UNDECIDED


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Photographs, each once.

    Attributes:
        root: the folder that the file names are relative to.
        files: their names, `dress/001.jpg`.
        labels: int32 `[N]`, indices into `classes`.
        splits: int8 `[N]`, indices into `SPLITS`, or `UNDECIDED`.
        classes: class names in the order of the outputs.
        left_out: (file, reason) of pictures that were found and belong to no class, or are of a kind
            that cannot be read.
    """

    root: Path
    files: list[str]
    labels: npt.NDArray[np.int32]
    splits: npt.NDArray[np.int8]
    classes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()

    def path(self, index: int) -> str:
        """Where photograph `index` lies."""
        return os.path.join(self.root, self.files[index])  # noqa: PTH118 - a Path per picture is slow

    def of(self, split: str) -> npt.NDArray[np.int64]:
        """The indices of a split, in the order of the list."""
        return np.flatnonzero(self.splits == SPLITS.index(split))

    def without_validation(self) -> Listing:
        """The same photographs, those for validation among the ones to train on."""
        training, validation = SPLITS.index("train"), SPLITS.index("validation")
        return replace(
            self, splits=np.where(self.splits == validation, training, self.splits).astype(np.int8)
        )

    def counts(self, split: str | None = None) -> npt.NDArray[np.int64]:
        """Photographs per class, `[classes]`; of all splits together for None."""
        labels = self.labels if split is None else self.labels[self.of(split)]
        return np.bincount(labels, minlength=len(self.classes))

    def only(self, keep: npt.NDArray[np.bool_]) -> Listing:
        """The photographs for which `keep` is True."""
        return Listing(
            root=self.root,
            files=[name for name, wanted in zip(self.files, keep, strict=True) if wanted],
            labels=self.labels[keep],
            splits=self.splits[keep],
            classes=self.classes,
            left_out=self.left_out,
        )


def read_listing(data: str | os.PathLike[str], classes: Sequence[str] = ()) -> Listing:
    """List the photographs of a folder or a CSV file.

    Args:
        data: see the module.
        classes: names to use, in this order; empty for all that are found, sorted.

    Raises:
        InvalidInputError: no such place, fewer than two classes, an empty class, classes that disagree
            with the folders or between the splits, folders that can be understood in two ways, a
            photograph that is listed twice.
    """
    place = find_data(data)
    left_out: list[LeftOut] = []
    if place.is_file():
        return _listing(place.parent, _from_csv(place), tuple(classes), left_out)
    return _listing(place, _from_folders(place, set(classes), left_out), tuple(classes), left_out)


def find_data(data: str | os.PathLike[str]) -> Path:
    """The folder or CSV file that `data` names.

    Raises:
        InvalidInputError: no such place.
    """
    place = Path(data).expanduser()
    if not (place.is_file() or place.is_dir()):
        raise InvalidInputError(
            f"Expected a folder with a folder of photographs per class, or a CSV file. Received: "
            f"{str(data)!r}, which does not exist."
        )
    return place


def _listing(
    root: Path, rows: Iterable[_Row], wanted: tuple[str, ...], left_out: Sequence[LeftOut]
) -> Listing:
    files: list[str] = []
    names: dict[str, int] = {}  # class → its number in the order of appearance
    numbers, splits = array("i"), array("b")
    training = set()
    for file, label, split in rows:
        if wanted and label not in wanted:
            continue
        files.append(file)
        numbers.append(names.setdefault(label, len(names)))
        splits.append(split)
        if split in (UNDECIDED, 0):
            training.add(label)
    classes = wanted or tuple(sorted(training))
    _check_classes(root, classes, set(names), training, left_out)
    order = np.array([classes.index(name) for name in names], np.int32)
    return Listing(
        root=root,
        files=files,
        labels=order[np.frombuffer(numbers, np.intc)] if files else np.zeros(0, np.int32),
        splits=np.array(splits, np.int8),
        classes=check_labels(classes),
        left_out=tuple(left_out),
    )


def _check_classes(
    root: Path,
    classes: tuple[str, ...],
    found: set[str],
    training: set[str],
    left_out: Sequence[LeftOut],
) -> None:
    missing = [name for name in classes if name not in training]
    if missing:
        raise InvalidInputError(
            f"Expected photographs to train on of every class. Received none of: {', '.join(missing)}. "
            f"There are: {', '.join(sorted(training)) or 'none'}."
        )
    strangers = sorted(found - set(classes))
    if strangers:
        raise InvalidInputError(
            "Expected the same classes for validation and test as for training. Received without training "
            f"photographs: {', '.join(strangers)}. Rename or remove these, or name the classes with --classes."
        )
    if len(classes) < 2:
        loose = f" ({len(left_out)} pictures in no class folder, {left_out[0][0]!r} say)" if left_out else ""
        raise InvalidInputError(
            f"Expected at least two classes to tell apart. Received: {', '.join(classes) or 'none'} in "
            f"{str(root)!r}{loose}. Each class needs a folder of its own with photographs in it."
        )


def _from_folders(root: Path, wanted: set[str], left_out: list[LeftOut]) -> Iterator[_Row]:
    """The photographs in the folders of `root`, of the wanted classes or of all.

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
        split = _split_called(name)
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
) -> Iterator[_Row]:
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


def _from_csv(path: Path) -> Iterator[_Row]:
    """The photographs that a CSV file with the columns `file,label` and perhaps `split` lists.

    Raises:
        InvalidInputError: other columns, an incomplete line, a photograph listed twice, an unreadable file.
    """
    known: set[str] = set()
    advice = "The first line must be file,label or file,label,split."
    for number, row in csv_rows(path, ("file", "label"), advice):
        found = _csv_row(row, path, number)
        file = os.path.normpath(found[0])
        if file in known:
            raise InvalidInputError(
                f"Expected each photograph once in {str(path)!r}, with one label and one split. "
                f"Received again in line {number}: {found[0]!r}. Remove one of the lines."
            )
        known.add(file)
        yield found


def _csv_row(row: dict[str, str | None], path: Path, number: int) -> _Row:
    file, label, split = ((row.get(name) or "").strip() for name in ("file", "label", "split"))
    if not file or not label:
        raise InvalidInputError(
            f"Expected a file and a label in line {number} of {str(path)!r}. Received: {file!r}, {label!r}."
        )
    index = _split_called(split) if split else UNDECIDED
    if index is None:
        raise InvalidInputError(
            f"Expected train, validation, test or nothing as the split in line {number} of {str(path)!r}. "
            f"Received: {split!r}."
        )
    return file, label, index


def _split_called(name: str) -> int | None:
    """The index in `SPLITS` of what people call `name`, in any case; None for other names."""
    for index, split in enumerate(SPLITS):
        if name.lower() in _SPLIT_NAMES[split]:
            return index
    return None
