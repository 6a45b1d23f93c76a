"""The steps of a network, one class for each kind: what quantization decides about at once.

A convolution with batch normalization folded into it and the activation behind it, a mean, a product, a
sum. Each is an operator (see `ops`) and says besides what the method asks of it: what becomes of factors on
the channels it reads, its regression.

Tensors are `[N, H, W, C]` (`[N, C]` behind a mean without kept dimensions). Kernels are as Keras stores
them: `Conv` `[h, w, in, out]`, `Depthwise` `[h, w, channels, 1]`, `Dense` `[in, out]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from .ops import OUTPUT, Do, Multiplied, Operator, key_of


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


class Sum(_Join):
    """The sum of two tensors: a residual connection."""

    tflite_name, onnx_name = "ADD", "Add"

    def tensorflow(self, *values: Any) -> Any:
        return values[0] + values[1]

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Add(name=name)


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
