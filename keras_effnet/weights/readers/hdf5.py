"""What the three readers of HDF5 content share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.weights.arrays import LazyArray

SIGNATURE = b"\x89HDF\r\n\x1a\n"


def has_signature(path: Path) -> bool:
    """Whether the file starts like an HDF5 file."""
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


@contextmanager
def open_hdf5(source: Path | IO[bytes], path: Path) -> Iterator[Any]:
    """Open HDF5 content read-only; h5py's many errors become one of ours.

    Raises:
        WeightsError: damaged or truncated.
    """
    import h5py

    try:
        with h5py.File(source, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"Expected a complete HDF5 weight file. Received: {str(path)!r}, which is damaged or "
            f"truncated ({error}). Download or save it again."
        ) from error


def lazy(dataset: Any, path: Path) -> LazyArray:
    """A dataset as an array that is read when asked for."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f" or dataset.external:
        raise WeightsError(
            f"Expected arrays of floating point numbers inside {str(path)!r}. "
            f"Received: {dataset!r}. Save the weights again."
        )
    return LazyArray(tuple(dataset.shape), lambda: np.asarray(dataset[()]))
