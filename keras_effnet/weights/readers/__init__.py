"""One module per file format. Each offers `matches(path)` and `read(path)`."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from keras_effnet.errors import WeightsError
from keras_effnet.weights.arrays import OpenCheckpoint
from keras_effnet.weights.readers import keras_archive, keras_legacy_h5, keras_v3_h5, torch_pickle

READERS: tuple[ModuleType, ...] = (keras_archive, keras_v3_h5, keras_legacy_h5, torch_pickle)


def open_checkpoint(path: str | os.PathLike[str]) -> OpenCheckpoint:
    """Open a weight file with the reader that recognizes its content.

    Raises:
        WeightsError: no such file, empty, or of no known format.
    """
    path = Path(path)
    known = ", ".join(reader.FORMAT for reader in READERS)
    if not path.is_file():
        kind = "a directory" if path.is_dir() else "no such file"
        raise WeightsError(
            f"Expected a weight file at {str(path)!r}. Received: {kind}. Check the path; "
            f"readable formats: {known}."
        )
    for reader in READERS:
        if reader.matches(path):
            checkpoint: OpenCheckpoint = reader.read(path)
            return checkpoint
    raise WeightsError(
        f"Expected a weight file ({known}). Received: {str(path)!r} of {path.stat().st_size} bytes, "
        "which is none of these, or is truncated. Download or save it again."
    )
