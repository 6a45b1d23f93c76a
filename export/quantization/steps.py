"""The steps of a network, one class for each kind: what quantization decides about at once.

A convolution with batch normalization folded into it and the activation behind it, a mean, a product, a
sum. Each is an operator (see `ops`) and says besides what the method asks of it: how errors pass through
it, what becomes of factors on the channels it reads, its regression.

Tensors are `[N, H, W, C]` (`[N, C]` behind a mean without kept dimensions). Kernels are as Keras stores
them: `Conv` `[h, w, in, out]`, `Depthwise` `[h, w, channels, 1]`, `Dense` `[in, out]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from .ops import LINEAR, OUTPUT, Activation, Do, Operator, key_of, row_of
from .ranges import Array

Padding = str | tuple[tuple[int, int], tuple[int, int]]
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
class Affine(Step):
    """x · kernel + bias per channel: preprocessing.

    Attributes:
        kernel: one factor per channel; None for 1.
        bias: one summand per channel.
    """

    kernel: Array | None
    bias: Array

    def tensorflow(self, *values: Any) -> Any:
        return values[0] + self.bias if self.kernel is None else values[0] * self.kernel + self.bias

    def layer(self, layers: Any, name: str) -> Any:
        scale = 1.0 if self.kernel is None else self.kernel.tolist()
        return layers.Rescaling(scale, self.bias.tolist(), name=name)

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        (x,) = values
        scaled = x if self.kernel is None else x * row_of(x, self.kernel)
        return scaled + row_of(x, self.bias)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        (x,) = tensors
        if self.kernel is not None:
            x = file.note(file.after("MUL", x), self.key("scaled"))
        return int(file.after("ADD", x)) if self.bias.any() else x  # the converter leaves out a sum with 0

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        """In float: the pixels arrive as float anyway, and are rounded once."""
        (x,) = tensors
        if self.kernel is not None:
            factor = file.constant(f"{name}/factor", self.kernel.reshape(1, -1, 1, 1))
            x = file.node("Mul", [x, factor], f"{name}/scaled")
        summand = file.constant(f"{name}/summand", self.bias.reshape(1, -1, 1, 1))
        return str(file.node("Add", [x, summand], f"{name}/float"))

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        return weights if self.kernel is None else weights * self.kernel.astype(np.float64) ** 2


@dataclass(frozen=True, kw_only=True)
class Weighted(Step):
    """A step with a kernel, and the activation behind it.

    For regression it is `groups` independent layers of `[fan_in] → [outputs]`: a convolution is one
    group, a depthwise convolution one group per channel.

    Attributes:
        kernel: weights, see the module.
        bias: one summand per output channel.
        activation: what follows.
    """

    kernel_name: ClassVar[str] = "kernel"
    tflite_name: ClassVar[str]

    kernel: Array
    bias: Array
    activation: Activation = LINEAR

    def compute(self, do: Do, *sources: Any) -> Any:
        return self.activation.compute(do, do(self, *sources, tensor=self.activation.entry))

    @property
    def channels(self) -> int:
        return int(self.bias.shape[0])

    def channels_of(self, sources: list[int]) -> int:
        return self.channels

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        (x,) = values
        if (ahead := self.ahead(keras.layers, name)) is not None:
            x = ahead(x)
        layer = self.layer(keras.layers, name)
        y = layer(x)
        layer.set_weights([self.kernel, self.bias])
        return y

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after(self.tflite_name, *tensors, kernel=self.kernel_ohwi()))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        weights = file.kernel(name, self.kernel_oihw(), self.bias, source=self.inputs[0])
        return str(file.node("Conv", [*tensors, *weights], f"{name}/convolution", **self.onnx_options()))

    def kernel_oihw(self) -> Array:
        """The kernel of a convolution in ONNX' order: output, input, height, width."""
        raise NotImplementedError

    def kernel_ohwi(self) -> Array:
        """The kernel in TFLite's order: output, height, width, input; a depthwise one height, width, channel."""
        return np.moveaxis(self.kernel, -1, 0)

    def onnx_options(self) -> dict[str, Any]:
        """The attributes of ONNX' convolution."""
        raise NotImplementedError

    def slope(self, samples: Samples) -> Array:
        """Mean squared derivative of its activation, per channel."""
        return self.activation.slope(samples[self.key(self.activation.entry or OUTPUT)])

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        squares = np.asarray(self.kernel, np.float64) ** 2
        behind = weights * self.slope(samples)
        return np.asarray(squares.reshape(-1, *squares.shape[-2:]).sum(0) @ behind)

    def times_input(self, factors: Array) -> Weighted:
        """The step for an input whose channels were divided by `factors`."""
        return replace(self, kernel=(self.kernel * factors[:, np.newaxis]).astype(np.float32))

    def by_channel(self, factors: Array) -> Array:
        """One factor per output channel, in a shape that multiplies the kernel."""
        return factors

    def grouped(self) -> Array:
        """The kernel as `[groups, fan_in, outputs]`."""
        return self.kernel.reshape(1, -1, self.channels)

    def grouped_bias(self) -> Array:
        """The bias as `[groups, 1, outputs]`."""
        return self.bias.reshape(1, 1, -1)

    def with_grouped(self, kernel: Array) -> Weighted:
        """The step with another kernel `[groups, fan_in, outputs]`."""
        return replace(self, kernel=kernel.reshape(self.kernel.shape))

    def grouped_rows(self, seen: Array) -> Array:
        """What the kernel sees, `[samples, places, channels]`, as `[groups, samples, fan_in]`."""
        return seen.reshape(1, len(seen), -1)

    def seen_at(self, x: Array, places: int, rng: np.random.Generator) -> Array:
        """What the kernel sees of `x` at random places of every picture, `[samples, places, channels]`."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Conv(Weighted):
    """A convolution.

    Attributes:
        strides: vertical and horizontal.
        padding: `"same"`, `"valid"`, or zeros to add ((top, bottom), (left, right)).
    """

    tflite_name = "CONV_2D"

    strides: tuple[int, int] = (1, 1)
    padding: Padding = "same"

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        padding = self.padding
        explicit = padding.upper() if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]
        return tf.nn.conv2d(values[0], self.kernel, (1, *self.strides, 1), explicit) + self.bias

    def ahead(self, layers: Any, name: str) -> Any:
        return (
            None if isinstance(self.padding, str) else layers.ZeroPadding2D(self.padding, name=f"{name}_pad")
        )

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Conv2D(self.channels, name=name, **self._options())

    def _options(self) -> dict[str, Any]:
        padding = self.padding if isinstance(self.padding, str) else "valid"
        return {"kernel_size": self.kernel.shape[:2], "strides": self.strides, "padding": padding}

    def kernel_oihw(self) -> Array:
        return np.transpose(self.kernel, (3, 2, 0, 1)).copy()

    def onnx_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "kernel_shape": list(self.kernel.shape[:2]),
            "strides": list(self.strides),
            "group": len(self.grouped()),
        }
        if isinstance(self.padding, str):
            return {**options, "auto_pad": "SAME_UPPER" if self.padding == "same" else "VALID"}
        (top, bottom), (left, right) = self.padding
        return {**options, "pads": [top, left, bottom, right]}

    def seen_at(self, x: Array, places: int, rng: np.random.Generator) -> Array:
        _, height, width, _ = x.shape
        tall, wide = self.kernel.shape[:2]
        (top, bottom), (left, right) = self._zeros(height, width)
        down, across = self.strides
        rows = (height + top + bottom - tall) // down + 1
        columns = (width + left + right - wide) // across + 1
        total = rows * columns
        parts = []
        for image in x:
            chosen = rng.permutation(total)[:places] if places < total else np.arange(total)
            y, x_ = chosen // columns * down - top, chosen % columns * across - left
            ys = y[:, np.newaxis, np.newaxis] + np.arange(tall)[:, np.newaxis]
            xs = x_[:, np.newaxis, np.newaxis] + np.arange(wide)
            inside = (ys >= 0) & (ys < height) & (xs >= 0) & (xs < width)
            patch = image[np.clip(ys, 0, height - 1), np.clip(xs, 0, width - 1)] * inside[..., np.newaxis]
            parts.append(patch.reshape(len(chosen), tall * wide, -1))
        return np.concatenate(parts)

    def _zeros(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The padding in numbers."""
        if not isinstance(self.padding, str):
            return self.padding
        if self.padding == "valid":
            return (0, 0), (0, 0)
        sides = []
        for size, kernel, stride in zip((height, width), self.kernel.shape[:2], self.strides, strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides.append((total // 2, total - total // 2))
        return sides[0], sides[1]


class Depthwise(Conv):
    """A convolution of each channel on its own."""

    kernel_name = "depthwise_kernel"
    tflite_name = "DEPTHWISE_CONV_2D"

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        (x,), padding = values, self.padding
        if not isinstance(padding, str):
            x, padding = tf.pad(x, [(0, 0), *padding, (0, 0)]), "valid"
        return tf.nn.depthwise_conv2d(x, self.kernel, (1, *self.strides, 1), padding.upper()) + self.bias

    def layer(self, layers: Any, name: str) -> Any:
        return layers.DepthwiseConv2D(name=name, **self._options())

    def kernel_oihw(self) -> Array:
        return np.transpose(self.kernel, (2, 3, 0, 1)).copy()

    def kernel_ohwi(self) -> Array:
        return self.kernel

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        squares = np.asarray(self.kernel, np.float64) ** 2
        return np.asarray(squares.sum(axis=(0, 1, 3)) * weights * self.slope(samples))

    def by_channel(self, factors: Array) -> Array:
        return factors[:, np.newaxis]

    def grouped(self) -> Array:
        return np.moveaxis(self.kernel.reshape(-1, self.channels, 1), 1, 0)

    def grouped_bias(self) -> Array:
        return self.bias.reshape(-1, 1, 1)

    def with_grouped(self, kernel: Array) -> Weighted:
        return replace(self, kernel=np.moveaxis(kernel, 0, 1).reshape(self.kernel.shape))

    def grouped_rows(self, seen: Array) -> Array:
        return np.moveaxis(seen, 2, 0)


class Dense(Weighted):
    """A matrix product, the classifier."""

    tflite_name = "FULLY_CONNECTED"

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.linalg.matmul(values[0], self.kernel) + self.bias

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Dense(self.channels, name=name)

    def kernel_oihw(self) -> Array:
        return self.kernel.T[:, :, np.newaxis, np.newaxis].copy()

    def onnx_options(self) -> dict[str, Any]:
        return {"kernel_shape": [1, 1]}

    def seen_at(self, x: Array, places: int, rng: np.random.Generator) -> Array:
        return x[:, np.newaxis, :]


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


@dataclass(frozen=True, kw_only=True)
class Reshape(Step):
    """The values of a picture in another shape: a map in one row, or features as a map of one pixel.

    Attributes:
        shape: of one picture's output, `(values,)` or `(1, 1, values)`.
    """

    keeps_range = True

    shape: tuple[int, ...]

    def is_flat(self, sources: list[bool]) -> bool:
        return len(self.shape) == 1

    def channels_of(self, sources: list[int]) -> int:
        return self.shape[-1]

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.reshape(values[0], (-1, *self.shape))

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Reshape(self.shape, name=name)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.passed("RESHAPE", *tensors))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        """Features are maps of one pixel there already; a map is in another order, channel by channel."""
        (x,) = tensors
        if len(self.shape) > 1:
            return x
        ordered = file.node("Transpose", [x], f"{name}/nhwc", perm=[0, 2, 3, 1])
        row = file.constant(f"{name}/row", np.array([0, -1, 1, 1], np.int64))
        return str(file.node("Reshape", [ordered, row], f"{name}/reshaped"))

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        channels = samples[source].shape[1]
        return np.asarray(weights.reshape(-1, channels).sum(axis=0))


@dataclass(frozen=True, kw_only=True)
class Pad(Step):
    """Zeros around a map; a convolution behind takes them over (see `simplify`).

    Attributes:
        padding: zeros to add ((top, bottom), (left, right)).
    """

    passes_factors = True
    keeps_range = True

    padding: tuple[tuple[int, int], tuple[int, int]]

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.pad(values[0], [(0, 0), *self.padding, (0, 0)])

    def layer(self, layers: Any, name: str) -> Any:
        return layers.ZeroPadding2D(self.padding, name=name)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.passed("PAD", *tensors))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        (top, bottom), (left, right) = self.padding
        pads = file.constant(f"{name}/pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
        return str(file.node("Pad", [*tensors, pads], f"{name}/padded"))

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        return weights


@dataclass(frozen=True, kw_only=True)
class Pool(Step):
    """The mean or the maximum of each window of a map.

    Attributes:
        mean: otherwise the maximum.
        size: of the window.
        strides: vertical and horizontal.
        padding: `"same"` or `"valid"`; what lies beyond the border does not count.
    """

    keeps_range = True

    mean: bool
    size: tuple[int, int]
    strides: tuple[int, int]
    padding: str

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        pool = tf.nn.avg_pool2d if self.mean else tf.nn.max_pool2d
        return pool(values[0], self.size, self.strides, self.padding.upper())

    def layer(self, layers: Any, name: str) -> Any:
        kind = layers.AveragePooling2D if self.mean else layers.MaxPooling2D
        return kind(self.size, self.strides, self.padding, name=name)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after("AVERAGE_POOL_2D" if self.mean else "MAX_POOL_2D", *tensors, value=name))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        padding = "SAME_UPPER" if self.padding == "same" else "VALID"
        options = {"kernel_shape": list(self.size), "strides": list(self.strides), "auto_pad": padding}
        return str(
            file.node("AveragePool" if self.mean else "MaxPool", [*tensors], f"{name}/float", **options)
        )

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        return weights / np.prod(self.size) if self.mean else weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Island(Step):
    """Something that integers are not known for: it computes in float, as Keras does, and costs only itself.

    Attributes:
        function: from tensors with values, or symbolic ones, to one tensor.
        what: the layer in words.
        parts: the layers whose weights it uses.
        shape: of one picture's output, as far as it is known.
    """

    function: Callable[[list[Any]], Any]
    what: str
    parts: tuple[Any, ...]
    shape: tuple[int | None, ...]

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

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        return np.full(samples[source].shape[1], weights.mean())


class _Join(Step):
    """A step that makes one tensor of several."""

    tflite_name: ClassVar[str]
    onnx_name: ClassVar[str]

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        return self.layer(keras.layers, name)(list(values))

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after(self.tflite_name, *tensors))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        return str(file.node(self.onnx_name, [*tensors], f"{name}/float"))


class Product(_Join):
    """The product of two tensors: squeeze-and-excite."""

    passes_factors = True
    tflite_name, onnx_name = "MUL", "Mul"

    def tensorflow(self, *values: Any) -> Any:
        return values[0] * values[1]

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Multiply(name=name)

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        other = next(name for name in self.inputs if name != source)
        return np.asarray(weights * np.mean(samples[other].astype(np.float64) ** 2, axis=0))


class Sum(_Join):
    """The sum of two tensors: a residual connection."""

    tflite_name, onnx_name = "ADD", "Add"

    def tensorflow(self, *values: Any) -> Any:
        return values[0] + values[1]

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Add(name=name)

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        return weights


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
