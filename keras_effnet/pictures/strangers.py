"""Photographs of which no class is known, and those of none of the classes: strangers, which a threshold is to refuse."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.folders import list_images
from keras_effnet.pictures.listing import SPLITS, UNDECIDED, Listing
from keras_effnet.pictures.overlap import same_files
from keras_effnet.system.files import shown


def without_labels(root: Path, files: list[str], classes: tuple[str, ...], split: int = UNDECIDED) -> Listing:
    """Photographs below `root` whose labels say nothing, all of one split."""
    return Listing(
        root=root,
        files=files,
        labels=np.zeros(len(files), np.int32),
        splits=np.full(len(files), split, np.int8),
        classes=classes,
    )


def strangers_in(folder: str | os.PathLike[str], classes: tuple[str, ...], split: int = UNDECIDED) -> Listing:
    """The photographs of a folder and of those in it, all of one split.

    Raises:
        InvalidInputError: no such folder, or no picture in it.
    """
    root = Path(folder).expanduser()
    files = [str(path.relative_to(root)) for path in list_images(root)]
    return without_labels(root, files, classes, split)


def check_strange(strangers: Listing, listing: Listing) -> None:
    """Make sure that none is among the photographs of the classes, byte for byte.

    Raises:
        InvalidInputError: some are.
    """
    if twice := list(same_files(strangers, listing)):
        mine, known = twice[0]
        split = listing.splits[known]
        raise InvalidInputError(
            f"Expected photographs of none of the classes in {str(strangers.root)!r}. Received {len(twice)} that are among "
            f"those of the classes too, {shown(strangers.files[mine])!r} for example, which is "
            f"{shown(listing.files[known])!r} of the {f'{SPLITS[split]} ' if split >= 0 else ''}photographs. Remove them "
            "from the folder."
        )
