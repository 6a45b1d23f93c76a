"""The steps of a network, one class for each kind: what quantization decides about at once.

A convolution with batch normalization folded into it and the activation behind it, a mean, a product, a
sum. Each is an operator (see `ops`) and says besides what the method asks of it: how errors pass through
it, what becomes of factors on the channels it reads, its regression.

Tensors are `[N, H, W, C]` (`[N, C]` behind a mean without kept dimensions). Kernels are as Keras stores
them: `Conv` `[h, w, in, out]`, `Depthwise` `[h, w, channels, 1]`, `Dense` `[in, out]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .ops import OUTPUT, Do, Multiplied, Operator, key_of
from .ranges import Array

Samples = Mapping[str, Array]  # `[values, channels]` by key


@dataclass(frozen=True, kw_only=True)
class Step(Operator):
    """One step of a network.

    Attributes:
        name: unique; that of the Keras layer that holds the weights or does the arithmetic.
        inputs: names of the steps it reads.
    """

    passes_factors: ClassVar[bool] = False  # factors on channels it reads come out on those it makes
    keeps_range: ClassVar[bool] = False  # integer kernels give its output the range of its input
    trains: ClassVar[bool] = True  # whether `tensorflow_model_optimization` can train it

    name: str
    inputs: tuple[str, ...] = ()

    def is_flat(self, sources: list[bool]) -> bool:
        """Whether its output is `[N, C]` in Keras, given whether its inputs are."""
        return bool(sources) and all(sources)

    def key(self, tensor: str = OUTPUT) -> str:
        """The key of one of its tensors."""
        return key_of(self.name, tensor)

    def compute(self, do: Do, *sources: Any) -> Any:
        """The program, see `ops`: its output from the outputs of the steps it reads."""
        return do(self, *sources)

    def channels_of(self, sources: list[int]) -> int:
        """Channels of its output, given those of its inputs."""
        return sources[0]

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        """How much errors in the channels of `source` matter, given how much those of the output do.

        To first order, and as if the errors of channels were independent.

        Args:
            weights: of the output's channels.
            source: name of the input.
            samples: of the network's tensors.
        """
        raise NotImplementedError


class Input(Step):
    """The picture, RGB pixels 0–255."""


@dataclass(frozen=True, kw_only=True)
class Mean(Step):
    """The mean over height and width."""

    passes_factors = True

    keepdims: bool = True

    def is_flat(self, sources: list[bool]) -> bool:
        return not self.keepdims

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.reduce_mean(values[0], axis=(1, 2), keepdims=self.keepdims)

    def layer(self, layers: Any, name: str) -> Any:
        return layers.GlobalAveragePooling2D(keepdims=self.keepdims, name=name)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after("MEAN", *tensors))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        return str(file.node("GlobalAveragePool", [*tensors], f"{name}/mean"))

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        # independent errors average out; what is left over a map of n places is 1/n
        return weights * 1e-2 if self.keepdims else weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Island(Step):
    """Something that integers are not known for: it computes in float, as Keras does, and costs only itself.

    Attributes:
        function: from tensors with values, or symbolic ones, to one tensor.
        what: the layer in words.
        parts: the layers whose weights it uses.
        shape: of one picture's output, as far as it is known.
        dtype: of its values.
    """

    trains = False

    function: Callable[[list[Any]], Any]
    what: str
    parts: tuple[Any, ...]
    shape: tuple[int | None, ...]
    dtype: str = "float32"

    def is_flat(self, sources: list[bool]) -> bool:
        return len(self.shape) == 1

    def channels_of(self, sources: list[int]) -> int:
        return int(self.shape[-1] or 0)

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return self.function([tf.convert_to_tensor(value) for value in values])

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        step = self

        class Foreign(keras.layers.Layer):
            """Leaves no trace in the user's layers, which it calls with values only."""

            def __init__(self) -> None:
                super().__init__(name=name)
                self.parts = [part for part in step.parts if isinstance(part, keras.layers.Layer)]

            def call(self, *tensors: Any) -> Any:
                return step.function(list(tensors))

        return Foreign()(*values)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.island(name, *tensors))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        return str(file.island(self, *tensors))

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        return np.full(samples[source].shape[1], weights.mean())


class _Join(Step):
    """A step that makes one tensor of several."""

    tflite_name: ClassVar[str]
    onnx_name: ClassVar[str]

    def channels_of(self, sources: list[int]) -> int:
        return max(sources)

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        return self.layer(keras.layers, name)(list(values))

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after(self.tflite_name, *tensors))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        return str(file.node(self.onnx_name, [*tensors], f"{name}/float"))


class Product(Multiplied, _Join):
    """The product of two tensors: squeeze-and-excite."""

    passes_factors = True
    onnx_name = "Mul"

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Multiply(name=name)

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        other = next((name for name in self.inputs if name != source), source)
        behind = weights * np.mean(samples[other].astype(np.float64) ** 2, axis=0)
        return _for_channels(behind, samples[source].shape[1])


class Sum(_Join):
    """The sum of two tensors: a residual connection."""

    tflite_name, onnx_name = "ADD", "Add"

    def tensorflow(self, *values: Any) -> Any:
        return values[0] + values[1]

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Add(name=name)

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        return _for_channels(weights, samples[source].shape[1])


class Difference(Sum):
    """The first tensor without the second."""

    tflite_name, onnx_name = "SUB", "Sub"

    def tensorflow(self, *values: Any) -> Any:
        return values[0] - values[1]

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Subtract(name=name)


class Larger(Sum):
    """The larger of two values at each place."""

    tflite_name, onnx_name = "MAXIMUM", "Max"

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.maximum(*values)

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Maximum(name=name)


def _for_channels(weights: Array, channels: int) -> Array:
    """Weights of an output's channels for an input whose one channel may meet all of them."""
    return weights if channels == len(weights) else np.full(channels, weights.sum())


class Concatenate(_Join):
    """The channels of several tensors, one after the other."""

    tflite_name, onnx_name = "CONCATENATION", "Concat"

    def channels_of(self, sources: list[int]) -> int:
        return sum(sources)

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.concat(values, -1)

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Concatenate(name=name)

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        return str(file.node(self.onnx_name, [*tensors], f"{name}/float", axis=1))

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        ends = np.cumsum([samples[name].shape[1] for name in self.inputs])[:-1]
        parts = zip(self.inputs, np.split(weights, ends), strict=True)
        return np.sum([part for name, part in parts if name == source], axis=0)
