"""The steps that have weights: affine, convolutions, matrix products, with the activation behind them.

See `steps` for what every step says of itself; these say besides what their regression is and what becomes
of factors on the channels they read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from .ops import LINEAR, OUTPUT, Activation, Do, row_of
from .ranges import Array
from .steps import Samples, Step

Padding = str | tuple[tuple[int, int], tuple[int, int]]


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
    sees_zeros: ClassVar[bool] = True  # beside its input: a shift of that is then no shift of its bias

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
        layer.set_weights([self.kernel_keras(), self.bias])
        return y

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.after(self.tflite_name, *tensors, kernel=self.kernel_ohwi()))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        weights = file.kernel(name, self.kernel_oihw(), self.bias, source=self.inputs[0])
        return str(file.node("Conv", [*tensors, *weights], f"{name}/convolution", **self.onnx_options()))

    def kernel_keras(self) -> Array:
        """The kernel as its Keras layer stores it."""
        return self.kernel

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

    def backwards(self, slope: Any, sizes: Any) -> Any:
        """Slopes along its input, of the given sizes, from those along what its kernel gives.

        TensorFlow's own gradient computes those along the kernel too. None: it has to do.
        """
        return None

    def of_constant(self, values: Array) -> Array:
        """What comes out, without the bias, where every pixel has these values, one per channel."""
        summed = self.kernel.astype(np.float64).reshape(-1, *self.kernel.shape[-2:]).sum(axis=0)
        return np.asarray(values @ summed)

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
        dilation: distance of the pixels that it sees, vertically and horizontally.
    """

    tflite_name = "CONV_2D"
    gradient: ClassVar[str | None] = "Conv2DBackpropInput"  # TensorFlow's operator, along the input alone

    strides: tuple[int, int] = (1, 1)
    padding: Padding = "same"
    dilation: tuple[int, int] = (1, 1)

    @property
    def reach(self) -> tuple[int, int]:
        """Height and width of what it sees at once."""
        tall, wide = (
            (side - 1) * step + 1 for side, step in zip(self.kernel.shape, self.dilation, strict=False)
        )
        return tall, wide

    @property
    def sees_zeros(self) -> bool:  # type: ignore[override]
        if isinstance(self.padding, str):
            return self.padding == "same" and self.kernel.shape[:2] != (1, 1)
        return self.padding != ((0, 0), (0, 0))

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        padding = self.padding
        explicit = padding.upper() if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]
        strides = (1, *self.strides, 1)
        return tf.nn.conv2d(values[0], self.kernel, strides, explicit, dilations=self.dilation) + self.bias

    def backwards(self, slope: Any, sizes: Any) -> Any:
        import tensorflow as tf

        if self.gradient is None or self.dilation != (1, 1):
            return None
        padding: dict[str, Any] = {"padding": "EXPLICIT"}
        if isinstance(self.padding, str):
            padding["padding"] = self.padding.upper()
        else:
            padding["explicit_paddings"] = [0, 0, *self.padding[0], *self.padding[1], 0, 0]
        operator = getattr(tf.raw_ops, self.gradient)
        return operator(
            input_sizes=sizes,
            filter=self.kernel,
            out_backprop=slope,
            strides=[1, *self.strides, 1],
            **padding,
        )

    def ahead(self, layers: Any, name: str) -> Any:
        return (
            None if isinstance(self.padding, str) else layers.ZeroPadding2D(self.padding, name=f"{name}_pad")
        )

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Conv2D(self.channels, name=name, **self._options())

    def _options(self) -> dict[str, Any]:
        padding = self.padding if isinstance(self.padding, str) else "valid"
        return {
            "kernel_size": self.kernel.shape[:2],
            "strides": self.strides,
            "padding": padding,
            "dilation_rate": self.dilation,
        }

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        if self.dilation == (1, 1) or self.padding != "same":
            return super().onnx(file, name, *tensors)
        # ONNX Runtime has no integer convolution that is dilated and finds out its own padding
        told = replace(self, padding=self._zeros(*file.shapes[self.inputs[0]][1:3]))
        return Weighted.onnx(told, file, name, *tensors)

    def kernel_oihw(self) -> Array:
        return np.transpose(self.kernel, (3, 2, 0, 1)).copy()

    def onnx_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "kernel_shape": list(self.kernel.shape[:2]),
            "strides": list(self.strides),
            "group": len(self.grouped()),
        }
        if self.dilation != (1, 1):
            options["dilations"] = list(self.dilation)
        if isinstance(self.padding, str):
            return {**options, "auto_pad": "SAME_UPPER" if self.padding == "same" else "VALID"}
        (top, bottom), (left, right) = self.padding
        return {**options, "pads": [top, left, bottom, right]}

    def seen_at(self, x: Array, places: int, rng: np.random.Generator) -> Array:
        _, height, width, _ = x.shape
        (tall, wide), (high, broad) = self.kernel.shape[:2], self.reach
        (top, bottom), (left, right) = self._zeros(height, width)
        down, across = self.strides
        rows = (height + top + bottom - high) // down + 1
        columns = (width + left + right - broad) // across + 1
        total = rows * columns
        parts = []
        for image in x:
            chosen = rng.permutation(total)[:places] if places < total else np.arange(total)
            y, x_ = chosen // columns * down - top, chosen % columns * across - left
            ys = y[:, np.newaxis, np.newaxis] + self.dilation[0] * np.arange(tall)[:, np.newaxis]
            xs = x_[:, np.newaxis, np.newaxis] + self.dilation[1] * np.arange(wide)
            inside = (ys >= 0) & (ys < height) & (xs >= 0) & (xs < width)
            patch = image[np.clip(ys, 0, height - 1), np.clip(xs, 0, width - 1)]
            if not inside.all():
                patch *= inside[..., np.newaxis]
            parts.append(patch.reshape(len(chosen), tall * wide, -1))
        return np.concatenate(parts)

    def _zeros(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The padding in numbers."""
        if not isinstance(self.padding, str):
            return self.padding
        if self.padding == "valid":
            return (0, 0), (0, 0)
        sides = []
        for size, kernel, stride in zip((height, width), self.reach, self.strides, strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides.append((total // 2, total - total // 2))
        return sides[0], sides[1]


class Depthwise(Conv):
    """A convolution of each channel on its own."""

    kernel_name = "depthwise_kernel"
    tflite_name = "DEPTHWISE_CONV_2D"
    gradient = "DepthwiseConv2dNativeBackpropInput"

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        (x,), padding = values, self.padding
        if not isinstance(padding, str):
            x, padding = tf.pad(x, [(0, 0), *padding, (0, 0)]), "valid"
        strides = (1, *self.strides, 1)
        return (
            tf.nn.depthwise_conv2d(x, self.kernel, strides, padding.upper(), dilations=self.dilation)
            + self.bias
        )

    def layer(self, layers: Any, name: str) -> Any:
        return layers.DepthwiseConv2D(name=name, **self._options())

    def kernel_oihw(self) -> Array:
        return np.transpose(self.kernel, (2, 3, 0, 1)).copy()

    def kernel_ohwi(self) -> Array:
        return self.kernel

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        squares = np.asarray(self.kernel, np.float64) ** 2
        return np.asarray(squares.sum(axis=(0, 1, 3)) * weights * self.slope(samples))

    def of_constant(self, values: Array) -> Array:
        return np.asarray(values * self.kernel.astype(np.float64).sum(axis=(0, 1, 3)))

    def by_channel(self, factors: Array) -> Array:
        return factors[:, np.newaxis]

    def grouped(self) -> Array:
        return np.moveaxis(self.kernel.reshape(-1, self.channels, 1), 1, 0)

    def grouped_bias(self) -> Array:
        return self.bias.reshape(-1, 1, 1)

    def with_grouped(self, kernel: Array) -> Weighted:
        return replace(self, kernel=np.moveaxis(kernel, 0, 1).reshape(self.kernel.shape))

    def grouped_rows(self, seen: Array) -> Array:
        return np.ascontiguousarray(np.moveaxis(seen, 2, 0))  # products of views take ten times as long


class Dense(Weighted):
    """A matrix product, the classifier."""

    sees_zeros = False
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
