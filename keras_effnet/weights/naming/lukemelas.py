"""The names of `efficientnet-pytorch` (lukemelas): `_blocks.3._depthwise_conv.weight`.

The blocks are numbered through; which layers a block has shows how the names run on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.lookup import architecture_of
from keras_effnet.variants import VARIANTS
from keras_effnet.weights.arrays import LayerArrays, LazyArray

OUTSIDE = {
    "_conv_stem": ("stem_conv", "conv"),
    "_bn0": ("stem_bn", "bn"),
    "_conv_head": ("top_conv", "conv"),
    "_bn1": ("top_bn", "bn"),
    "_fc": ("predictions", "dense"),
}
INSIDE = {
    "_expand_conv": ("expand_conv", "conv"),
    "_bn0": ("expand_bn", "bn"),
    "_depthwise_conv": ("dwconv", "depthwise"),
    "_bn1": ("bn", "bn"),
    "_se_reduce": ("se_reduce", "conv"),
    "_se_expand": ("se_expand", "conv"),
    "_project_conv": ("project_conv", "conv"),
    "_bn2": ("project_bn", "bn"),
}
BN_NAMES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
KERNEL_AXES = {"conv": (2, 3, 1, 0), "depthwise": (2, 3, 0, 1), "dense": (1, 0)}
COUNTER = "num_batches_tracked"  # PyTorch's own bookkeeping, unused at inference


def to_layers(tensors: Mapping[str, LazyArray], path: Path) -> LayerArrays:
    """Rename and transpose a state dict's tensors.

    Args:
        tensors: the state dict, PyTorch layout (`[out, in, h, w]`).
        path: for messages.

    Returns:
        The arrays by layer of keras.applications, in Keras' layout.

    Raises:
        WeightsError: a name of another scheme, or a block count that no variant has.
    """
    names = _block_names(tensors, path)
    layers: dict[str, dict[str, LazyArray]] = {}
    for name, tensor in tensors.items():
        module, _, weight = name.rpartition(".")
        if weight == COUNTER:
            continue
        layer, kind = _layer(module, names, path)
        key = BN_NAMES.get(weight) if kind == "bn" else {"weight": "kernel", "bias": "bias"}.get(weight)
        if key is None:
            raise _unknown(name, path)
        axes = KERNEL_AXES.get(kind, ())
        is_kernel = key == "kernel" and len(axes) == len(tensor.shape)
        layers.setdefault(layer, {})[key] = tensor.transpose(*axes) if is_kernel else tensor
    return layers


def _layer(module: str, names: list[str], path: Path) -> tuple[str, str]:
    if module in OUTSIDE:
        return OUTSIDE[module]
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
    if not found or found[2] not in INSIDE:
        raise _unknown(module, path)
    suffix, kind = INSIDE[found[2]]
    return f"{names[int(found[1])]}_{suffix}", kind


def _block_names(tensors: Mapping[str, LazyArray], path: Path) -> list[str]:
    """Names of the blocks, from the variant whose projections have these filter counts."""
    indexed = {
        int(found[1]): tensor.shape[0]
        for name, tensor in tensors.items()
        if (found := re.fullmatch(r"_blocks\.(\d+)\._project_conv\.weight", name))
    }
    filters = [indexed.get(index) for index in range(len(indexed))]
    for variant in VARIANTS.values():
        blocks = architecture_of(variant).blocks
        if [block.filters_out for block in blocks] == filters:
            return [block.name for block in blocks]
    raise WeightsError(
        f"Expected the blocks of a published EfficientNet inside {str(path)!r}. "
        f"Received {len(filters)} blocks with {filters} filters. Check that the file is an EfficientNet."
    )


def _unknown(name: str, path: Path) -> WeightsError:
    return WeightsError(
        f"Expected names like '_blocks.0._depthwise_conv.weight' inside {str(path)!r}. "
        f"Received: {name!r}. This file is of another network or naming."
    )
