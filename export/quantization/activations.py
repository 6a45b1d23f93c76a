"""Activations that EfficientNets do not have: how each is made of operators that integers are known for.

A new one is a class here, with its arithmetic and what it is in every file (see `ops`), and its names in `KNOWN`.
Some are operators of their own. Others are exact sums of what there is: a ramp with two corners is a ReLU6
between two affine functions, and a leaky ReLU a sum: u + (1 - slope) · relu(-u).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .ops import ACTIVATIONS, SIGMOID, Activation, Do, Gain, GateProduct, Loss, Relu, Sigmoid, Swish, in_float
from .ranges import Array, Range, best_range


class _Smooth(Activation):
    """One operator whose slope nobody wrote down."""

    def slope(self, values: Array) -> Array:
        u = values.astype(np.float32)
        ends = [np.asarray(self.compute(in_float, u + side), np.float64) for side in (1e-2, -1e-2)]
        return np.asarray(np.mean(((ends[0] - ends[1]) / 2e-2) ** 2, axis=0) + 1e-12)


class Tanh(_Smooth):
    """The hyperbolic tangent; its integer output is a multiple of 1/128."""

    output_range = Range(low=-1.0, high=127 / 128)

    keras_names = ("tanh",)
    GOOD = 4.0  # tanh(4) is 1 to within a tenth of a step

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.tanh(values[0])

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Activation("tanh", name=f"{name}_activation")

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after("TANH", *tensors))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        return str(file.node("Tanh", [*tensors], f"{name}/tanh"))

    def choose(self, tensor: str, values: Array, loss: Loss) -> Range:
        found = best_range(np.clip(values, -self.GOOD, self.GOOD), loss)
        return Range(low=min(found.low, -1e-3), high=max(found.high, 1e-3))


@dataclass(frozen=True, kw_only=True)
class Gelu(_Smooth):
    """u times the normal distribution up to u.

    Attributes:
        approximate: by a hyperbolic tangent.
    """

    keras_names = ("gelu",)
    weighs_samples = True
    slow_in_onnxruntime = True  # it has no integer kernel there

    approximate: bool = False

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.nn.gelu(values[0], self.approximate)

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Activation("gelu", name=f"{name}_activation")

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        return keras.ops.gelu(values[0], approximate=self.approximate)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after("GELU", *tensors))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        """Written out: the operator is younger than most runtimes."""
        (u,) = tensors

        def node(kind: str, left: str, right: Any, what: str) -> str:
            given = (
                file.constant(f"{name}/{what}/by", np.float32(right)) if not isinstance(right, str) else right
            )
            return str(file.node(kind, [left, given], f"{name}/{what}"))

        if self.approximate:
            cubed = node("Mul", node("Mul", u, u, "square"), u, "cube")
            inner = node("Add", u, node("Mul", cubed, 0.044715, "cubic"), "inner")
            bent = file.node("Tanh", [node("Mul", inner, np.sqrt(2 / np.pi), "scaled")], f"{name}/tanh")
        else:
            bent = file.node("Erf", [node("Mul", u, np.sqrt(0.5), "scaled")], f"{name}/erf")
        return node("Mul", node("Mul", u, node("Add", bent, 1.0, "raised"), "product"), 0.5, "gelu")


def hard_swish(u: Any) -> Any:
    """For TensorFlow, and for layers of either Keras."""
    import tensorflow as tf

    return u * tf.nn.relu6(u + 3.0) * np.float32(1 / 6)


class HardSwish(Activation):
    """u · relu6(u + 3) / 6: a swish of straight lines (MobileNetV3), one operator in TFLite and ONNX."""

    keras_names = ("hard_silu", "hard_swish")
    weighs_samples = True
    slow_in_onnxruntime = True  # it has no integer kernel there and passes through float

    def tensorflow(self, *values: Any) -> Any:
        return hard_swish(values[0])

    def numpy(self, *values: Array) -> Array:
        return np.asarray(values[0] * np.clip(values[0] + np.float32(3), 0, 6) * np.float32(1 / 6))

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Activation(hard_swish, name=f"{name}_activation")

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        # written out, so that the converter finds its HARD_SWISH in it
        return values[0] * keras.ops.relu6(values[0] + 3.0) * (1 / 6)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after("HARD_SWISH", *tensors))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        if file.opset >= 14:
            return str(file.node("HardSwish", [*tensors], f"{name}/hard_swish"))
        gate = file.node("HardSigmoid", [*tensors], f"{name}/hard_sigmoid", alpha=1 / 6, beta=0.5)
        return str(file.node("Mul", [*tensors, gate], f"{name}/hard_swish"))

    def slope(self, values: Array) -> Array:
        u = values.astype(np.float64)
        inside = np.where(u < -3, 0.0, (2 * u + 3) / 6)
        return np.asarray(np.mean(np.where(u > 3, 1.0, inside) ** 2, axis=0) + 1e-12)


KNOWN: dict[str, Activation] = {
    **ACTIVATIONS,
    **{name: activation for activation in (HardSwish(), Tanh(), Gelu()) for name in activation.keras_names},
}


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """`factor` · relu6(`scale` · u + `offset`) + `summand`."""

    scale: float
    offset: float
    factor: float
    summand: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaky:
    """u above 0, `slopes` · u below, a slope for each channel or one for all."""

    slopes: Array


Form = Activation | Ramp | Leaky

RAMPS = {
    "hard_sigmoid": Ramp(scale=1.0, offset=3.0, factor=1 / 6),
    "hard_tanh": Ramp(scale=3.0, offset=3.0, factor=1 / 3, summand=-1.0),
}
LEAKY_SLOPE = 0.2  # of `activation="leaky_relu"`


class UnknownFormError(Exception):
    """An activation that integers are not known for; its name in quotes."""


def form_of(function: Any, shape: tuple[int | None, ...]) -> Form:
    """What an activation is made of.

    Args:
        function: of `keras.activations`, a layer, or an operation.
        shape: of the tensor, batch included.

    Raises:
        UnknownFormError: of nothing that is known here.
    """
    kind = type(function).__name__
    if kind == "Activation":
        return form_of(function.activation, shape)
    name = str(getattr(function, "__name__", _function_name(kind)))
    if str(getattr(function, "__module__", "")).partition(".")[0] not in ("keras", "tf_keras"):
        raise UnknownFormError(repr(name))  # a function of one's own may have the name of another
    if kind in _WITH_OPTIONS:
        return _WITH_OPTIONS[kind](function)
    if name not in _NAMED or (name == "softmax" and not _is_over_channels(function, shape)):
        raise UnknownFormError(repr(name))
    return _NAMED[name]


def is_activation(kind: str) -> bool:
    """Whether that is what an activation's function leaves behind in a graph when it is called on a symbolic tensor."""
    return _function_name(kind) in _NAMED


def _function_name(kind: str) -> str:
    """`LeakyRelu` is left behind by `leaky_relu`."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", kind).lower()


def _relu(layer: Any) -> Form:
    top = layer.max_value
    if layer.threshold or (layer.negative_slope and top is not None):
        raise UnknownFormError("'ReLU' with a threshold, or a slope and a largest value")
    if layer.negative_slope:
        return Leaky(slopes=np.array(float(layer.negative_slope)))
    if top is None or top == 6:
        return Relu(top=None if top is None else 6.0)
    if top <= 0:
        raise UnknownFormError("'ReLU' up to 0")
    return Ramp(scale=6 / float(top), offset=0.0, factor=float(top) / 6)


def _leaky(layer: Any) -> Form:
    return Leaky(slopes=np.array(float(layer.negative_slope)))


def _prelu(layer: Any) -> Form:
    alpha = np.asarray(layer.alpha, np.float64)
    rows = alpha.reshape(-1, alpha.shape[-1])
    if not np.all(rows == rows[0]):
        raise UnknownFormError("'PReLU' with a slope for each place")
    return Leaky(slopes=rows[0])


def _gelu(operation: Any) -> Form:
    return Gelu(approximate=bool(operation.approximate))


def _is_over_channels(function: Any, shape: tuple[int | None, ...]) -> bool:
    """Whether a softmax is that at the end of a classifier."""
    return len(shape) == 2 and getattr(function, "axis", -1) in (-1, 1)


_WITH_OPTIONS: dict[str, Callable[[Any], Form]] = {
    "Gelu": _gelu,
    "LeakyReLU": _leaky,
    "LeakyRelu": _leaky,
    "PReLU": _prelu,
    "ReLU": _relu,
}
_NAMED: dict[str, Form] = {**KNOWN, **RAMPS, "leaky_relu": Leaky(slopes=np.array(LEAKY_SLOPE))}


@dataclass(frozen=True, kw_only=True, eq=False)
class DividedSwish(Swish):
    """swish(u) / divisor: the same numbers as an equalized swish, where nothing in front of them is rounded.

    Runtimes that fuse a swish with the convolution before it know it in this form, and take the product along.

    Attributes:
        divisor: one factor per channel.
    """

    divisor: Array

    def compute(self, do: Do, u: Any) -> Any:
        gate = do(Sigmoid(suffix="gate"), u, tensor=SIGMOID)
        return do(Divided(1 / self.divisor), do(GateProduct(), u, gate, tensor=None))


class Divided(Gain):
    """The factors behind a swish that are multiplied back later: a product, whatever is around it."""

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        factor = file.constant(f"{name}/gain", self.factors.reshape(1, -1, 1, 1))
        return str(file.node("Mul", [*tensors, factor], f"{name}/divided"))
