"""The names of timm and geffnet: `blocks.1.0.conv_dw.weight`, stage and position from 0.

A block without expansion calls its projection `conv_pw`; one with expansion calls it `conv_pwl`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from keras_effnet.network.table import block_name
from keras_effnet.weights.checkpoint import LayerArrays, LazyArray
from keras_effnet.weights.naming.torch_layout import Place, rename

MARK = "conv_stem.weight"
OUTSIDE: dict[str, Place] = {
    "conv_stem": ("stem_conv", "conv"),
    "bn1": ("stem_bn", "bn"),
    "conv_head": ("top_conv", "conv"),
    "bn2": ("top_bn", "bn"),
    "classifier": ("predictions", "dense"),
}
SQUEEZE_AND_EXCITE: dict[str, Place] = {
    "se.conv_reduce": ("se_reduce", "conv"),
    "se.conv_expand": ("se_expand", "conv"),
}
EXPANDING: dict[str, Place] = {
    "conv_pw": ("expand_conv", "conv"),
    "bn1": ("expand_bn", "bn"),
    "conv_dw": ("dwconv", "depthwise"),
    "bn2": ("bn", "bn"),
    **SQUEEZE_AND_EXCITE,
    "conv_pwl": ("project_conv", "conv"),
    "bn3": ("project_bn", "bn"),
}
SEPARABLE: dict[str, Place] = {
    "conv_dw": ("dwconv", "depthwise"),
    "bn1": ("bn", "bn"),
    **SQUEEZE_AND_EXCITE,
    "conv_pw": ("project_conv", "conv"),
    "bn2": ("project_bn", "bn"),
}


def to_layers(tensors: Mapping[str, LazyArray], path: Path) -> LayerArrays:
    """Rename and transpose a state dict of this scheme; see `torch_layout.rename`."""

    def place(module: str) -> Place | None:
        found = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.([\w.]+)", module)
        if not found:
            return OUTSIDE.get(module)
        expands = f"blocks.{found[1]}.{found[2]}.conv_pwl.weight" in tensors
        inside = (EXPANDING if expands else SEPARABLE).get(found[3])
        return inside and (f"{block_name(int(found[1]), int(found[2]))}_{inside[0]}", inside[1])

    return rename(tensors, place, "blocks.0.0.conv_dw.weight", path)
