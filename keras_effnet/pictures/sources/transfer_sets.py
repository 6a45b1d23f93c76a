"""The eight data sets that the EfficientNet paper transfers to (Table 6), under short names.

Six of them tensorflow-datasets prepares; Birdsnap and FGVC Aircraft are read as their archives unpack. They lie in
its folder: prepared, or the unpacked archives below `downloads/manual/`, where tfds keeps what people fetch themselves.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.sources import tfds
from keras_effnet.pictures.sources.rows import SPLITS, FoundData, Row, Wish

TOP1, MEAN_PER_CLASS = "top-1", "mean per class"
MANUAL = "downloads/manual"
_TRAIN, _VALIDATION, _TEST = range(len(SPLITS))


@dataclass(frozen=True, kw_only=True)
class TransferSet:
    """One of the eight.

    Attributes:
        name: the short one.
        title: its own.
        classes: how many.
        train, test: photographs to train on and to judge by, as the paper counts them.
        metric: what the field reports.
        source: name in tensorflow-datasets, or the folder that the archive unpacks to.
        prepared: whether tfds prepares it.
        splits: tfds' names of train, validation and test; empty where there is none.
        megabytes: to fetch; None where nobody says.
        licence: what its authors allow.
        home: where it comes from.
    """

    name: str
    title: str
    classes: int
    train: int
    test: int
    metric: str = TOP1
    source: str
    prepared: bool = True
    splits: tuple[str, str, str] = ("train", "", "test")
    megabytes: int | None = None
    licence: str
    home: str

    @property
    def how(self) -> str:
        """How to come by it, with what that takes and what its licence says."""
        where = tfds.data_folder()
        size = f"{self.megabytes:,} MB to fetch" if self.megabytes else "of a size that nobody states"
        told = f"{self.title}, {size} ({self.licence}; {self.home})"
        if self.prepared:
            fetch = f"tfds.builder({self.source!r}).download_and_prepare() fetches and prepares it"
        else:
            fetch = f"unpack it so that {str(where / MANUAL / self.source)!r} is its folder"
        return f"It is {told}; {fetch}."


_NONE_STATED = "no licence is stated"
_RESEARCH = "for non-commercial research"
TRANSFER_SETS = {
    each.name: each
    for each in (
        TransferSet(
            name="cifar10",
            title="CIFAR-10",
            classes=10,
            train=50_000,
            test=10_000,
            source="cifar10",
            megabytes=170,
            licence=_NONE_STATED,
            home="https://www.cs.toronto.edu/~kriz/cifar.html",
        ),
        TransferSet(
            name="cifar100",
            title="CIFAR-100",
            classes=100,
            train=50_000,
            test=10_000,
            source="cifar100",
            megabytes=169,
            licence=_NONE_STATED,
            home="https://www.cs.toronto.edu/~kriz/cifar.html",
        ),
        TransferSet(
            name="birdsnap",
            title="Birdsnap",
            classes=500,
            train=47_386,
            test=2_443,
            source="birdsnap",
            prepared=False,
            licence="a list of Flickr's photographs, whose owners keep their rights; its get_birdsnap.py fetches them",
            home="https://thomasberg.org",
        ),
        TransferSet(
            name="cars",
            title="Stanford Cars",
            classes=196,
            train=8_144,
            test=8_041,
            source="cars196",
            megabytes=1_957,
            licence=_NONE_STATED,
            home="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        ),
        TransferSet(
            name="flowers",
            title="Oxford Flowers-102",
            classes=102,
            train=2_040,
            test=6_149,
            metric=MEAN_PER_CLASS,
            source="oxford_flowers102",
            splits=("train", "validation", "test"),
            megabytes=345,
            licence=_NONE_STATED,
            home="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        ),
        TransferSet(
            name="aircraft",
            title="FGVC Aircraft",
            classes=100,
            train=6_667,
            test=3_333,
            metric=MEAN_PER_CLASS,
            source="fgvc-aircraft-2013b",
            prepared=False,
            megabytes=2_750,
            licence=_RESEARCH,
            home="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        ),
        TransferSet(
            name="pets",
            title="Oxford-IIIT Pets",
            classes=37,
            train=3_680,
            test=3_369,
            metric=MEAN_PER_CLASS,
            source="oxford_iiit_pet",
            megabytes=811,
            licence="CC BY-SA 4.0",
            home="https://www.robots.ox.ac.uk/~vgg/data/pets/",
        ),
        TransferSet(
            name="food101",
            title="Food-101",
            classes=101,
            train=75_750,
            test=25_250,
            source="food101",
            splits=("train", "", "validation"),
            megabytes=4_996,
            licence="Foodspotting's photographs, for scientific fair use",
            home="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        ),
    )
}


def check_there(name: str) -> None:
    """Make sure that one of the eight is on this machine; nothing is fetched.

    Raises:
        InvalidInputError: it is not; the message says what it takes to come by it, and its licence.
        MissingExtraError: what reads it is not installed.
    """
    wanted = TRANSFER_SETS[name]
    if wanted.prepared:
        tfds.check_prepared(wanted.source, wanted.how)
    elif layout_of(place := tfds.data_folder() / MANUAL / wanted.source) is None:
        raise InvalidInputError(
            f"Expected the data set {name!r} on this machine. Received: nothing of it in {str(place)!r}. {wanted.how}"
        )


def from_transfer_set(name: str, wish: Wish) -> FoundData:
    """The photographs of one of the eight, with its own splits; raises as `check_there`, and `FoundData` as its source."""
    check_there(name)
    wanted = TRANSFER_SETS[name]
    if not wanted.prepared:
        return from_archive(tfds.data_folder() / MANUAL / wanted.source, wish)
    splits = {number: split for number, split in enumerate(wanted.splits) if split}
    return tfds.from_tfds(wanted.source, wish, splits, wanted.how)


def layout_of(place: Path) -> str | None:
    """Whose archive a folder was unpacked from: `birdsnap`, `aircraft`, or None."""
    if all((place / name).is_file() for name in ("images.txt", "test_images.txt", "species.txt")):
        return "birdsnap"
    if (place / "data" / "images_variant_train.txt").is_file():
        return "aircraft"
    return None


def from_archive(place: Path, wish: Wish) -> FoundData:
    """The photographs of an unpacked archive of Birdsnap or FGVC Aircraft.

    Raises, when the rows are read:
        InvalidInputError: a photograph is listed that the archive does not have.
    """
    if layout_of(place) == "birdsnap":
        chosen = wish.of([_TRAIN, _TEST], str(place))
        return FoundData(root=place / "download" / "images", rows=_birdsnap(place, chosen))
    chosen = wish.of([_TRAIN, _VALIDATION, _TEST], str(place))
    return FoundData(root=place / "data" / "images", rows=_aircraft(place / "data", chosen))


def _birdsnap(place: Path, chosen: list[int]) -> Iterator[Row]:
    """Photographs that its script could not fetch any more are left out, as everybody has to."""
    common = {row["id"]: row["common"] for row in _table(place / "species.txt")}
    test = {row["path"] for row in _table(place / "test_images.txt")}
    images = place / "download" / "images"
    for row in _table(place / "images.txt"):
        split = _TEST if row["path"] in test else _TRAIN
        if split in chosen and (images / row["path"]).is_file():
            yield row["path"], common[row["species_id"]], split


def _table(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)


def _aircraft(data: Path, chosen: list[int]) -> Iterator[Row]:
    for split, name in ((_TRAIN, "train"), (_VALIDATION, "val"), (_TEST, "test")):
        if split not in chosen:
            continue
        for line in (data / f"images_variant_{name}.txt").read_text(encoding="utf-8").splitlines():
            image, _, variant = line.strip().partition(" ")
            if variant:
                yield f"{image}.jpg", variant.strip(), split
