"""Which photographs there are, of which class, and what each is for: one list, kept once.

Understood are a folder with a folder per class; a folder with `train/`, `validation/` and `test/` (each
with a folder per class; the last two may be missing); and a CSV file with the columns `file,label` and,
if wanted, `split`. A photograph anywhere below its class folder belongs to the class.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.labels import check_labels
from keras_effnet.train.csv_rows import from_csv
from keras_effnet.train.folder_rows import from_folders
from keras_effnet.train.rows import SPLITS, UNDECIDED, LeftOut, Row

__all__ = ["SPLITS", "UNDECIDED", "Listing", "find_data", "read_listing"]


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
        return _listing(place.parent, from_csv(place), tuple(classes), left_out)
    return _listing(place, from_folders(place, set(classes), left_out), tuple(classes), left_out)


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
    root: Path, rows: Iterable[Row], wanted: tuple[str, ...], left_out: Sequence[LeftOut]
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
