"""Which photographs there are, of which class, and what each is for: one list, kept once.

Understood are a folder with a folder per class; a folder with `train/`, `validation/` and `test/` (each
with a folder per class; the last two may be missing); and a CSV file with the columns `file,label` and,
if wanted, `split`. A photograph anywhere below its class folder belongs to the class.
"""

from __future__ import annotations

import csv
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keras_effnet.class_names import check_labels
from keras_effnet.errors import InvalidInputError
from keras_effnet.preprocessing import IMAGE_SUFFIXES

SPLITS = ("train", "validation", "test")
UNDECIDED = -1
_FOLDER_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Photographs, each once.

    Attributes:
        root: the folder that the file names are relative to.
        files: their names, `dress/001.jpg`.
        labels: int32 `[N]`, indices into `classes`.
        splits: int8 `[N]`, indices into `SPLITS`, or `UNDECIDED`.
        classes: class names in the order of the outputs.
    """

    root: Path
    files: list[str]
    labels: npt.NDArray[np.int32]
    splits: npt.NDArray[np.int8]
    classes: tuple[str, ...]

    def path(self, index: int) -> str:
        """Where photograph `index` lies."""
        return os.path.join(self.root, self.files[index])  # noqa: PTH118 - a Path per picture is slow

    def of(self, split: str) -> npt.NDArray[np.int64]:
        """The indices of a split, in the order of the list."""
        return np.flatnonzero(self.splits == SPLITS.index(split))

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
        )


def read_listing(data: str | os.PathLike[str], classes: Sequence[str] = ()) -> Listing:
    """List the photographs of a folder or a CSV file.

    Args:
        data: see the module.
        classes: names to use, in this order; empty for all that are found, sorted.

    Raises:
        InvalidInputError: no such place, fewer than two classes, an empty class, classes that disagree
            with the folders or between the splits.
    """
    place = Path(data).expanduser()
    if place.is_file():
        rows, root = _from_csv(place), place.parent
    elif place.is_dir():
        rows, root = _from_folders(place, set(classes)), place
    else:
        raise InvalidInputError(
            f"Expected a folder with a folder of photographs per class, or a CSV file. Received: "
            f"{str(data)!r}, which does not exist."
        )
    return _listing(root, rows, tuple(classes))


_Row = tuple[str, str, int]  # file, class, split


def _from_folders(root: Path, wanted: set[str]) -> Iterator[_Row]:
    splits = _split_folders(root)
    if not splits:
        yield from _from_classes(root, "", UNDECIDED, wanted)
        return
    for split, folder in splits.items():
        yield from _from_classes(root, folder, SPLITS.index(split), wanted)


def _split_folders(root: Path) -> dict[str, str]:
    """Split → its folder's name, if `root` has a folder called train."""
    folders = {name.lower(): name for name in _folders(root)}
    found = {
        split: folders[name] for split, names in _FOLDER_NAMES.items() for name in names if name in folders
    }
    return found if "train" in found else {}


def _from_classes(root: Path, folder: str, split: int, wanted: set[str]) -> Iterator[_Row]:
    place = root / folder
    names = _folders(place)
    missing = sorted(wanted - set(names))
    if missing and split in (UNDECIDED, 0):
        raise InvalidInputError(
            f"Expected a folder in {str(place)!r} for each of the classes asked for. Received none for: "
            f"{', '.join(missing)}. The folders are: {', '.join(names) or 'none'}."
        )
    if len(names) == 1 and len(inner := _folders(place / names[0])) > 1:
        raise InvalidInputError(
            f"Expected a folder per class in {str(place)!r}. Received one folder, {names[0]!r}, with "
            f"{len(inner)} folders in it. Pass {str(place / names[0])!r} if those are the classes."
        )
    for name in names:
        if wanted and name not in wanted:
            continue
        empty = True
        for file in _pictures(root, os.path.join(folder, name)):  # noqa: PTH118
            empty = False
            yield file, name, split
        if empty:
            raise InvalidInputError(
                f"Expected photographs in every class folder. Received: {str(place / name)!r}, which has "
                f"none ({' '.join(sorted(IMAGE_SUFFIXES))}). Remove the folder or fill it."
            )


def _folders(place: Path) -> list[str]:
    with os.scandir(place) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _pictures(root: Path, folder: str) -> Iterator[str]:
    """The pictures below a folder, sorted within each of its folders, relative to `root`."""
    with os.scandir(root / folder) as entries:
        found = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    for name, is_folder in found:
        inner = os.path.join(folder, name)  # noqa: PTH118
        if is_folder:
            yield from _pictures(root, inner)
        elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
            yield inner


def _from_csv(path: Path) -> Iterator[_Row]:
    advice = "The first line must be file,label or file,label,split."
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not {"file", "label"} <= set(reader.fieldnames or ()):
                raise InvalidInputError(
                    f"Expected the columns file and label in {str(path)!r}. Received: "
                    f"{', '.join(reader.fieldnames or ()) or 'nothing'}. {advice}"
                )
            for number, row in enumerate(reader, start=2):
                yield _csv_row(row, path, number)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(
            f"Expected a CSV file of text at {str(path)!r}. Received: {error}. {advice}"
        ) from error


def _csv_row(row: dict[str, str | None], path: Path, number: int) -> _Row:
    file, label, split = row.get("file"), row.get("label"), (row.get("split") or "").strip().lower()
    if not file or not label:
        raise InvalidInputError(
            f"Expected a file and a label in line {number} of {str(path)!r}. Received: {file!r}, {label!r}."
        )
    if not split:
        return file, label, UNDECIDED
    for index, name in enumerate(SPLITS):
        if split in _FOLDER_NAMES[name]:
            return file, label, index
    raise InvalidInputError(
        f"Expected train, validation, test or nothing as the split in line {number} of {str(path)!r}. "
        f"Received: {split!r}."
    )


def _listing(root: Path, rows: Iterable[_Row], wanted: tuple[str, ...]) -> Listing:
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
    _check_classes(root, classes, set(names), training)
    order = np.array([classes.index(name) for name in names], np.int32)
    return Listing(
        root=root,
        files=files,
        labels=order[np.frombuffer(numbers, np.intc)] if files else np.zeros(0, np.int32),
        splits=np.array(splits, np.int8),
        classes=check_labels(classes),
    )


def _check_classes(root: Path, classes: tuple[str, ...], found: set[str], training: set[str]) -> None:
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
        raise InvalidInputError(
            f"Expected at least two classes to tell apart. Received: {', '.join(classes) or 'none'} in "
            f"{str(root)!r}. Each class needs a folder of its own with photographs in it."
        )
