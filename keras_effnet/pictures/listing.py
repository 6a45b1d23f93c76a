"""Labelled photographs, each once: which there are, of which class, and what each is for.

Understood are, with the same names in all commands:

    DIR                         a folder per class; a photograph anywhere below its class folder belongs to the class
    DIR                         train/, validation/ and test/, each with a folder per class; to train, the last two
                                may be missing
    FILE.csv                    the columns file,label and, if wanted, split; or the folder of such a file. A label may
                                be several: dog|cat
    tfds:NAME[/config][:split]  what tensorflow-datasets has prepared on this machine
    hf:NAME[:split]             what Hugging Face's datasets has on this machine
    '/data/train-*'             TFRecord files
    cifar10 cifar100 birdsnap cars flowers aircraft pets food101    the paper's transfer data sets
    DIR                         ImageNet's validation photographs, Birdsnap or FGVC Aircraft as their archives unpack

A file or folder of that name comes before anything else. Nothing is ever fetched.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.decoding import Part
from keras_effnet.pictures.folders import LeftOut, csv_rows, entries, list_images, suffix_of
from keras_effnet.pictures.labels import check_labels
from keras_effnet.pictures.sources import huggingface, tfds
from keras_effnet.pictures.sources.class_folders import from_csv, from_folders
from keras_effnet.pictures.sources.imagenet import from_flat, is_flat
from keras_effnet.pictures.sources.records import are_records, files_of, from_records
from keras_effnet.pictures.sources.rows import ALL, SEVERAL, SPLITS, UNDECIDED, FoundData, Wish
from keras_effnet.pictures.sources.transfer_sets import (
    TRANSFER_SETS,
    check_there,
    from_archive,
    from_transfer_set,
    layout_of,
)

__all__ = [
    "SEVERAL",
    "SPLITS",
    "UNDECIDED",
    "Listing",
    "find_data",
    "photographs_in",
    "read_judged",
    "read_listing",
]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Photographs, each once.

    Attributes:
        root: the folder that the file names are relative to.
        files: their names, `dress/001.jpg`.
        labels: int32 `[N]`, indices into `classes`; of several labels the one that fewest photographs have.
        splits: int8 `[N]`, indices into `SPLITS`, or `UNDECIDED`.
        classes: class names in the order of the outputs.
        left_out: (file, reason) of pictures that were found and belong to no class, or are of a kind
            that cannot be read.
        packed: whether the files are parts of larger ones, named as `Part` does.
        marks: bool `[N, classes]`, which classes each photograph shows, where they may be several; else None.
        texts: the labels of each as they are written, `dog|cat`, where they may be several; else empty.
    """

    root: Path
    files: list[str]
    labels: npt.NDArray[np.int32]
    splits: npt.NDArray[np.int8]
    classes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    packed: bool = False
    marks: npt.NDArray[np.bool_] | None = None
    texts: tuple[str, ...] = ()

    def source(self, index: int) -> str | Part:
        """Where photograph `index` lies, for whoever reads it."""
        name = os.path.join(self.root, self.files[index])  # noqa: PTH118 - a Path per picture is slow
        return Part.named(name) if self.packed else name

    def sources(self) -> list[str | Part]:
        """`source` of every photograph."""
        return [self.source(index) for index in range(len(self.files))]

    def targets(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What is true of photographs, 1 or 0 `[n, classes]`."""
        if self.marks is not None:
            return self.marks[indices].astype(np.float32)
        rows = np.zeros((len(indices), len(self.classes)), np.float32)
        rows[np.arange(len(indices)), self.labels[indices]] = 1
        return rows

    def told(self, index: int) -> str:
        """The class of photograph `index` in words; of several labels all."""
        if self.marks is None:
            return self.classes[self.labels[index]]
        return SEVERAL.join(self.classes[label] for label in np.flatnonzero(self.marks[index]))

    def of(self, split: str) -> npt.NDArray[np.int64]:
        """The indices of a split, in the order of the list."""
        return np.flatnonzero(self.splits == SPLITS.index(split))

    def split_called(self) -> str:
        """The name of the split that all photographs are of; `all` where they are of several, or of none."""
        found = np.unique(self.splits)
        return SPLITS[found[0]] if len(found) == 1 and found[0] != UNDECIDED else ALL

    def without_validation(self) -> Listing:
        """The same photographs, those for validation among the ones to train on."""
        training, validation = SPLITS.index("train"), SPLITS.index("validation")
        return replace(
            self, splits=np.where(self.splits == validation, training, self.splits).astype(np.int8)
        )

    def counts(self, split: str | None = None) -> npt.NDArray[np.int64]:
        """Photographs per class, `[classes]`; of all splits together for None."""
        return self.counts_of(np.arange(len(self.files)) if split is None else self.of(split))

    def counts_of(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Of these photographs, those of each class, `[classes]`; one of several labels counts for each."""
        if self.marks is not None:
            return np.asarray(self.marks[indices].sum(axis=0), np.int64)
        return np.bincount(self.labels[indices], minlength=len(self.classes))

    def only(self, keep: npt.NDArray[np.bool_]) -> Listing:
        """The photographs for which `keep` is True."""
        return replace(
            self,
            files=list(compress(self.files, keep)),
            labels=self.labels[keep],
            splits=self.splits[keep],
            marks=None if self.marks is None else self.marks[keep],
            texts=tuple(compress(self.texts, keep)),
        )

    def with_one_label(self) -> Listing:
        """The same photographs, all that is written of one for the name of its only class."""
        if self.marks is None:
            return self
        names, places = np.unique(self.texts, return_inverse=True)
        classes = check_labels(names.tolist())
        return replace(self, labels=places.astype(np.int32), classes=classes, marks=None, texts=())


def read_listing(
    data: str | os.PathLike[str], classes: Sequence[str] = (), *, several: bool | None = None
) -> Listing:
    """List the photographs of a folder or a CSV file.

    Args:
        data: see the module.
        classes: names to use, in this order; empty for all that are found, sorted.
        several: whether a photograph may have several labels; None where a CSV file has such a row.

    Raises:
        InvalidInputError: no such place, fewer than two classes, an empty class, classes that disagree
            with the folders or between the splits, folders that can be understood in two ways, a
            photograph that is listed twice.
    """
    wanted = tuple(classes)
    found = _found(data, Wish(classes=wanted))
    return _listed_as(several, found, wanted, to_train=True)


def _listed_as(several: bool | None, found: FoundData, wanted: tuple[str, ...], *, to_train: bool) -> Listing:
    """With several labels or one; None for what the rows of a CSV file have."""
    if several is None and found.joined:
        found = replace(found, rows=list(found.rows))
        several = any(SEVERAL in label for _, label, _ in found.rows)
    return (_marked if several else _listing)(found, wanted, to_train=to_train)


def _marked(found: FoundData, wanted: tuple[str, ...], *, to_train: bool) -> Listing:
    """Photographs of which each may show several of the classes."""
    named = [
        (file, frozenset(name.strip() for name in label.split(SEVERAL) if name.strip()), split, label)
        for file, label, split in found.rows
    ]
    rows = [row for row in named if not wanted or row[1] & set(wanted)]
    every: set[str] = set().union(*(row[1] for row in rows))
    training: set[str] = set().union(*(row[1] for row in rows if row[2] in (UNDECIDED, 0)))
    classes = wanted or found.classes or tuple(sorted(training if to_train else every))
    if to_train:
        _check_classes(found.root, classes, set() if wanted else every, training, found.left_out)
    place = {name: index for index, name in enumerate(classes)}
    marks = np.zeros((len(rows), len(classes)), bool)
    for row, (_, names, _, _) in enumerate(rows):
        marks[row, [place[name] for name in names if name in place]] = True
    return Listing(
        root=found.root,
        files=[row[0] for row in rows],
        labels=rarest(marks),
        splits=np.array([row[2] for row in rows], np.int8),
        classes=check_labels(classes),
        left_out=tuple(found.left_out),
        packed=found.packed,
        marks=marks,
        texts=tuple(row[3] for row in rows),
    )


def rarest(marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Of the classes that each photograph shows, the one that fewest do: it is split and drawn by that."""
    counts = np.where(marks, marks.sum(axis=0), len(marks) + 1)
    return counts.argmin(axis=1).astype(np.int32)


def read_judged(data: str | os.PathLike[str], *, split: str | None = None) -> Listing:
    """List the photographs to judge a classifier by; any number of classes.

    Args:
        data: see the module.
        split: `"train"`, `"validation"`, `"test"` or `"all"`; None for the test split, else the validation split,
            and all photographs where there is neither.

    Raises:
        InvalidInputError: as of `read_listing`, or no photograph, or none of the split.
    """
    return _listed_as(None, _found(data, Wish(judging=True, split=split)), (), to_train=False)


def _found(data: str | os.PathLike[str], wish: Wish) -> FoundData:
    name, place = os.fspath(data), find_data(data)
    if place is None:
        return _named(name, wish)
    if place.is_file():
        return from_records(str(place), wish) if are_records(name) else from_csv(place, wish)
    if layout_of(place) is not None:
        return from_archive(place, wish)
    if (listed := _list_in(place)) is not None:
        return from_csv(listed, wish)
    return from_flat(place, wish) if is_flat(place) else from_folders(place, wish)


def _named(name: str, wish: Wish) -> FoundData:
    """The photographs of what is no file and no folder."""
    if name.startswith(tfds.PREFIX):
        return tfds.from_tfds(name.removeprefix(tfds.PREFIX), wish)
    if name.startswith(huggingface.PREFIX):
        return huggingface.from_huggingface(name.removeprefix(huggingface.PREFIX), wish)
    return from_transfer_set(name, wish) if name in TRANSFER_SETS else from_records(name, wish)


def _list_in(place: Path) -> Path | None:
    """The only CSV file of a folder that has photographs and no folders."""
    found = entries(place)
    lists = [place / name for name, _ in found if suffix_of(name) == ".csv"]
    return lists[0] if len(lists) == 1 and not any(is_folder for _, is_folder in found) else None


def find_data(data: str | os.PathLike[str]) -> Path | None:
    """The file or folder that `data` names, or None where it names another source that is there.

    Raises:
        InvalidInputError: no such place, or a data set that is not on this machine.
        MissingExtraError: what reads it is not installed.
    """
    name, place = os.fspath(data), Path(data).expanduser()
    if place.is_file() or place.is_dir():
        return place
    if name.startswith(tfds.PREFIX):
        tfds.check_prepared(tfds.split_name(name.removeprefix(tfds.PREFIX))[0])
    elif name.startswith(huggingface.PREFIX):
        huggingface.check_installed()
    elif name in TRANSFER_SETS:
        check_there(name)
    elif are_records(name):
        files_of(name)
    else:
        raise InvalidInputError(
            f"Expected a folder with a folder of photographs per class, or a CSV file. Received: "
            f"{name!r}, which does not exist."
        )
    return None


def full_name(data: str) -> str:
    """The same data, named so that they are found from any folder too."""
    place = Path(data).expanduser()
    return data if _is_named(data) and not place.exists() else str(place.resolve())


def _is_named(data: str) -> bool:
    """Whether a text has the form of a data set's name, and not of a path."""
    return data.startswith((tfds.PREFIX, huggingface.PREFIX)) or data in TRANSFER_SETS


def _listing(found: FoundData, wanted: tuple[str, ...], *, to_train: bool) -> Listing:
    files: list[str] = []
    names: dict[str, int] = {}  # class → its number in the order of appearance
    numbers, splits = array("i"), array("b")
    training = set()
    for file, label, split in found.rows:
        if wanted and label not in wanted:
            continue
        files.append(file)
        numbers.append(names.setdefault(label, len(names)))
        splits.append(split)
        if split in (UNDECIDED, 0):
            training.add(label)
    classes = wanted or found.classes or tuple(sorted(training if to_train else names))
    if to_train:
        _check_classes(found.root, classes, set(names), training, found.left_out)
    elif not files:
        raise _no_photographs(found)
    order = np.array([classes.index(name) for name in names], np.int32)
    return Listing(
        root=found.root,
        files=files,
        labels=order[np.frombuffer(numbers, np.intc)] if files else np.zeros(0, np.int32),
        splits=np.array(splits, np.int8),
        classes=check_labels(classes),
        left_out=tuple(found.left_out),
        packed=found.packed,
    )


def _no_photographs(found: FoundData) -> InvalidInputError:
    loose = (
        f" ({len(found.left_out)} pictures in no class folder, {found.left_out[0][0]!r} say)"
        if found.left_out
        else ""
    )
    return InvalidInputError(
        f"Expected photographs of known class in {str(found.root)!r}. Received: none{loose}. "
        "Pass a folder with a folder of photographs per class, or a CSV file with the columns file,label."
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


def photographs_in(named: Iterable[str | os.PathLike[str]]) -> list[str | Part]:
    """The photographs that are named, each once, whatever their class.

    Args:
        named: files; folders of them; CSV files with a column `file`, relative to their folder; and the other
            sources above: their test split, or what there is.

    Raises:
        InvalidInputError: a folder without pictures or one that may not be read; a CSV file that is no such list; a
            data set that is not on this machine.
    """
    found: dict[str | Part, None] = {}
    for name in named:
        path = Path(name).expanduser()
        if path.is_dir():
            found.update(dict.fromkeys(map(str, list_images(path))))
        elif suffix_of(path.name) == ".csv":
            found.update(dict.fromkeys(_listed(path)))
        elif are_records(str(path)) or (_is_named(os.fspath(name)) and not path.exists()):
            found.update(dict.fromkeys(read_judged(name).sources()))
        else:
            found[str(path)] = None
    return list(found)


def _listed(path: Path) -> Iterator[str]:
    """The files in the column `file` of a CSV file."""
    for number, row in csv_rows(path, ("file",), "Name the columns in the first line."):
        if not row["file"]:
            raise InvalidInputError(f"Expected a file in line {number} of {str(path)!r}. Received: none.")
        yield os.path.join(path.parent, row["file"])  # noqa: PTH118 - a Path per picture is slow
