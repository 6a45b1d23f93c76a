"""What the PyTorch naming schemes share: weight names, axis order, and the loop over tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.weights.checkpoint import LayerArrays, LazyArray

BN_NAMES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
PLAIN_NAMES = {"weight": "kernel", "bias": "bias"}
KERNEL_AXES = {"conv": (2, 3, 1, 0), "depthwise": (2, 3, 0, 1), "dense": (1, 0)}
COUNTER = "num_batches_tracked"  # PyTorch's own bookkeeping, unused at inference

Place = tuple[str, str]
"""A layer of keras.applications and its kind: `conv`, `depthwise`, `dense` or `bn`."""


def rename(
    tensors: Mapping[str, LazyArray], place: Callable[[str], Place | None], example: str, path: Path
) -> LayerArrays:
    """Rename and transpose a state dict's tensors.

    Args:
        tensors: the state dict, PyTorch layout (`[out, in, h, w]`).
        place: from a module's name to its layer, or None for a module of another network.
        example: a name of the scheme, for messages.
        path: for messages.

    Returns:
        The arrays by layer of keras.applications, in Keras' layout.

    Raises:
        WeightsError: a name of another scheme, or two tensors for one weight.
    """
    layers: dict[str, dict[str, LazyArray]] = {}
    for name, tensor in tensors.items():
        module, _, weight = name.rpartition(".")
        if weight == COUNTER:
            continue
        layer, kind = place(module) or ("", "")
        key = (BN_NAMES if kind == "bn" else PLAIN_NAMES).get(weight)
        if not layer or key is None or key in layers.get(layer, {}):
            raise WeightsError(
                f"Expected names like {example!r} inside {str(path)!r}, each once. Received: {name!r}. "
                "This file is of another network or naming."
            )
        axes = KERNEL_AXES.get(kind, ())
        is_kernel = key == "kernel" and len(axes) == len(tensor.shape)
        layers.setdefault(layer, {})[key] = tensor.transpose(*axes) if is_kernel else tensor
    return layers
