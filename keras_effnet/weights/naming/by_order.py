"""Layers known only by class and number (`conv2d_7`), named by the order an EfficientNet has them in.

Early releases of Keras 3 stored no layer names. Within a class the numbers follow the order of
creation, and every block of an EfficientNet shows in its shapes which layers it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.weights.checkpoint import LayerArrays, LazyArray
from keras_effnet.weights.naming import block_names

Layer = Mapping[str, LazyArray]


def to_layers(numbered: Mapping[str, Layer], path: Path) -> LayerArrays:
    """Name layers that came as `conv2d`, `conv2d_1`, `batch_normalization`, ….

    Raises:
        WeightsError: other classes, or another order than an EfficientNet's.
    """
    by_class = _by_class(numbered)
    convs = _Queue(by_class.pop("conv2d", []), path)
    norms = _Queue(by_class.pop("batch_normalization", []), path)
    depthwise = by_class.pop("depthwise_conv2d", [])
    dense = by_class.pop("dense", [])
    if by_class or len(dense) > 1:
        raise _strange(path)
    layers = {"stem_conv": convs.take(), "stem_bn": norms.take()}
    blocks = list(_blocks(layers["stem_conv"], depthwise, convs, norms))
    projections = {index: block["project_conv"]["kernel"].shape[-1] for index, block in enumerate(blocks)}
    for name, block in zip(block_names(projections, path), blocks, strict=True):
        layers.update({f"{name}_{suffix}": weights for suffix, weights in block.items()})
    layers.update(top_conv=convs.take(), top_bn=norms.take())
    if dense:
        layers["predictions"] = dense[0]
    if convs.rest or norms.rest:
        raise _strange(path)
    return layers


class _Queue:
    """Layers of one class, taken first to last."""

    def __init__(self, layers: list[Layer], path: Path) -> None:
        self.rest = layers
        self.path = path

    def take(self) -> Layer:
        if not self.rest:
            raise _strange(self.path)
        first, *self.rest = self.rest
        return first


def _blocks(stem: Layer, depthwise: list[Layer], convs: _Queue, norms: _Queue) -> Iterator[dict[str, Layer]]:
    filters = stem["kernel"].shape[-1]
    for layer in depthwise:
        block: dict[str, Layer] = {}
        if layer["kernel"].shape[2] != filters:
            block.update(expand_conv=convs.take(), expand_bn=norms.take())
        block.update(dwconv=layer, bn=norms.take())
        if convs.rest and "bias" in convs.rest[0]:
            block.update(se_reduce=convs.take(), se_expand=convs.take())
        block.update(project_conv=convs.take(), project_bn=norms.take())
        filters = block["project_conv"]["kernel"].shape[-1]
        yield block


def _by_class(numbered: Mapping[str, Layer]) -> dict[str, list[Layer]]:
    split = [(re.fullmatch(r"(.*?)(?:_(\d+))?", name), layer) for name, layer in numbered.items()]
    ordered = sorted(((m[1], int(m[2] or 0), layer) for m, layer in split if m), key=lambda item: item[:2])
    classes: dict[str, list[Layer]] = {}
    for name, _, layer in ordered:
        classes.setdefault(name, []).append(layer)
    return classes


def _strange(path: Path) -> WeightsError:
    return WeightsError(
        f"Expected the layers of an EfficientNet in their order inside {str(path)!r}, which has no layer "
        "names. Received another order. Load the model with the Keras that saved it and save it again with "
        "Keras 3.13 or newer."
    )
