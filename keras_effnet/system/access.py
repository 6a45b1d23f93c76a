"""What the system says about a path that it does not let us look at, in one line of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from keras_effnet.errors import EffNetError, InvalidInputError


def system_said(error: OSError) -> str:
    """The reason of a failure in a few words. Libraries (h5py) put texts of many lines into `strerror`."""
    text = os.strerror(error.errno) if error.errno else str(error)
    return " ".join(text.split())


@contextmanager
def reachable(
    path: str | os.PathLike[str], expected: str, kind: type[EffNetError] = InvalidInputError
) -> Iterator[None]:
    """Within the block a path that may not be read, or whose name is too long, is an error of this package.

    Even `Path.exists` raises for these. Wrap the looking only: what a library raises about the content of a
    file deserves a message of its own.

    Args:
        path: what the block looks at.
        expected: what should be there, for the message: `"a picture"`.
        kind: the error to raise.

    Raises:
        EffNetError: of the given kind, instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise kind(
            f"Expected {expected} at {os.fspath(path)!r}. The system said: {system_said(error)}. "
            "Check the path and its permissions."
        ) from error
