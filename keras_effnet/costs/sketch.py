"""A Keras namespace that only takes notes.

The builders of this package take the Keras to build with as an argument. Given a `Sketch` instead
they leave a `Graph` behind, in milliseconds and without a framework: a search over thousands of
networks counts what the real builder builds, not what a second formula believes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from keras_effnet.costs.graph import Call, Graph, Shape
from keras_effnet.costs.rules import RULES
from keras_effnet.errors import unknown_name

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
    """Stands for a Keras tensor: where it came from, and `[None, H, W, C]`."""

    index: int
    shape: tuple[int | None, ...]


class Sketch:
    """What the builders use of Keras: `Input`, `Model`, `layers`, `initializers`."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self.layers = _Layers(self)
        self.initializers = SimpleNamespace(VarianceScaling=lambda *_: None)

    def Input(self, shape: Sequence[int]) -> _Tensor:  # noqa: N802 - as Keras calls it
        return self.note(Call(name="input", kind="InputLayer", config={}), tuple(shape))

    def Model(self, inputs: _Tensor, outputs: _Tensor, name: str = "") -> Graph:  # noqa: N802
        del inputs, name
        return Graph(calls=tuple(self._calls), outputs=(outputs.index,))

    def note(self, call: Call, shape: Shape) -> _Tensor:
        self._calls.append(call)
        return _Tensor(len(self._calls) - 1, (None, *shape))


class _Layers:
    """Any layer of the rules, by its name."""

    def __init__(self, sketch: Sketch) -> None:
        self._sketch = sketch

    def __getattr__(self, kind: str) -> Any:
        if kind not in RULES:
            raise unknown_name("a layer", kind, RULES)

        def layer(*arguments: Any, **config: Any) -> Any:
            config |= dict(zip(_POSITIONAL.get(kind, ()), arguments, strict=False))

            def call(tensors: _Tensor | Sequence[_Tensor]) -> _Tensor:
                given = [tensors] if isinstance(tensors, _Tensor) else list(tensors)
                shapes = [tuple(int(side or 0) for side in tensor.shape[1:]) for tensor in given]
                note = Call(
                    name=str(config.get("name", kind)),
                    kind=kind,
                    config=config,
                    inputs=tuple(tensor.index for tensor in given),
                )
                return self._sketch.note(note, RULES[kind](config, shapes).shape)

            return call

        return layer
