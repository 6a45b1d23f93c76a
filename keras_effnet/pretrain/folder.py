"""The folder of a run from scratch: what lies in it, and whether a run may begin there."""

from __future__ import annotations

from pathlib import Path

from keras_effnet.errors import InvalidInputError
from keras_effnet.system.files import check_writable

SETTINGS, HISTORY = "recipe.json", "history.csv"


def check_free(folder: Path) -> None:
    """Make sure that a run can begin in a folder.

    Raises:
        InvalidInputError: there is something in it already, or it cannot be written to.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInputError(
            f"Expected a folder that does not exist yet, or is empty. Received: {str(folder)!r}. "
            "Choose another one, or pass resume=True (--resume) to go on with the run in it."
        )
    check_writable(folder / SETTINGS)
