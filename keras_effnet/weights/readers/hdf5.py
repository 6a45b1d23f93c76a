"""What the readers of HDF5 content share: opening, walking without links, checked data sets."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.weights.checkpoint import BFLOAT16, Array, LazyArray, damaged, guarded

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_OBJECTS = 30_000  # the largest variant has about 7,000 groups and data sets
MAX_DEPTH = 16
MAX_ATTRIBUTE_BYTES = 2**20  # HDF5 itself allows 64 KiB in the usual place
EXPECTED = "HDF5 weight"


def has_signature(path: Path) -> bool:
    """Whether the file starts like an HDF5 file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


@contextmanager
def open_hdf5(source: Path | io.RawIOBase, path: Path) -> Iterator[Any]:
    """Open HDF5 content read-only: a file, or what lies inside an archive at `path`.

    Raises:
        WeightsError: damaged or truncated.
    """
    import h5py

    with guarded(path, EXPECTED):
        file = h5py.File(source, "r")
    with file:
        yield file


def texts(node: Any, name: str, path: Path) -> list[str]:
    """An attribute that holds text, one or many; [] where there is none or an empty one.

    Its type is looked at before it is read: HDF5's library stops the process over some malformed
    attributes of other types.

    Raises:
        WeightsError: another type, or more text than any weight file has.
    """
    import h5py

    if name not in node.attrs:
        return []
    attribute = h5py.h5a.open(node.id, name.encode())
    if math.prod(attribute.shape or ()) == 0:  # Keras writes an empty list as no numbers
        return []
    is_text = isinstance(attribute.get_type(), h5py.h5t.TypeStringID)
    if not is_text or attribute.get_storage_size() > MAX_ATTRIBUTE_BYTES:
        raise damaged(path, EXPECTED, f"its attribute {name!r} is no text")
    values = np.atleast_1d(node.attrs[name])
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def member(group: Any, name: str, path: Path) -> Any:
    """The member `name` (`a/b/c`) of a group, reached by hard links only.

    A soft or external link could lead in circles or into another file of this machine.

    Raises:
        WeightsError: a link, or no such member.
    """
    import h5py

    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise damaged(path, EXPECTED, f"{name!r} is missing, or a link instead of an array")
        group = group[part]
    return group


def walk(root: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """Every group below `root` with its path, without following soft or external links.

    Raises:
        WeightsError: deeper, or more of them, than any weight file.
    """
    import h5py

    pending = [("", root)]
    count = 0
    while pending:
        prefix, group = pending.pop()
        for key in group:
            count += 1
            name = f"{prefix}{key}"
            if count > MAX_OBJECTS or name.count("/") > MAX_DEPTH:
                raise damaged(path, EXPECTED, "more groups than any EfficientNet has")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue
            found = group[key]
            if isinstance(found, h5py.Group):
                yield name, found
                pending.append((f"{name}/", found))


def lazy(dataset: Any, path: Path) -> LazyArray:
    """A data set as an array that is read when asked for.

    Raises:
        WeightsError: not numbers, or numbers that are not inside this file in full.
    """
    import h5py

    # HDF5 knows no bfloat16: Keras writes two bytes of no type, marked as such or not
    is_bfloat16 = isinstance(dataset, h5py.Dataset) and dataset.dtype.str == "|V2"
    is_float = isinstance(dataset, h5py.Dataset) and (dataset.dtype.kind == "f" or is_bfloat16)
    if not is_float or dataset.shape is None:
        raise WeightsError(
            f"Expected arrays of floating point numbers inside {str(path)!r}. "
            f"Received: {dataset!r}. Save the weights again."
        )
    # A compressed or sparse data set can claim any size; Keras writes neither.
    if dataset.external or dataset.is_virtual or dataset.id.get_storage_size() != dataset.nbytes:
        raise damaged(path, EXPECTED, f"{dataset.name!r} is compressed, sparse or in another file")

    if (dataset.id.get_offset() or 0) + dataset.nbytes > path.stat().st_size:
        raise damaged(path, EXPECTED, f"{dataset.name!r} ends behind the file")

    def read() -> Array:
        with guarded(path, EXPECTED):
            values = np.asarray(dataset[()])
            return values.view(BFLOAT16) if is_bfloat16 else values

    return LazyArray(tuple(dataset.shape), BFLOAT16 if is_bfloat16 else np.dtype(dataset.dtype), read)
