"""A Keras namespace whose layers only compute shapes.

The builder of this package takes the Keras to build with as an argument. Given a `DryRun` instead it
leaves a `CallGraph` behind, in milliseconds and without a framework: a search over thousands of networks
counts what the real builder builds, not what a second formula believes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

from keras_effnet.costs.rules import RULES, Shape
from keras_effnet.errors import unknown_name
from keras_effnet.network.reader import Call, CallGraph, LayerOutput

_POSITIONAL = {
    "Conv2D": ("filters", "kernel_size", "strides"),
    "DepthwiseConv2D": ("kernel_size", "strides"),
    "Dense": ("units", "activation"),
    "Activation": ("activation",),
    "Dropout": ("rate", "noise_shape"),
    "ReLU": ("max_value",),
    "Rescaling": ("scale", "offset"),
    "ZeroPadding2D": ("padding",),
    "MaxPooling2D": ("pool_size", "strides"),
    "AveragePooling2D": ("pool_size", "strides"),
}


@dataclass(frozen=True)
class _Tensor:
    """Stands for a Keras tensor: the position of its call, and `[None, H, W, C]`."""

    position: int
    shape: tuple[int | None, ...]


class DryRun:
    """What the builder uses of Keras: `Input`, `Model`, `layers`, `initializers`."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self.layers = _Layers(self)
        self.initializers = SimpleNamespace(VarianceScaling=lambda *_: None)

    def Input(self, shape: Sequence[int]) -> _Tensor:  # noqa: N802 - as Keras calls it
        return self.record(_layer_class("InputLayer", self)(name="input"), (), tuple(shape))

    def Model(self, inputs: _Tensor, outputs: _Tensor, name: str = "") -> CallGraph:  # noqa: N802
        del inputs, name
        return CallGraph(calls=tuple(self._calls), outputs=(LayerOutput(outputs.position),))

    def record(self, layer: Any, inputs: Sequence[_Tensor], shape: Shape) -> _Tensor:
        self._calls.append(Call(layer=layer, inputs=tuple(LayerOutput(tensor.position) for tensor in inputs)))
        return _Tensor(len(self._calls) - 1, (None, *shape))


class _Layers:
    """Any layer of the rules, by its name."""

    def __init__(self, run: DryRun) -> None:
        self._run = run

    def __getattr__(self, kind: str) -> type[_Layer]:
        if kind not in RULES:
            raise unknown_name("a layer", kind, RULES)
        made = _layer_class(kind, self._run)
        setattr(self, kind, made)  # a network asks for the same few again and again
        return made


class _Layer:
    """Remembers its arguments; calling it adds a call to the graph of its run."""

    run: ClassVar[DryRun]

    def __init__(self, *arguments: Any, **config: Any) -> None:
        self._kind = type(self).__name__
        self._config = config | dict(zip(_POSITIONAL.get(self._kind, ()), arguments, strict=False))
        self._weights = 0
        self.name = str(config.get("name", self._kind))

    def get_config(self) -> dict[str, Any]:
        return self._config

    def count_params(self) -> int:
        return self._weights

    def __call__(self, tensors: _Tensor | Sequence[_Tensor]) -> _Tensor:
        given = [tensors] if isinstance(tensors, _Tensor) else list(tensors)
        shapes = [tuple(int(side or 0) for side in tensor.shape[1:]) for tensor in given]
        counted = RULES[self._kind](self._config, shapes)
        self._weights = counted.params + counted.statistics
        return self.run.record(self, given, counted.shape)


def _layer_class(kind: str, run: DryRun) -> type[_Layer]:
    """A class of the name by which the rules know the layer."""
    return type(kind, (_Layer,), {"run": run})
