"""The steps that move the values of a map about: in other shapes, cut, framed, pooled, resized.

Integer kernels give the output of each the range of its input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .ranges import Array
from .steps import Samples, Step


@dataclass(frozen=True, kw_only=True)
class Reshape(Step):
    """The values of a picture in another shape, read row by row.

    Attributes:
        shape: of one picture's output, `(values,)` or `(height, width, channels)`.
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
        if self.shape[:-1] == (1, 1) and file.graph.flat[self.inputs[0]]:
            return x
        shape = self.shape if len(self.shape) == 3 else (-1, 1, 1)
        ordered = file.node("Transpose", [x], f"{name}/nhwc", perm=[0, 2, 3, 1])
        if len(self.shape) == 1:
            row = file.constant(f"{name}/row", np.array([0, *shape], np.int64))
            return str(file.node("Reshape", [ordered, row], f"{name}/reshaped"))
        sides = file.constant(f"{name}/sides", np.array([0, *shape], np.int64))
        shaped = file.node("Reshape", [ordered, sides], f"{name}/shaped")
        return str(file.node("Transpose", [shaped], f"{name}/reshaped", perm=[0, 3, 1, 2]))

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        channels = samples[source].shape[1]
        if len(weights) % channels:  # every channel is in many
            return np.full(channels, weights.mean())
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


@dataclass(frozen=True, kw_only=True)
class Crop(Step):
    """A map without its border.

    Attributes:
        cropping: what to take away ((top, bottom), (left, right)).
    """

    passes_factors = True
    keeps_range = True

    cropping: tuple[tuple[int, int], tuple[int, int]]

    def tensorflow(self, *values: Any) -> Any:
        (top, bottom), (left, right) = self.cropping
        return values[0][:, top : -bottom or None, left : -right or None]

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Cropping2D(self.cropping, name=name)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.passed("STRIDED_SLICE", *tensors, value=name))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        (top, bottom), (left, right) = self.cropping
        most = np.iinfo(np.int64).max
        ends = [[top, left], [-bottom or most, -right or most], [2, 3]]
        given = [
            file.constant(f"{name}/{what}", np.array(values, np.int64))
            for what, values in zip(("starts", "ends", "axes"), ends, strict=True)
        ]
        return str(file.node("Slice", [*tensors, *given], f"{name}/cropped"))

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        return weights


class GlobalMax(Step):
    """The largest value of each channel, as a map of one pixel."""

    passes_factors = True
    keeps_range = True

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.reduce_max(values[0], axis=(1, 2), keepdims=True)

    def layer(self, layers: Any, name: str) -> Any:
        return layers.GlobalMaxPooling2D(keepdims=True, name=name)

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        """As a pool, for which there are integer kernels."""
        (x,) = values
        return keras.layers.MaxPooling2D(x.shape[1:3], name=name)(x)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        return int(file.passed("MAX_POOL_2D", *tensors, value=name))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        return str(file.node("GlobalMaxPool", [*tensors], f"{name}/float"))

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        return weights


@dataclass(frozen=True, kw_only=True)
class Resize(Step):
    """A map in another size, as `tf.image.resize` computes it.

    Attributes:
        smooth: bilinear; otherwise the nearest pixel.
        size: height and width of the output, or None.
        factors: how often each pixel is repeated instead, vertically and horizontally.
    """

    passes_factors = True
    keeps_range = True

    smooth: bool
    size: tuple[int, int] | None = None
    factors: tuple[int, int] = (1, 1)

    @property
    def _method(self) -> str:
        return "bilinear" if self.smooth else "nearest"

    def size_of(self, sides: Any) -> tuple[int, int]:
        """Of the output, given height and width of the input."""
        return self.size or (int(sides[0]) * self.factors[0], int(sides[1]) * self.factors[1])

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        return tf.image.resize(values[0], self.size_of(values[0].shape[1:3]), self._method)

    def layer(self, layers: Any, name: str) -> Any:
        if self.size is None:
            return layers.UpSampling2D(self.factors, interpolation=self._method, name=name)
        return layers.Resizing(*self.size, interpolation=self._method, name=name)

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        (x,) = values
        return keras.ops.image.resize(x, self.size_of(x.shape[1:3]), interpolation=self._method)

    def tflite(self, file: Any, name: str, *tensors: int) -> int:
        code = "RESIZE_BILINEAR" if self.smooth else "RESIZE_NEAREST_NEIGHBOR"
        return int(file.passed(code, *tensors, value=name))

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        before = file.shapes[self.inputs[0]][1:3]
        after = self.size_of(before)
        # a size would need the batch beside it; so that rounding down does not lose a pixel, a little more
        ratios = [1.0, 1.0, *((to + 1e-4) / side for side, to in zip(before, after, strict=True))]
        scales = file.constant(f"{name}/scales", np.array(ratios, np.float32))
        options = (
            {"mode": "linear"} if self.smooth else {"mode": "nearest", "nearest_mode": "round_prefer_ceil"}
        )
        inputs = [*tensors, "", scales]
        return str(
            file.node(
                "Resize", inputs, f"{name}/resized", coordinate_transformation_mode="half_pixel", **options
            )
        )

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        return weights * (self.factors[0] * self.factors[1])
