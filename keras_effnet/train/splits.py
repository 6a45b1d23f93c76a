"""Which photographs train, which choose, and which judge; and whether there are enough of each class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, require
from keras_effnet.train.listing import SPLITS, UNDECIDED, Listing

IMBALANCE = 3.0  # the largest class over the smallest, from which on people are told
_TRAIN, _VALIDATION, _TEST = range(len(SPLITS))


def split_listing(listing: Listing, *, validation: float, test: float, seed: int) -> Listing:
    """Decide the split of every photograph that has none, in the same shares of every class.

    Splits that the data has itself stay as they are. Without validation photographs some are taken
    from the training ones; without test photographs too, but only where there was no split at all.

    Args:
        listing: what there is.
        validation, test: shares, 0–1.
        seed: the same seed gives the same split.

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
    labels = listing.labels[listing.of("train")]
    weights = sklearn.compute_class_weight("balanced", classes=np.arange(len(listing.classes)), y=labels)
    return np.asarray(weights, dtype=np.float32)


def imbalance(listing: Listing) -> float:
    """Training photographs of the largest class over those of the smallest."""
    counts = listing.counts("train")
    return float(counts.max() / max(1, counts.min()))


def _check_enough(listing: Listing, indices: npt.NDArray[np.int64], least: int) -> None:
    counts = np.bincount(listing.labels[indices], minlength=len(listing.classes))
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
