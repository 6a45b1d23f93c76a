"""What every reader returns: arrays by layer and weight name, read from the file when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from keras_effnet.errors import WeightsError

Array = npt.NDArray[Any]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


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


@dataclass(frozen=True)
class Checkpoint:
    """A weight file's content.

    Attributes:
        layers: the arrays, under the layer names of keras.applications.
        naming: whose names the file used: `keras`, `timm`, `lukemelas`, `torchvision`, `tensorflow`.
        metadata: what `keras_effnet.weights.convert` wrote beside the arrays; empty in other files.
    """

    layers: LayerArrays
    naming: str = "keras"
    metadata: Mapping[str, Any] = field(default_factory=dict)


OpenCheckpoint = AbstractContextManager[Checkpoint]
"""A reader's result: the arrays can be read while the context is open."""

TOP_LAYER = "predictions"
WEIGHT_NAMES = frozenset({"kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"})
BATCH_NORM_ORDER = ("gamma", "beta", "moving_mean", "moving_variance")


def name_weights(arrays: list[LazyArray]) -> dict[str, LazyArray] | None:
    """Name a layer's weights that came in Keras' order, by their number and rank.

    Returns:
        The named weights, or None when they are of no layer that an EfficientNet has.
    """
    ranks = [len(array.shape) for array in arrays]
    if ranks == [1, 1, 1, 1]:
        return dict(zip(BATCH_NORM_ORDER, arrays, strict=True))
    if ranks in ([2], [2, 1], [4], [4, 1]):
        return dict(zip(("kernel", "bias"), arrays, strict=False))
    return None


@contextmanager
def opened(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """A context around arrays that need no open file."""
    yield checkpoint
