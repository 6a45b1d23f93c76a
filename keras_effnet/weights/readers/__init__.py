"""One module per file format. Each offers `FORMAT`, `matches(path)` and `read(path, ema)`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from keras_effnet.errors import WeightsError
from keras_effnet.system.files import reachable
from keras_effnet.weights.arrays import Checkpoint
from keras_effnet.weights.readers import (
    keras_archive,
    keras_legacy_h5,
    keras_v3_h5,
    safetensors,
    tf_archive,
    tf_checkpoint,
    torch_legacy,
    torch_zip,
)

READERS: tuple[ModuleType, ...] = (
    tf_checkpoint,
    keras_archive,
    torch_zip,
    keras_v3_h5,
    keras_legacy_h5,
    tf_archive,
    torch_legacy,
    safetensors,
)


@contextmanager
def open_checkpoint(path: str | os.PathLike[str], *, ema: bool = True) -> Iterator[Checkpoint]:
    """Open weights with the reader that recognizes their content; the file's name does not matter.

    Args:
        path: a file, or a TensorFlow checkpoint's directory or prefix.
        ema: where a checkpoint holds exponential moving averages, take them (they are what was
            published); False for the raw values.

    Raises:
        WeightsError: no such file, one that may not be read, damaged, or of no known format.
    """
    path = Path(path)
    with reachable(path, "a weight file that can be read", WeightsError):
        reader = _reader_of(path)
    with reader.read(path, ema) as checkpoint:
        yield checkpoint


def _reader_of(path: Path) -> ModuleType:
    for reader in READERS:
        if reader.matches(path):
            return reader
    known = ", ".join(reader.FORMAT for reader in READERS)
    if not path.exists():
        raise WeightsError(
            f"Expected a weight file at {str(path)!r}. Received: no such file. Check the path; "
            f"readable formats: {known}."
        )
    raise WeightsError(
        f"Expected a weight file ({known}). Received: {str(path)!r} of {path.stat().st_size} bytes, "
        "which is none of these, or is truncated. Download or save it again."
    )
