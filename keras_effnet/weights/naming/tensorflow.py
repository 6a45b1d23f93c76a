"""The variable names of the reference code: `efficientnet-b0/blocks_3/conv2d_1/kernel`.

Inside a block the convolutions and the batch normalizations are counted from the bare name upward,
so what `conv2d` means depends on whether the block expands.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.weights.checkpoint import WEIGHT_NAMES, LayerArrays, LazyArray
from keras_effnet.weights.naming import block_names

LOGGER = logging.getLogger(__name__)

AVERAGE = "/ExponentialMovingAverage"
# what a training run keeps beside the model: counters and the optimizer's slots
TRAINING_STATE = re.compile(r"(.*/)?(global_step|RMSProp(_\d+)?|Momentum(_\d+)?|beta[12]_power)")
BN = r"(?:tpu_)?batch_normalization"

OUTSIDE = {
    "stem/conv2d": "stem_conv",
    "stem/bn": "stem_bn",
    "head/conv2d": "top_conv",
    "head/bn": "top_bn",
    "head/dense": "predictions",
}
SHARED = {"depthwise_conv2d": "dwconv", "se/conv2d": "se_reduce", "se/conv2d_1": "se_expand"}
EXPANDING = {
    **SHARED,
    "conv2d": "expand_conv",
    "bn": "expand_bn",
    "bn_1": "bn",
    "conv2d_1": "project_conv",
    "bn_2": "project_bn",
}
SEPARABLE = {**SHARED, "bn": "bn", "conv2d": "project_conv", "bn_1": "project_bn"}


def to_layers(variables: Mapping[str, LazyArray], path: Path, ema: bool) -> LayerArrays:
    """Rename a checkpoint's variables; the reference has Keras' layout already.

    With `ema` each variable's exponential moving average is taken, which is what was evaluated and published,
    instead of the value that training ended with.

    Raises:
        WeightsError: a name of another network; or averages for some variables only.
    """
    chosen = _averaged(variables, path) if ema else _raw(variables)
    model = _model_name(chosen, path)
    short = {name.removeprefix(f"{model}/"): variable for name, variable in chosen.items()}
    names = _block_names(short, path)
    layers: dict[str, dict[str, LazyArray]] = {}
    for name, variable in short.items():
        layer = _layer(name, short, names)
        weight = name.rpartition("/")[2].replace("depthwise_kernel", "kernel")
        if layer is None or weight not in WEIGHT_NAMES or weight in layers.get(layer, {}):
            raise _unknown(f"{model}/{name}", path)
        layers.setdefault(layer, {})[weight] = variable
    return layers


def _raw(variables: Mapping[str, LazyArray]) -> dict[str, LazyArray]:
    return {
        name: variable
        for name, variable in variables.items()
        if not name.endswith(AVERAGE) and not TRAINING_STATE.fullmatch(name)
    }


def _averaged(variables: Mapping[str, LazyArray], path: Path) -> dict[str, LazyArray]:
    raw = _raw(variables)
    found = {name: variables[name + AVERAGE] for name in raw if name + AVERAGE in variables}
    if not found and not any(name.endswith(AVERAGE) for name in variables):
        LOGGER.info("%s holds no moving averages; its variables are taken as they are.", path)
        return raw
    averages = {name.removesuffix(AVERAGE) for name in variables if name.endswith(AVERAGE)}
    odd = sorted((set(raw) - set(found)) | (averages - set(raw)))
    if odd:
        raise WeightsError(
            f"Expected an exponential moving average of every variable in {str(path)!r}. Received "
            f"{len(found)} of them; {odd[0]!r} has no pair. Pass ema=False to load the raw variables."
        )
    return found


def _model_name(variables: Mapping[str, LazyArray], path: Path) -> str:
    names = {name.split("/")[0] for name in variables}
    if len(names) != 1:
        raise _unknown(next(iter(sorted(variables)), "no variable"), path)
    return names.pop()


def _block_names(variables: Mapping[str, LazyArray], path: Path) -> list[str]:
    """The projection is the last of a block's convolutions."""
    projections: dict[int, int] = {}
    for name in sorted(variables):  # conv2d sorts before conv2d_1
        found = re.fullmatch(r"blocks_(\d+)/conv2d(_1)?/kernel", name)
        if found and variables[name].shape:
            projections[int(found[1])] = variables[name].shape[-1]
    return block_names(projections, path)


def _layer(name: str, variables: Mapping[str, LazyArray], names: list[str]) -> str | None:
    module = re.sub(BN, "bn", name.rpartition("/")[0])
    found = re.fullmatch(r"blocks_(\d+)/(.+)", module)
    if not found:
        return OUTSIDE.get(module)
    index = int(found[1])
    table = EXPANDING if f"blocks_{index}/conv2d_1/kernel" in variables else SEPARABLE
    if index >= len(names) or found[2] not in table:
        return None
    return f"{names[index]}_{table[found[2]]}"


def _unknown(name: str, path: Path) -> WeightsError:
    return WeightsError(
        "Expected variables of one model, like 'efficientnet-b0/blocks_0/conv2d/kernel', inside "
        f"{str(path)!r}. Received: {name!r}. This checkpoint is of another network."
    )
