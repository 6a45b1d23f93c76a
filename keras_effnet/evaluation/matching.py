"""Which output of a classifier a class of the photographs is: by name, by WordNet id, or by number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.labels import IMAGENET_CLASSES, imagenet_labels, imagenet_synonyms, imagenet_wnids

_SHOWN = 5  # classes that a message names


def places_of(found: Sequence[str], labels: Sequence[str], who: str) -> npt.NDArray[np.int32]:
    """The output of each class that photographs have, int32 `[len(found)]`.

    Understood are the classifier's own names, also in other case and with `_` for blanks; for the 1,000 classes of
    ImageNet WordNet ids (`n01443537`) and every synonym that one class alone has; and numbers from 0.

    Args:
        found: the classes of the photographs.
        labels: the classifier's, in the order of its outputs.
        who: the classifier, for messages.

    Raises:
        InvalidInputError: classes that the classifier lacks, or two of the photographs' that are one of its.
    """
    closest: list[str] = list(found)
    for known in _ways(labels):
        missing = [name for name in found if name not in known]
        if not missing:
            places = np.array([known[name] for name in found], np.int32)
            _check_once(places, found, labels, who)
            return places
        closest = min(closest, missing, key=len)
    raise InvalidInputError(
        f"Expected photographs of classes that {who} knows ({len(labels)}: {_some(labels)}). Received also: "
        f"{_some(closest)}. Rename these classes or leave them out; the classifier's own names, one on each line, go "
        "into --labels FILE."
    )


def _ways(labels: Sequence[str]) -> Iterator[Mapping[str, int]]:
    """The ways to name the outputs, the strictest first."""
    yield _Plain({name: index for index, name in enumerate(labels)})
    yield _Loose(_unique((_loosened(name), index) for index, name in enumerate(labels)))
    if len(labels) == IMAGENET_CLASSES and _are_imagenets(labels):
        yield _Plain({wnid: index for index, wnid in enumerate(imagenet_wnids())})
        yield _Loose(
            _unique(
                (_loosened(name), index) for index, names in enumerate(imagenet_synonyms()) for name in names
            )
        )
    yield _Numbers({str(index): index for index in range(len(labels))})


class _Plain(dict[str, int]):
    """Names as they are."""


class _Loose(_Plain):
    """Names in any case, with `_` or blanks between words."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(_loosened(str(name)))

    def __getitem__(self, name: str) -> int:
        return super().__getitem__(_loosened(name))


class _Numbers(_Plain):
    """Whole numbers, with zeros before them or not."""

    def __contains__(self, name: object) -> bool:
        return str(name).isdecimal() and super().__contains__(str(int(str(name))))

    def __getitem__(self, name: str) -> int:
        return super().__getitem__(str(int(name)))


def _loosened(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _unique(pairs: Iterator[tuple[str, int]]) -> dict[str, int]:
    """The names that mean one output alone."""
    listed = sorted(set(pairs))
    counts = Counter(name for name, _ in listed)
    return {name: index for name, index in listed if counts[name] == 1}


def _are_imagenets(labels: Sequence[str]) -> bool:
    """Whether these are ImageNet's names, or none at all, of a file that does not tell them."""
    return tuple(labels) == imagenet_labels() or labels[0] == "class 0"


def _check_once(places: npt.NDArray[np.int32], found: Sequence[str], labels: Sequence[str], who: str) -> None:
    for place, count in Counter(places.tolist()).items():
        if count > 1:
            same = [name for name, other in zip(found, places, strict=True) if other == place]
            raise InvalidInputError(
                f"Expected each class of the photographs as one of {who}. Received: {' and '.join(map(repr, same))}, "
                f"which are both {labels[place]!r}. Put their photographs under one name."
            )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
