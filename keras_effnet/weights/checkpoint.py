"""What readers return: arrays that are read when asked for, and what files say beside them; readers' errors."""

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

from keras_effnet.errors import EffNetError, InvalidInputError, WeightsError
from keras_effnet.network.conventions import CUSTOM, Convention, convention_with, get_convention
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
class WeightFacts:
    """What weights were trained with; None where nothing says so.

    Attributes:
        variant: short name.
        weight_set: name of the published set.
        preprocessing: what happened to a pixel.
        padding: `"same"` or `"symmetric"`.
        epsilon: of batch normalization.
        source_sha256: of the file that the weights were first read from.
        doubt: why a file that says something of its pixels leaves `preprocessing` open, as half a sentence.
        choices: the conventions that it may mean.
        usual: whether it is most likely the variant's usual one.
    """

    variant: str | None = None
    weight_set: str | None = None
    preprocessing: Convention | None = None
    padding: str | None = None
    epsilon: float | None = None
    source_sha256: str | None = None
    doubt: str = ""
    choices: tuple[Convention, ...] = ()
    usual: bool = False

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any]) -> WeightFacts:
        """From what a converted file carries; unknown keys are left for later versions.

        Raises:
            WeightsError: something else than text and numbers, or constants that cannot be used.
        """
        values = {key: metadata[key] for key in _WRITTEN if key in metadata}
        named = values.pop("preprocessing", None)
        odd = {key: value for key, value in values.items() if not isinstance(value, str | float | int | None)}
        try:
            preprocessing = _convention_in(named)
        except (InvalidInputError, KeyError, TypeError, ValueError):
            preprocessing, odd = None, {"preprocessing": named, **odd}
        for key, value in odd.items():
            raise WeightsError(
                f"Expected text or numbers in the metadata of a weight file. Received for {key!r}: "
                f"{value!r}. Convert the weights again with keras-effnet convert."
            )
        return cls(preprocessing=preprocessing, **values)

    def to_metadata(self) -> dict[str, Any]:
        """What a converted file carries: what is known, in plain values."""
        known = {key: value for key in _WRITTEN if (value := getattr(self, key)) is not None}
        used = self.preprocessing
        if used is not None:
            constants = {"scale": list(used.scale), "offset": list(used.offset)}
            known["preprocessing"] = constants if used.name == CUSTOM else used.name
        return known


_WRITTEN = ("variant", "weight_set", "preprocessing", "padding", "epsilon", "source_sha256")


def _convention_in(value: Any) -> Convention | None:
    """The convention in a metadata table: None, a name, or its constants."""
    if value is None or isinstance(value, str):
        return None if value is None else get_convention(value)
    return convention_with(value["scale"], value["offset"])


@dataclass(frozen=True)
class Checkpoint:
    """A weight file's content.

    Attributes:
        layers: the arrays, under the layer names of keras.applications.
        naming: whose names the file used: `keras`, `timm`, `lukemelas`, `torchvision`, `tensorflow`.
        metadata: what `keras_effnet.weights.convert` wrote beside the arrays; empty in other files.
        others: layers with weights that are not EfficientNet's, in a file of a larger network.
        network: what the description or the layers in the file say; None where they say nothing.
    """

    layers: LayerArrays
    naming: str = "keras"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    network: WeightFacts | None = None


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
