"""What every reader returns, arrays that are read when asked for, and the errors that readers share."""

from __future__ import annotations

import json
import math
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from keras_effnet.errors import EffNetError, WeightsError
from keras_effnet.network.conventions import Convention
from keras_effnet.system.files import system_said

Array = npt.NDArray[Any]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
CHUNK_BYTES = 2**20  # read, hashed or written at once
MAX_RANK = 8  # of an array; no layer has more than 4


@dataclass(frozen=True)
class LazyArray:
    """An array that is still in its file.

    Attributes:
        shape: its shape after `read`.
        dtype: its type after `read`.
        read: reads and returns it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Array]

    @property
    def is_float(self) -> bool:
        """Whether it holds floating point numbers; numpy does not count bfloat16 among them."""
        return self.dtype.kind == "f" or self.dtype == BFLOAT16

    def transpose(self, *axes: int) -> LazyArray:
        """The array with its axes in another order."""
        shape = tuple(self.shape[axis] for axis in axes)
        return LazyArray(shape, self.dtype, lambda: np.ascontiguousarray(self.read().transpose(axes)))

    def changed(self, shape: tuple[int, ...], change: Callable[[Array], Array]) -> LazyArray:
        """The array after `change`, which makes it `shape`."""
        return LazyArray(shape, self.dtype, lambda: change(self.read()))


def in_file(path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...]) -> LazyArray:
    """A contiguous array that starts `offset` bytes into a file."""

    def read() -> Array:
        flat = np.fromfile(path, dtype, math.prod(shape), offset=offset)
        if flat.size != math.prod(shape):
            raise WeightsError(
                f"Expected {math.prod(shape)} numbers at byte {offset} of {str(path)!r}. Received {flat.size}. "
                "The file changed while it was read; load it again."
            )
        return flat.reshape(shape)

    return LazyArray(shape, dtype, read)


LayerArrays = Mapping[str, Mapping[str, LazyArray]]
"""layer name → weight name (`kernel bias gamma beta moving_mean moving_variance`) → array, in the
layout of Keras: convolution `[h, w, in, out]`, depthwise `[h, w, channels, 1]`, dense `[in, out]`."""


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """What a Keras file says of the network that its arrays come from.

    Attributes:
        preprocessing: what happened to a pixel 0–255 in front of the stem; None where the file is not clear.
        doubt: why it is not, as half a sentence; empty where it is.
        choices: the conventions that it may mean.
        usual: whether it is most likely the usual one of its variant.
        padding: `"same"` or `"symmetric"`; None where the file does not say.
        epsilon: of batch normalization, likewise.
    """

    preprocessing: Convention | None = None
    doubt: str = ""
    choices: tuple[Convention, ...] = ()
    usual: bool = False
    padding: str | None = None
    epsilon: float | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A weight file's content.

    Attributes:
        layers: the arrays, under the layer names of keras.applications.
        naming: whose names the file used: `keras`, `timm`, `lukemelas`, `torchvision`, `tensorflow`.
        metadata: what `keras_effnet.weights.convert` wrote beside the arrays; empty in other files.
        others: layers with weights that are not EfficientNet's, in a file of a larger network.
        network: what the file says of its network beside the arrays; None where it says nothing.
    """

    layers: LayerArrays
    naming: str = "keras"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    network: NetworkFacts | None = None


OpenCheckpoint = AbstractContextManager[Checkpoint]
"""A reader's result: the arrays can be read while the context is open."""


@dataclass(frozen=True)
class Reader:
    """One file format.

    Attributes:
        format: what people call it.
        matches: whether a path is of it, judged by the content.
        read: opens it; the flag asks for moving averages where there are some.
    """

    format: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, bool], OpenCheckpoint]


TOP_LAYER = "predictions"
WEIGHT_NAMES = frozenset({"kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"})


@contextmanager
def opened(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """A context around arrays that need no open file."""
    yield checkpoint


METADATA_KEY = "keras_effnet"
"""Under this name what is known stands in a file: a JSON table beside the arrays, and in exported artefacts."""


def parse_metadata(text: str) -> dict[str, Any]:
    """The metadata of a file; an empty table where it has none.

    Raises:
        ValueError: no table.
    """
    found = json.loads(text or "{}")
    if not isinstance(found, dict):
        raise ValueError("its metadata is no table")
    return found


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
    from safetensors import SafetensorError

    try:
        yield
    except EffNetError:
        raise
    except PermissionError as error:
        raise WeightsError(
            f"Expected a {expected} file that can be read. Received: {str(path)!r}. The system said: "
            f"{system_said(error)}. Check its permissions."
        ) from error
    except (*MALFORMED, SafetensorError) as error:
        raise damaged(path, expected, f"{type(error).__name__}: {error}") from error
