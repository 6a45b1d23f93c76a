"""What every reader returns: arrays by layer and weight name, read from the file when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LazyArray:
    """An array that is still in its file.

    Attributes:
        shape: its shape after `read`.
        read: reads and returns it.
    """

    shape: tuple[int, ...]
    read: Callable[[], npt.NDArray[Any]]

    def transpose(self, *axes: int) -> LazyArray:
        """The array with its axes in another order."""
        return LazyArray(
            tuple(self.shape[axis] for axis in axes),
            lambda: np.ascontiguousarray(self.read().transpose(axes)),
        )


LayerArrays = Mapping[str, Mapping[str, LazyArray]]
"""layer name → weight name (`kernel bias gamma beta moving_mean moving_variance`) → array, in the
layout of Keras: convolution `[h, w, in, out]`, depthwise `[h, w, channels, 1]`, dense `[in, out]`."""

OpenCheckpoint = AbstractContextManager[LayerArrays]
"""A reader's result: the arrays can be read while the context is open."""

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
def opened(arrays: LayerArrays) -> Iterator[LayerArrays]:
    """A context around arrays that need no open file."""
    yield arrays
