"""One module per family of file formats. Each offers its `READERS`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.system.files import reachable
from keras_effnet.weights.checkpoint import Checkpoint, Reader
from keras_effnet.weights.readers import keras, pytorch, safetensors, tensorflow

READERS: tuple[Reader, ...] = (
    *tensorflow.READERS,
    *keras.READERS,
    *pytorch.READERS,
    *safetensors.READERS,
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


def _reader_of(path: Path) -> Reader:
    for reader in READERS:
        if reader.matches(path):
            return reader
    if not path.exists():
        raise no_such_file(path)
    raise WeightsError(
        f"Expected a weight file ({_known_formats()}). Received: {str(path)!r} of {path.stat().st_size} bytes, "
        "which is none of these, or is truncated. Download or save it again."
    )


def no_such_file(path: Path) -> WeightsError:
    """The error for a path where nothing is."""
    return WeightsError(
        f"Expected a weight file at {str(path)!r}. Received: no such file. Check the path; "
        f"readable formats: {_known_formats()}."
    )


def _known_formats() -> str:
    return ", ".join(reader.format for reader in READERS)
