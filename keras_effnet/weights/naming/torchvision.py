"""The names of torchvision: `features.2.0.block.1.0.weight`, features 1–7 are the stages.

Everything inside a block is numbered in the order it runs: expansion (if any), depthwise,
squeeze-and-excite (if any), projection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from keras_effnet.network.table import block_name
from keras_effnet.weights.checkpoint import LayerArrays, LazyArray
from keras_effnet.weights.naming.torch_layout import Place, rename

MARK = "features.0.0.weight"
CONVOLUTIONS: tuple[tuple[Place, Place], ...] = (
    (("expand_conv", "conv"), ("expand_bn", "bn")),
    (("dwconv", "depthwise"), ("bn", "bn")),
    (("project_conv", "conv"), ("project_bn", "bn")),
)
SQUEEZE_AND_EXCITE: dict[str, Place] = {"fc1": ("se_reduce", "conv"), "fc2": ("se_expand", "conv")}


def to_layers(tensors: Mapping[str, LazyArray], path: Path) -> LayerArrays:
    """Rename and transpose a state dict of this scheme; see `torch_layout.rename`."""
    outside = _outside(tensors)
    steps = _convolution_steps(tensors)

    def place(module: str) -> Place | None:
        found = re.fullmatch(r"features\.(\d+)\.(\d+)\.block\.(\d+)\.(\w+)", module)
        if not found:
            return outside.get(module)
        stage, position, step, part = int(found[1]) - 1, int(found[2]), int(found[3]), found[4]
        inside = SQUEEZE_AND_EXCITE.get(part)
        if part in ("0", "1"):
            numbers = steps[found[1], found[2]]
            if step not in numbers or len(numbers) not in (2, 3):
                return None
            inside = CONVOLUTIONS[numbers.index(step) + 3 - len(numbers)][int(part)]
        return inside and (f"{block_name(stage, position)}_{inside[0]}", inside[1])

    return rename(tensors, place, "features.1.0.block.0.0.weight", path)


def _outside(tensors: Mapping[str, LazyArray]) -> dict[str, Place]:
    last = max(int(found[1]) for name in tensors if (found := re.match(r"features\.(\d+)\.", name)))
    return {
        "features.0.0": ("stem_conv", "conv"),
        "features.0.1": ("stem_bn", "bn"),
        f"features.{last}.0": ("top_conv", "conv"),
        f"features.{last}.1": ("top_bn", "bn"),
        "classifier.1": ("predictions", "dense"),
    }


def _convolution_steps(tensors: Mapping[str, LazyArray]) -> dict[tuple[str, str], list[int]]:
    """(feature, block) → the numbers of its steps that are convolutions, in order."""
    steps: dict[tuple[str, str], set[int]] = {}
    for name in tensors:
        if found := re.fullmatch(r"features\.(\d+)\.(\d+)\.block\.(\d+)\.([01])\.weight", name):
            steps.setdefault((found[1], found[2]), set()).add(int(found[3]))
    return {block: sorted(numbers) for block, numbers in steps.items()}
