"""The errors that several readers raise."""

from __future__ import annotations

import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_effnet.errors import EffNetError, WeightsError
from keras_effnet.system.files import system_said

# What the libraries below the readers raise on content that is not what it claims to be.
MALFORMED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.PickleError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def damaged(path: Path, expected: str, why: str) -> WeightsError:
    """The error for a file that is of the format but not intact."""
    return WeightsError(
        f"Expected a complete {expected} file. Received: {str(path)!r}, which is damaged, truncated or of "
        f"another kind ({why}). Download or save it again."
    )


def too_large(path: Path, what: str, size: int, limit: int) -> WeightsError:
    """The error for a file that would cost more memory or disk than any EfficientNet needs."""
    return WeightsError(
        f"Expected {what} of at most {limit:,} bytes in {str(path)!r}. Received {size:,} bytes, more than "
        "any published EfficientNet has, so it was not read. Get the file from its publisher again."
    )


@contextmanager
def guarded(path: Path, expected: str) -> Iterator[None]:
    """Turn what parsing a malformed file can raise into one error. Wrap parsing only, never a `yield`.

    Raises:
        WeightsError: instead of any of `MALFORMED`.
    """
    try:
        yield
    except EffNetError:
        raise
    except PermissionError as error:
        raise WeightsError(
            f"Expected a {expected} file that can be read. Received: {str(path)!r}. The system said: "
            f"{system_said(error)}. Check its permissions."
        ) from error
    except MALFORMED as error:
        raise damaged(path, expected, f"{type(error).__name__}: {error}") from error
