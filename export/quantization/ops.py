"""The operators that activations are made of: what each computes, and what it is in every file.

An operator is one class with all its forms: arithmetic for whole tensors (TensorFlow) and for samples
(NumPy), a Keras layer, the operator of a TFLite file, the node of an ONNX file. The steps of a network
(see `steps`) are operators too. Activations that EfficientNets do not have are in `activations`.

A step *computes* itself as a short program of operators, `do(operator, *values, tensor=...)`. Whoever
runs the program gives it his `do`: float arithmetic, integer arithmetic, a Keras model to be built, a
TFLite file to be read, an ONNX file to be written. `tensor` says which tensor of the step results: the
key of its range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .ranges import Array, Range, best_range, covering, sigmoid

OUTPUT, PRE, GATE, SIGMOID = "", "pre", "gate", "sigmoid"  # the tensors of a step
LARGEST = 127  # of an int8 weight; -128 stays unused

Do = Callable[..., Any]
Loss = Callable[[Range], float]


def key_of(name: str, tensor: str) -> str:
    """The key of a step's tensor: `name` for its output, `name/pre` in front of its activation, …"""
    return f"{name}/{tensor}" if tensor else name


def step_of(key: str) -> str:
    """The name of the step that a key belongs to."""
    return key.partition("/")[0]


class Operator:
    """What a file computes at once. `name` below is that of the step it belongs to."""

    fixed: ClassVar[bool] = False  # its integer output has the scale 1/256 and no other
    kernel_name: ClassVar[str] = ""  # the attribute of its layer that holds a kernel

    def tensorflow(self, *values: Any) -> Any:
        """Its arithmetic in float, for tensors of TensorFlow or NumPy."""
        raise NotImplementedError

    def numpy(self, *values: Array) -> Array:
        """The same for samples, where speed matters."""
        return np.asarray(self.tensorflow(*values))

    def layer(self, layers: Any, name: str) -> Any:
        """A layer of `keras.layers` or `tf_keras.layers`, without its weights."""
        raise NotImplementedError

    def ahead(self, layers: Any, name: str) -> Any:
        """Another layer that must stand in front of it, or None."""
        return None

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        """The same in a Keras 3 graph, in the form that integer kernels run fastest."""
        return self.layer(keras.layers, name)(*values)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        """Find it in a TFLite file (see `to_tflite`); the tensor it makes."""
        raise NotImplementedError

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        """Write it into an ONNX file (see `to_onnx`); the tensor it makes."""
        raise NotImplementedError


def in_float(operator: Operator, *values: Any, tensor: str | None = OUTPUT) -> Any:
    """The `do` of plain float arithmetic."""
    return operator.tensorflow(*values)


@dataclass(frozen=True, kw_only=True)
class Activation(Operator):
    """An elementwise function behind a step with weights."""

    keras_names: ClassVar[tuple[str, ...]] = ()  # of the functions in `keras.activations`
    entry: ClassVar[str | None] = PRE  # which tensor it reads; None: it is a part of the kernel in front
    weighs_samples: ClassVar[bool] = False  # whether it is so flat in places that errors do not matter there
    slow_in_onnxruntime: ClassVar[bool] = False  # in integers, compared with float
    output_range: ClassVar[Range | None] = None  # where integer kernels have no other for its output

    @property
    def tensors(self) -> tuple[str, ...]:
        """Its tensors whose ranges are to be chosen, in order."""
        return (PRE, OUTPUT)

    def compute(self, do: Do, u: Any) -> Any:
        """The program; see the module."""
        return do(self, u)

    def slope(self, values: Array) -> Array:
        """Mean squared derivative per channel, over samples `[values, channels]` of what it reads.

        Of an activation that is a part of the kernel in front: over samples of what it returns.
        """
        raise NotImplementedError

    @property
    def sharpness(self) -> Any:
        """By how much, per channel, it is narrower along u than it would be by itself."""
        return np.float32(1.0)

    def relevance(self, u: Array) -> Array:
        """How much an error of `u` matters behind it: its squared slope over a unit to either side, at most 1."""
        ends = [np.asarray(self.compute(in_float, u + side / self.sharpness)) for side in (1.0, -1.0)]
        return np.minimum(np.square((ends[0] - ends[1]) * self.sharpness / 2), 1.0)

    def choose(self, tensor: str, values: Array, loss: Loss) -> Range:
        """The range of one of its tensors: samples of it, and the error of a candidate."""
        return best_range(values, loss)


class Linear(Activation):
    """No activation: what the kernel gives is the output."""

    keras_names = ("linear",)
    entry = OUTPUT

    @property
    def tensors(self) -> tuple[str, ...]:
        return (OUTPUT,)

    def compute(self, do: Do, u: Any) -> Any:
        return u

    def slope(self, values: Array) -> Array:
        return np.ones(values.shape[1])


LINEAR = Linear()


@dataclass(frozen=True, kw_only=True)
class Relu(Activation):
    """Nothing below 0, nor above `top`; integer kernels clip their own outputs.

    Attributes:
        top: 6, or None.
    """

    keras_names = ("relu",)
    entry = None
    weighs_samples = True

    top: float | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        return (OUTPUT,)

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.nn.relu(values[0]) if self.top is None else tf.clip_by_value(values[0], 0.0, self.top)

    def layer(self, layers: Any, name: str) -> Any:
        return layers.ReLU(self.top, name=f"{name}_activation")

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return tensors[0]

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        if self.top is None:
            return str(file.node("Relu", [*tensors], f"{name}/relu"))
        limits = [file.constant(f"{name}/{value:g}", np.float32(value)) for value in (0.0, self.top)]
        return str(file.node("Clip", [*tensors, *limits], f"{name}/relu6"))

    def slope(self, values: Array) -> Array:
        top = np.inf if self.top is None else self.top
        return np.asarray(np.mean((values > 0) & (values < top), axis=0) + 1e-6)


@dataclass(frozen=True, kw_only=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-u)); its integer output is a multiple of 1/256, up to 255/256."""

    keras_names = ("sigmoid",)
    fixed = True

    suffix: str = "activation"

    @property
    def tensors(self) -> tuple[str, ...]:
        return (PRE,)

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.sigmoid(values[0])

    def numpy(self, *values: Array) -> Array:
        return np.asarray(sigmoid(values[0]))

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Activation("sigmoid", name=f"{name}_{self.suffix}")

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        return keras.ops.sigmoid(*values)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after("LOGISTIC", *tensors))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        return str(file.node("Sigmoid", [*tensors], f"{name}/sigmoid_float"))

    def slope(self, values: Array) -> Array:
        gate = np.asarray(sigmoid(values.astype(np.float64)))
        return np.asarray(np.mean((gate * (1 - gate)) ** 2, axis=0) + 1e-12)


class Softmax(Activation):
    """Probabilities from logits, at the end of a classifier."""

    keras_names = ("softmax",)

    @property
    def tensors(self) -> tuple[str, ...]:
        return (PRE,)

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.nn.softmax(values[0])

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Softmax(name=f"{name}_activation")

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after("SOFTMAX", *tensors))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        return tensors[0]  # it stands behind the Flatten at the end of the file

    def slope(self, values: Array) -> Array:
        return np.ones(values.shape[1])

    def choose(self, tensor: str, values: Array, loss: Loss) -> Range:
        return covering(values)  # a logit that is cut off is another class


@dataclass(frozen=True, kw_only=True)
class Swish(Activation):
    """u · sigmoid(u); equalized: u · sigmoid(gain · u).

    Attributes:
        gain: one factor per channel, see `equalization`; None for 1.
    """

    keras_names = ("swish", "silu")
    weighs_samples = True
    slow_in_onnxruntime = True  # two passes where float is one
    # a sigmoid is flat beyond these; each pair is tried
    GATE_RANGES: ClassVar[list[Range]] = [
        Range(low=-low, high=high) for low in (4.0, 5.0, 6.0, 8.0) for high in (3.0, 4.0, 5.0, 6.0, 8.0)
    ]

    gain: Array | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        return (PRE, OUTPUT) if self.gain is None else (PRE, GATE, OUTPUT)

    @property
    def sharpness(self) -> Any:
        return np.float32(1.0) if self.gain is None else self.gain

    def compute(self, do: Do, u: Any) -> Any:
        gated = u if self.gain is None else do(Gain(self.gain), u, tensor=GATE)
        return do(GateProduct(), u, do(Sigmoid(suffix="gate"), gated, tensor=SIGMOID))

    def slope(self, values: Array) -> Array:
        u = values.astype(np.float64) * (1.0 if self.gain is None else self.gain)
        gate = np.asarray(sigmoid(u))
        return np.asarray(np.mean((gate + u * gate * (1 - gate)) ** 2, axis=0) + 1e-12)

    def choose(self, tensor: str, values: Array, loss: Loss) -> Range:
        return min(self.GATE_RANGES, key=loss) if tensor == GATE else best_range(values, loss)


ACTIVATIONS: dict[str, Activation] = {
    name: activation
    for activation in (LINEAR, Relu(), Swish(), Sigmoid(), Softmax())
    for name in activation.keras_names
}
ACTIVATIONS["relu6"] = Relu(top=6.0)


@dataclass(frozen=True, eq=False)
class Gain(Operator):
    """The factors of an equalized swish, in front of its sigmoid."""

    factors: Array

    def tensorflow(self, *values: Any) -> Any:
        return values[0] * self.factors

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Rescaling(self.factors.tolist(), name=f"{name}_gain")

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        return values[0] * row_of(values[0], self.factors)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after("MUL", *tensors, constant=True))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        """A depthwise convolution of one pixel: ONNX Runtime's QLinearMul broadcasts channel by channel."""
        if name in file.lifted:
            factor = file.constant(f"{name}/gain", self.factors.reshape(1, -1, 1, 1))
            return str(file.node("Mul", [*tensors, factor], f"{name}/scaled"))
        channels = len(self.factors)
        ones = np.full((channels, 1, 1, 1), LARGEST, np.int8)
        kernel = file.dequantized(f"{name}/gain", ones, self.factors / LARGEST)
        options = {"kernel_shape": [1, 1], "group": channels}
        return str(file.node("Conv", [*tensors, kernel], f"{name}/scaled", **options))


class Multiplied(Operator):
    """The product of two tensors."""

    def tensorflow(self, *values: Any) -> Any:
        return values[0] * values[1]

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after("MUL", *tensors))


class GateProduct(Multiplied):
    """The product of a swish."""

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Multiply(name=f"{name}_swish")

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        return self.tensorflow(*values)

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        return str(file.node("Mul", [*tensors], f"{name}/swish"))


def row_of(x: Any, values: Array) -> Array:
    """One value per channel, repeated along the width.

    XNNPACK broadcasts a constant `[C]` pixel by pixel, with a call for each; a whole row of pixels
    makes the calls long enough to run at memory speed. A row of one channel, the converter would turn.
    """
    if len(x.shape) != 4 or x.shape[3] == 1:
        return values.astype(np.float32)
    return np.tile(values.astype(np.float32), (1, 1, int(x.shape[2]), 1))
