"""What every source of labelled photographs gives, and what is asked of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.folders import LeftOut

SPLITS = ("train", "validation", "test")
UNDECIDED = -1
SEVERAL = "|"  # between the labels of one photograph
TRAIN = SPLITS.index("train")
JUDGING = ("test", "validation", "train")  # the first of these that there is
ALL = "all"
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}

Row = tuple[str, str, int]  # file, class, index into SPLITS or UNDECIDED


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is wanted of labelled photographs.

    Attributes:
        classes: their names, in the order of the outputs; empty for all that are found.
        judging: whether they are to judge by, and not to train on.
        split: with `judging`, the split to judge by, or `"all"`; None for the test split, the validation split where
            there is none, and all photographs where nothing is split.
    """

    classes: tuple[str, ...] = ()
    judging: bool = False
    split: str | None = None

    def of(self, found: Collection[int], where: str) -> list[int]:
        """Those of the `found` splits that are wanted; `where` is what messages call the place.

        Raises:
            InvalidInputError: the split asked for is not there.
        """
        if not self.judging or self.split == ALL:
            return list(found)
        if self.split is None:
            ordered = [SPLITS.index(name) for name in JUDGING]
            best = next((index for index in ordered if index in found), None)
            return list(found) if best in (None, TRAIN) else [best]
        wanted = split_called(self.split)
        if wanted is None or wanted not in found:
            names = [SPLITS[index] for index in found if index != UNDECIDED]
            raise InvalidInputError(
                f"Expected photographs of the split {self.split!r} in {where!r}. Received: "
                f"{', '.join(names) or 'photographs without a split'}. Name one of these, or {ALL}."
            )
        return [wanted]


@dataclass(frozen=True, kw_only=True)
class FoundData:
    """Labelled photographs of one source.

    Attributes:
        root: what the files of the rows are relative to.
        rows: file, class and split of each photograph. Nothing is read before they are iterated.
        classes: in an order of the source's own; empty where it has none.
        packed: whether a row's file is the name of a `Part`.
        joined: whether a row's class may be several of them, with `SEVERAL` between.
        left_out: see `Listing`; filled while the rows are iterated.
    """

    root: Path
    rows: Iterable[Row]
    classes: tuple[str, ...] = ()
    packed: bool = False
    joined: bool = False
    left_out: list[LeftOut] = field(default_factory=list)


def split_called(name: str) -> int | None:
    """The index in `SPLITS` of what people call `name`, in any case; None for other names."""
    for index, split in enumerate(SPLITS):
        if name.lower() in _SPLIT_NAMES[split]:
            return index
    return None
