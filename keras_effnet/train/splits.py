"""Which photographs a run uses, and for what: read once each, split, and told to people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, require
from keras_effnet.pictures.decoding import Source, UnreadablePictureError, decode_picture
from keras_effnet.pictures.folders import LeftOut
from keras_effnet.pictures.listing import SPLITS, UNDECIDED, Listing, read_listing
from keras_effnet.pictures.prefetching import READING_THREADS
from keras_effnet.system.files import shown
from keras_effnet.system.progress import Progress
from keras_effnet.train.folder import REMARKS, SKIPPED, RunFolder
from keras_effnet.train.settings import SIGMOIDS

IMBALANCE = 3.0  # the largest class over the smallest, from which on people are told
_TRAIN, _VALIDATION, _TEST = range(len(SPLITS))
_WINDOW = 256  # photographs being scanned at a time
_THUMB = 32  # JPEG decodes straight to an eighth of its size, and still reads every byte


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What reading every photograph once has shown: (index, reason) of those left out, (index, remark) of faulty ones."""

    broken: tuple[tuple[int, str], ...]
    faulty: tuple[tuple[int, str], ...]


def photographs_of(folder: RunFolder, progress: Progress) -> tuple[Listing, list[LeftOut]]:
    """The photographs of a run with their splits, and those that are left out; found once, then kept.

    Raises:
        InvalidInputError: data that cannot be used, or too few photographs of a class.
    """
    known = folder.read_listing()
    if known is not None:
        return known
    settings = folder.settings
    several = None if settings.answers is None else settings.answers == SIGMOIDS
    everything = read_listing(settings.data, settings.classes, several=several)
    with progress.bar("reading", len(everything.files)) as advance:
        found = scan(everything, advance)
    keep = np.ones(len(everything.files), bool)
    keep[[index for index, _ in found.broken]] = False
    unreadable = [(everything.files[index], reason) for index, reason in found.broken]
    faulty = [(everything.files[index], remark) for index, remark in found.faulty]
    skipped = [*unreadable, *everything.left_out]
    place = folder.write_skipped(skipped)
    try:
        listing = split_listing(
            everything.only(keep) if unreadable else everything,
            validation=settings.validation_share,
            test=settings.test_share,
            seed=settings.seed,
        )
    except InvalidInputError as error:
        if not skipped:
            raise
        file, reason = skipped[0]
        total = len(everything.files) + len(everything.left_out)
        raise InvalidInputError(
            f"{error} {len(skipped)} of {total} could not be used, {file!r} for example: {reason}. "
            f"All are listed in {str(place)!r}."
        ) from error
    if settings.refit and not len(listing.of("test")):
        raise InvalidInputError(
            "Expected test photographs to judge a refit by, which uses all others. Received none. "
            "Add a folder test/ or photographs with that split, or leave --refit out."
        )
    folder.write_remarks(faulty)
    folder.write_listing(listing)
    progress.say(
        _described(listing, unreadable, everything.left_out, faulty, weighted=settings.class_weights)
    )
    return listing, skipped


def scan(listing: Listing, progress: Callable[[int], None] = lambda _: None) -> Scan:
    """Decode every photograph once, with the code that reads it later; `progress` gets how many were done."""
    broken: list[tuple[int, str]] = []
    faulty: list[tuple[int, str]] = []
    todo = iter(range(len(listing.files)))
    with ThreadPoolExecutor(READING_THREADS) as pool:
        while window := list(islice(todo, _WINDOW)):
            for index, (reason, remarks) in zip(
                window, pool.map(lambda index: _examine(listing.source(index)), window), strict=True
            ):
                if reason:
                    broken.append((index, reason))
                elif remarks:
                    faulty.append((index, "; ".join(remarks)))
            progress(len(window))
    return Scan(broken=tuple(broken), faulty=tuple(faulty))


def _examine(source: Source) -> tuple[str, tuple[str, ...]]:
    """Why a photograph cannot be read, empty if it can; and what is wrong with it all the same."""
    try:
        return "", decode_picture(source, at_least=_THUMB).remarks
    except UnreadablePictureError as error:
        return error.reason, ()


def split_listing(listing: Listing, *, validation: float, test: float, seed: int) -> Listing:
    """Decide the split of every photograph that has none, in the same shares (0–1) of every class.

    Splits that the data has itself stay as they are. Without validation photographs some are taken
    from the training ones; without test photographs too, but only where there was no split at all.

    Raises:
        InvalidInputError: a class with too few photographs.
    """
    splits = listing.splits.copy()
    has_validation = bool((splits == _VALIDATION).any())
    decided = bool((splits != UNDECIDED).any())
    splits[splits == UNDECIDED] = _TRAIN
    shares = {}
    if not has_validation:
        shares[_VALIDATION] = validation
    if not decided and test > 0:
        shares[_TEST] = test
    _check_enough(listing, np.flatnonzero(splits == _TRAIN), 1 + len(shares))
    generator = np.random.default_rng(seed)
    for label in range(len(listing.classes) if shares else 0):
        members = generator.permutation(np.flatnonzero((splits == _TRAIN) & (listing.labels == label)))
        # scikit-learn's stratified split gives a small class no photograph where the share rounds to
        # none; here every split gets at least one
        start = 0
        for split, share in shares.items():
            count = max(1, round(share * len(members)))
            splits[members[start : start + count]] = split
            start += count
    done = replace(listing, splits=splits)
    _check_every_class(done)
    return done


def class_weights(listing: Listing) -> npt.NDArray[np.float32]:
    """A weight for each class, so that the training photographs of every class count the same in sum."""
    sklearn = require("sklearn.utils.class_weight", "train")
    # each label of each photograph
    labels = np.nonzero(listing.targets(listing.of("train")))[1]
    weights = sklearn.compute_class_weight("balanced", classes=np.arange(len(listing.classes)), y=labels)
    return np.asarray(weights, dtype=np.float32)


def photo_weights(listing: Listing) -> npt.NDArray[np.float32]:
    """A weight for each training photograph, by which every class counts the same; of several labels their mean."""
    rows = listing.targets(listing.of("train"))
    return np.asarray(rows @ class_weights(listing) / rows.sum(axis=1), np.float32)


def imbalance(listing: Listing) -> float:
    """Training photographs of the largest class over those of the smallest."""
    counts = listing.counts("train")
    return float(counts.max() / max(1, counts.min()))


def _check_enough(listing: Listing, indices: npt.NDArray[np.int64], least: int) -> None:
    counts = listing.counts_of(indices)
    few = [f"{name} ({count})" for name, count in zip(listing.classes, counts, strict=True) if count < least]
    if few:
        raise InvalidInputError(
            f"Expected at least {least} readable photographs of every class, some to train on and others to "
            f"judge with. Received: {', '.join(few)}. Add photographs, or leave these classes out with --classes."
        )


def _check_every_class(listing: Listing) -> None:
    counts = listing.counts("validation")
    empty = [name for name, count in zip(listing.classes, counts, strict=True) if count == 0]
    if empty:
        raise InvalidInputError(
            "Expected readable photographs of every class to validate with. Received none of: "
            f"{', '.join(empty)}. Add some, or leave these classes out with --classes."
        )


def data_figures(listing: Listing, skipped: list[tuple[str, str]]) -> dict[str, Any]:
    """How many photographs there are for what, as `metrics.json` tells it."""
    return {
        **{split: len(listing.of(split)) for split in ("train", "validation", "test")},
        "train_per_class": dict(zip(listing.classes, listing.counts("train").tolist(), strict=True)),
        "imbalance": imbalance(listing),
        "skipped": [{"file": file, "reason": reason} for file, reason in skipped],
    }


def _described(
    listing: Listing,
    unreadable: Sequence[tuple[str, str]],
    left_out: Sequence[tuple[str, str]],
    faulty: Sequence[tuple[str, str]],
    *,
    weighted: bool,
) -> str:
    counts = ", ".join(f"{len(listing.of(split))} {split}" for split in ("train", "validation", "test"))
    lines = [f"{len(listing.classes)} classes; photographs: {counts}"]
    for found, what, place in (
        (unreadable, "skipped {} unreadable", SKIPPED),
        (left_out, "skipped {} outside of class folders or of other kinds", SKIPPED),
        (faulty, "used {} with a fault", REMARKS),
    ):
        if found:
            names = ", ".join(shown(file) for file, _ in found[:3]) + (", …" if len(found) > 3 else "")
            lines.append(f"{what.format(len(found))}: {names} (all in {place})")
    ratio = imbalance(listing)
    if ratio >= IMBALANCE:
        advice = "weighted" if weighted else "--class-weights would weigh them alike"
        lines.append(f"imbalanced: the largest class has {ratio:.1f} times the smallest; {advice}")
    return "\n".join(lines)
