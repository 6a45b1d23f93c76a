"""The names of `efficientnet-pytorch` (lukemelas): `_blocks.3._depthwise_conv.weight`.

The blocks are numbered through; which layers a block has shows how the names run on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from keras_effnet.weights.checkpoint import LayerArrays, LazyArray
from keras_effnet.weights.naming.stages import block_names
from keras_effnet.weights.naming.torch_layout import Place, rename

MARK = "_conv_stem.weight"
OUTSIDE: dict[str, Place] = {
    "_conv_stem": ("stem_conv", "conv"),
    "_bn0": ("stem_bn", "bn"),
    "_conv_head": ("top_conv", "conv"),
    "_bn1": ("top_bn", "bn"),
    "_fc": ("predictions", "dense"),
}
INSIDE: dict[str, Place] = {
    "_expand_conv": ("expand_conv", "conv"),
    "_bn0": ("expand_bn", "bn"),
    "_depthwise_conv": ("dwconv", "depthwise"),
    "_bn1": ("bn", "bn"),
    "_se_reduce": ("se_reduce", "conv"),
    "_se_expand": ("se_expand", "conv"),
    "_project_conv": ("project_conv", "conv"),
    "_bn2": ("project_bn", "bn"),
}


def to_layers(tensors: Mapping[str, LazyArray], path: Path) -> LayerArrays:
    """Rename and transpose a state dict of this scheme; see `torch_layout.rename`."""
    projections = {
        int(found[1]): tensor.shape[0]
        for name, tensor in tensors.items()
        if tensor.shape and (found := re.fullmatch(r"_blocks\.(\d+)\._project_conv\.weight", name))
    }
    names = block_names(projections, path)

    def place(module: str) -> Place | None:
        found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
        if not found:
            return OUTSIDE.get(module)
        if found[2] not in INSIDE or int(found[1]) >= len(names):
            return None
        suffix, kind = INSIDE[found[2]]
        return f"{names[int(found[1])]}_{suffix}", kind

    return rename(tensors, place, "_blocks.0._depthwise_conv.weight", path)
