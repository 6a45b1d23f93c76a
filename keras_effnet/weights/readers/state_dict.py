"""From an unpickled PyTorch object to its tensors: wrappers around the state dict are peeled off."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.weights.arrays import Array, LazyArray, in_file
from keras_effnet.weights.readers.unpickler import Storage, Tensor

RAW_WRAPPERS = ("state_dict", "model", "model_state_dict")
EMA_WRAPPERS = ("state_dict_ema", "model_ema")  # timm and torchvision keep moving averages there
MAX_WRAPPERS = 4


def tensors_of(state: Any, ema: bool) -> dict[str, Tensor]:
    """The named tensors of a state dict, perhaps below `state_dict`, `model` and the like.

    Args:
        state: what was unpickled.
        ema: prefer the moving averages of a training checkpoint that holds both.

    Raises:
        pickle.UnpicklingError: no state dict.
    """
    wrappers = (*EMA_WRAPPERS, *RAW_WRAPPERS) if ema else RAW_WRAPPERS
    for _ in range(MAX_WRAPPERS):
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"a {type(state).__name__} instead of a state dict")
        tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        state = next((state[key] for key in wrappers if isinstance(state.get(key), dict)), None)
    raise pickle.UnpicklingError("no state dict inside its wrappers")


def lazy_tensors(
    tensors: Mapping[str, Tensor], path: Path, start: Callable[[Storage], int]
) -> dict[str, LazyArray]:
    """Tensors as arrays that are read when asked for.

    Args:
        tensors: by name.
        path: the file.
        start: where a storage begins in it, in bytes.
    """
    return {name: _lazy(tensor, path, start(tensor.storage)) for name, tensor in tensors.items()}


def _lazy(tensor: Tensor, path: Path, start: int) -> LazyArray:
    dtype = tensor.storage.dtype
    offset = start + tensor.offset * dtype.itemsize
    if tensor.strides == _contiguous(tensor.shape):
        return in_file(path, dtype, offset, tensor.shape)
    extent = 1 + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.strides, strict=True))
    steps = [stride * dtype.itemsize for stride in tensor.strides]

    def view(flat: Array) -> Array:
        return np.array(np.lib.stride_tricks.as_strided(flat, tensor.shape, steps))

    return in_file(path, dtype, offset, (max(0, extent),)).changed(tensor.shape, view)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for side in reversed(shape):
        strides.insert(0, step)
        step *= side
    return tuple(strides)
