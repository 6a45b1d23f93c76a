"""The names that PyTorch projects give the arrays: timm's, lukemelas' and torchvision's, and our own.

A scheme says which layer of keras.applications a module is; weight names and axis order are PyTorch's in all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.network.table import block_name
from keras_effnet.weights.checkpoint import WEIGHT_NAMES, Checkpoint, LayerArrays, LazyArray
from keras_effnet.weights.naming import block_names

KERAS_MARK = "stem_conv.kernel"
PREFIXES = ("module.", "model.", "_orig_mod.", "backbone.")  # what wrappers put before every name

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

StateDict = Mapping[str, LazyArray]
Finder = Callable[[str], Place | None]
"""From a module's name to its layer; None for a module of another network."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How one project names its modules.

    Attributes:
        mark: the tensor by which it is known.
        example: another name, for messages.
        finder: makes the `Finder` for the tensors of a file.
    """

    name: str
    mark: str
    example: str
    finder: Callable[[StateDict, Path], Finder]


def name_tensors(tensors: StateDict, path: Path) -> Checkpoint:
    """Recognize whose names a flat table of tensors uses (perhaps behind `module.` or the like), and rename it.

    Raises:
        WeightsError: no known scheme, or a tensor that does not belong.
    """
    tensors = _without_prefixes(tensors)
    if KERAS_MARK in tensors:
        return Checkpoint(_native(tensors, path))
    for naming in NAMINGS:
        if naming.mark in tensors:
            found = naming.finder(tensors, path)
            return Checkpoint(_renamed(tensors, found, naming.example, path), naming=naming.name)
    marks = ", ".join([*(naming.mark for naming in NAMINGS), KERAS_MARK])
    first = next(iter(tensors), "no tensor at all")
    raise WeightsError(
        f"Expected the stem of an EfficientNet (one of {marks}) inside {str(path)!r}. Received tensors like "
        f"{first!r}. Check that the file is an EfficientNet of timm, lukemelas or torchvision."
    )


def _without_prefixes(tensors: StateDict) -> StateDict:
    while prefix := next((p for p in PREFIXES if tensors and all(n.startswith(p) for n in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _native(tensors: StateDict, path: Path) -> LayerArrays:
    layers: dict[str, dict[str, LazyArray]] = {}
    for name, tensor in tensors.items():
        layer, _, weight = name.rpartition(".")
        if not layer or weight not in WEIGHT_NAMES:
            raise WeightsError(
                f"Expected names like {KERAS_MARK!r} inside {str(path)!r}. Received: {name!r}. "
                "Convert the weights again with keras-effnet convert."
            )
        layers.setdefault(layer, {})[weight] = tensor
    return layers


def _renamed(tensors: StateDict, place: Finder, example: str, path: Path) -> LayerArrays:
    """The arrays by layer, in Keras' layout.

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


# Of timm and geffnet: blocks.1.0.conv_dw.weight, stage and position from 0. A block without expansion calls
# its projection conv_pw; one with expansion calls it conv_pwl.
_TIMM_OUTSIDE: dict[str, Place] = {
    "conv_stem": ("stem_conv", "conv"),
    "bn1": ("stem_bn", "bn"),
    "conv_head": ("top_conv", "conv"),
    "bn2": ("top_bn", "bn"),
    "classifier": ("predictions", "dense"),
}
_TIMM_SQUEEZE_AND_EXCITE: dict[str, Place] = {
    "se.conv_reduce": ("se_reduce", "conv"),
    "se.conv_expand": ("se_expand", "conv"),
}
_TIMM_EXPANDING: dict[str, Place] = {
    "conv_pw": ("expand_conv", "conv"),
    "bn1": ("expand_bn", "bn"),
    "conv_dw": ("dwconv", "depthwise"),
    "bn2": ("bn", "bn"),
    **_TIMM_SQUEEZE_AND_EXCITE,
    "conv_pwl": ("project_conv", "conv"),
    "bn3": ("project_bn", "bn"),
}
_TIMM_SEPARABLE: dict[str, Place] = {
    "conv_dw": ("dwconv", "depthwise"),
    "bn1": ("bn", "bn"),
    **_TIMM_SQUEEZE_AND_EXCITE,
    "conv_pw": ("project_conv", "conv"),
    "bn2": ("project_bn", "bn"),
}


def _timm(tensors: StateDict, path: Path) -> Finder:
    del path

    def find(module: str) -> Place | None:
        found = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.([\w.]+)", module)
        if not found:
            return _TIMM_OUTSIDE.get(module)
        expands = f"blocks.{found[1]}.{found[2]}.conv_pwl.weight" in tensors
        inside = (_TIMM_EXPANDING if expands else _TIMM_SEPARABLE).get(found[3])
        return inside and (f"{block_name(int(found[1]), int(found[2]))}_{inside[0]}", inside[1])

    return find


# Of efficientnet-pytorch: _blocks.3._depthwise_conv.weight. The blocks are numbered through.
_LUKEMELAS_OUTSIDE: dict[str, Place] = {
    "_conv_stem": ("stem_conv", "conv"),
    "_bn0": ("stem_bn", "bn"),
    "_conv_head": ("top_conv", "conv"),
    "_bn1": ("top_bn", "bn"),
    "_fc": ("predictions", "dense"),
}
_LUKEMELAS_INSIDE: dict[str, Place] = {
    "_expand_conv": ("expand_conv", "conv"),
    "_bn0": ("expand_bn", "bn"),
    "_depthwise_conv": ("dwconv", "depthwise"),
    "_bn1": ("bn", "bn"),
    "_se_reduce": ("se_reduce", "conv"),
    "_se_expand": ("se_expand", "conv"),
    "_project_conv": ("project_conv", "conv"),
    "_bn2": ("project_bn", "bn"),
}


def _lukemelas(tensors: StateDict, path: Path) -> Finder:
    projections = {
        int(found[1]): tensor.shape[0]
        for name, tensor in tensors.items()
        if tensor.shape and (found := re.fullmatch(r"_blocks\.(\d+)\._project_conv\.weight", name))
    }
    names = block_names(projections, path)

    def find(module: str) -> Place | None:
        found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
        if not found:
            return _LUKEMELAS_OUTSIDE.get(module)
        if found[2] not in _LUKEMELAS_INSIDE or int(found[1]) >= len(names):
            return None
        suffix, kind = _LUKEMELAS_INSIDE[found[2]]
        return f"{names[int(found[1])]}_{suffix}", kind

    return find


# Of torchvision: features.2.0.block.1.0.weight, features 1 to 7 are the stages. Everything inside a block is numbered
# in the order it runs: expansion (if any), depthwise, squeeze-and-excite (if any), projection.
_TORCHVISION_CONVOLUTIONS: tuple[tuple[Place, Place], ...] = (
    (("expand_conv", "conv"), ("expand_bn", "bn")),
    (("dwconv", "depthwise"), ("bn", "bn")),
    (("project_conv", "conv"), ("project_bn", "bn")),
)
_TORCHVISION_SQUEEZE_AND_EXCITE: dict[str, Place] = {
    "fc1": ("se_reduce", "conv"),
    "fc2": ("se_expand", "conv"),
}


def _torchvision(tensors: StateDict, path: Path) -> Finder:
    del path
    outside = _torchvision_outside(tensors)
    steps = _convolution_steps(tensors)

    def find(module: str) -> Place | None:
        found = re.fullmatch(r"features\.(\d+)\.(\d+)\.block\.(\d+)\.(\w+)", module)
        if not found:
            return outside.get(module)
        stage, position, step, part = int(found[1]) - 1, int(found[2]), int(found[3]), found[4]
        inside = _TORCHVISION_SQUEEZE_AND_EXCITE.get(part)
        if part in ("0", "1"):
            numbers = steps[found[1], found[2]]
            if step not in numbers or len(numbers) not in (2, 3):
                return None
            inside = _TORCHVISION_CONVOLUTIONS[numbers.index(step) + 3 - len(numbers)][int(part)]
        return inside and (f"{block_name(stage, position)}_{inside[0]}", inside[1])

    return find


def _torchvision_outside(tensors: StateDict) -> dict[str, Place]:
    last = max(int(found[1]) for name in tensors if (found := re.match(r"features\.(\d+)\.", name)))
    return {
        "features.0.0": ("stem_conv", "conv"),
        "features.0.1": ("stem_bn", "bn"),
        f"features.{last}.0": ("top_conv", "conv"),
        f"features.{last}.1": ("top_bn", "bn"),
        "classifier.1": ("predictions", "dense"),
    }


def _convolution_steps(tensors: StateDict) -> dict[tuple[str, str], list[int]]:
    """(feature, block) → the numbers of its steps that are convolutions, in order."""
    steps: dict[tuple[str, str], set[int]] = {}
    for name in tensors:
        if found := re.fullmatch(r"features\.(\d+)\.(\d+)\.block\.(\d+)\.([01])\.weight", name):
            steps.setdefault((found[1], found[2]), set()).add(int(found[3]))
    return {block: sorted(numbers) for block, numbers in steps.items()}


NAMINGS = (
    Naming(name="timm", mark="conv_stem.weight", example="blocks.0.0.conv_dw.weight", finder=_timm),
    Naming(
        name="lukemelas",
        mark="_conv_stem.weight",
        example="_blocks.0._depthwise_conv.weight",
        finder=_lukemelas,
    ),
    Naming(
        name="torchvision",
        mark="features.0.0.weight",
        example="features.1.0.block.0.0.weight",
        finder=_torchvision,
    ),
)
