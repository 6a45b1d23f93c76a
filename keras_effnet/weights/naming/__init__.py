"""How other projects name the arrays of an EfficientNet. One module per naming scheme."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.weights.checkpoint import WEIGHT_NAMES, Checkpoint, LayerArrays, LazyArray
from keras_effnet.weights.naming import lukemelas, timm, torchvision

TORCH_NAMINGS = (timm, lukemelas, torchvision)
KERAS_MARK = "stem_conv.kernel"
PREFIXES = ("module.", "model.", "_orig_mod.", "backbone.")  # what wrappers put before every name


def name_tensors(tensors: Mapping[str, LazyArray], path: Path) -> Checkpoint:
    """Recognize whose names a flat table of tensors uses, and rename it.

    Args:
        tensors: names of timm, lukemelas or torchvision, perhaps behind `module.` or the like; or of
            this package (`stem_conv.kernel`).
        path: for messages.

    Raises:
        WeightsError: no known scheme, or a tensor that does not belong.
    """
    tensors = _without_prefixes(tensors)
    if KERAS_MARK in tensors:
        return Checkpoint(_native(tensors, path))
    for scheme in TORCH_NAMINGS:
        if scheme.MARK in tensors:
            return Checkpoint(scheme.to_layers(tensors, path), naming=scheme.__name__.rpartition(".")[2])
    marks = ", ".join([*(scheme.MARK for scheme in TORCH_NAMINGS), KERAS_MARK])
    first = next(iter(tensors), "no tensor at all")
    raise WeightsError(
        f"Expected the stem of an EfficientNet (one of {marks}) inside {str(path)!r}. Received tensors like "
        f"{first!r}. Check that the file is an EfficientNet of timm, lukemelas or torchvision."
    )


def _without_prefixes(tensors: Mapping[str, LazyArray]) -> Mapping[str, LazyArray]:
    while prefix := next((p for p in PREFIXES if tensors and all(n.startswith(p) for n in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _native(tensors: Mapping[str, LazyArray], path: Path) -> LayerArrays:
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
