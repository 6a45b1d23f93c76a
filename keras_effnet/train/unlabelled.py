"""Photographs without labels: which there are, and which of them a student learns from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.folders import walk_pictures
from keras_effnet.pictures.listing import SPLITS, Listing
from keras_effnet.pictures.overlap import same_files
from keras_effnet.pictures.strangers import without_labels
from keras_effnet.system.files import shown
from keras_effnet.system.progress import Progress
from keras_effnet.train.folder import SKIPPED, RunFolder
from keras_effnet.train.splits import scan


def unlabelled_photographs(folder: RunFolder, labelled: Listing, progress: Progress) -> Listing:
    """The readable photographs of a run's `--unlabelled`, each of no split and no class; found once, then kept.

    Raises:
        InvalidInputError: none can be read, or some are among the labelled ones.
    """
    root = Path(folder.settings.unlabelled or "").expanduser()
    files = folder.read_unlabelled()
    if files is None:
        left_out: list[tuple[str, str]] = []
        found = without_labels(root, list(walk_pictures(root, left_out=left_out)), labelled.classes)
        with progress.bar("reading unlabelled", len(found.files)) as advance:
            broken = scan(found, advance).broken
        for index, reason in broken:
            left_out.append((found.files[index], reason))
        files = sorted(set(found.files) - {found.files[index] for index, _ in broken})
        place = folder.add_skipped([(str(root / name), reason) for name, reason in left_out])
        if not files:
            raise InvalidInputError(
                f"Expected photographs in {str(root)!r} to learn from without labels. Received: {len(left_out)} "
                f"that cannot be used, {left_out[0][0]!r} for example: {left_out[0][1]}. All are listed in {str(place)!r}."
            )
        _check_apart(labelled, without_labels(root, files, labelled.classes))
        folder.write_unlabelled(files)
        told = f"; {len(left_out)} that cannot be used are in {SKIPPED}" if left_out else ""
        progress.say(f"photographs without labels: {len(files)}{told}")
    return without_labels(root, files, labelled.classes)


def _check_apart(labelled: Listing, unlabelled: Listing) -> None:
    """Make sure that no photograph is both: its label would be forgotten, or it would be judged by what it taught.

    Raises:
        InvalidInputError: some are, byte for byte.
    """
    twice = list(same_files(unlabelled, labelled))
    if twice:
        mine, known = twice[0]
        raise InvalidInputError(
            f"Expected photographs without labels that are not among the labelled ones too. Received {len(twice)} that "
            f"are, {shown(str(unlabelled.source(mine)))!r} for example, which is {shown(labelled.files[known])!r} of the "
            f"{SPLITS[labelled.splits[known]]} photographs. Remove them from {str(unlabelled.root)!r}."
        )


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The photographs without labels that a student learns from.

    Attributes:
        indices: int64, each as often as it is used in an epoch.
        labels: int32 `[N]`, the class that the teacher finds most probable, of all photographs.
        confidence: float32 `[N]`, that probability.
        least: below which none was taken.
    """

    indices: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    least: float

    def figures(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """What was kept of how many, in all and of each class, as JSON takes it."""
        distinct = np.unique(self.indices)
        sure = np.flatnonzero(self.confidence >= self.least)

        def counts(indices: npt.NDArray[np.int64]) -> list[int]:
            return [int(n) for n in np.bincount(self.labels[indices], minlength=len(classes))]

        rows = zip(classes, counts(sure), counts(distinct), counts(self.indices), strict=True)
        return {
            "photographs": len(self.labels),
            "confident": len(sure),
            "kept": len(distinct),
            "per_class": {name: {"confident": a, "kept": b, "with_copies": c} for name, a, b, c in rows},
        }


def choose(probabilities: npt.NDArray[np.float32], least: float) -> Chosen:
    """The photographs that a teacher is confident of, the same number of each class.

    That number is the mean of those classes of which there are any. Of more, the most confident are taken; of
    fewer, all and some again, the most confident first. The selection of Noisy Student (Xie et al. 2020,
    https://arxiv.org/abs/1911.04252, section 3.1).

    Args:
        probabilities: `[N, classes]`.
        least: probability of the most probable class, 0–1.
    """
    labels = probabilities.argmax(axis=1).astype(np.int32)
    confidence = probabilities.max(axis=1).astype(np.float32)
    ranked = np.argsort(-confidence, kind="stable")
    ranked = ranked[confidence[ranked] >= least]
    of_class = [ranked[labels[ranked] == label] for label in range(probabilities.shape[1])]
    found = [members for members in of_class if len(members)]
    count = -(-len(ranked) // len(found)) if found else 0
    indices = [np.resize(members, count) for members in found]
    return Chosen(
        indices=np.concatenate(indices) if indices else np.zeros(0, np.int64),
        labels=labels,
        confidence=confidence,
        least=least,
    )
