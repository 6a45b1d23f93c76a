"""Convolutions that are neither plain nor one for each channel: grouped ones, and transposed ones, which enlarge a map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .ranges import Array
from .steps import Samples
from .weighted import Conv, Weighted


@dataclass(frozen=True, kw_only=True)
class Grouped(Conv):
    """A convolution whose channels fall into groups; the kernel is `[h, w, in of a group, out]`.

    Attributes:
        groups: how many.
    """

    gradient = None
    trains = False

    groups: int

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        parts = zip(tf.split(values[0], self.groups, -1), tf.split(self.kernel, self.groups, -1), strict=True)
        strides, padding = (1, *self.strides, 1), self.padding
        explicit = padding.upper() if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]
        made = [tf.nn.conv2d(x, kernel, strides, explicit, dilations=self.dilation) for x, kernel in parts]
        return tf.concat(made, -1) + self.bias

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Conv2D(self.channels, groups=self.groups, name=name, **self._options())

    def keras(self, keras: Any, name: str, *values: Any) -> Any:
        """A convolution of TensorFlow's: the layer compiles groups into what no converter reads."""
        import tensorflow as tf

        (x,) = values
        if (ahead := self.ahead(keras.layers, name)) is not None:
            x = ahead(x)
        step, padding = self, self.padding if isinstance(self.padding, str) else "valid"

        class GroupedConv2D(keras.layers.Layer):
            def call(self, x: Any) -> Any:
                strides = (1, *step.strides, 1)
                y = tf.nn.conv2d(x, step.kernel, strides, padding.upper(), dilations=step.dilation)
                return tf.nn.bias_add(y, step.bias)

        return GroupedConv2D(name=name)(x)

    def of_constant(self, values: Array) -> Array:
        summed = self._by_group(self.kernel.astype(np.float64).sum(axis=(0, 1)))
        return np.einsum("gi,gio->go", values.reshape(self.groups, -1), summed).reshape(-1)

    def _by_group(self, pairs: Array) -> Array:
        """`[in of a group, out]` as `[groups, in of a group, out of a group]`."""
        return np.moveaxis(pairs.reshape(len(pairs), self.groups, -1), 1, 0)

    def error_behind(self, weights: Array, source: str, samples: Samples) -> Array:
        squares = self._by_group((np.asarray(self.kernel, np.float64) ** 2).sum(axis=(0, 1)))
        behind = (weights * self.slope(samples)).reshape(self.groups, -1)
        return np.asarray(np.einsum("gio,go->gi", squares, behind).reshape(-1))

    def times_input(self, factors: Array) -> Weighted:
        inside = self.kernel.shape[2]
        spread = np.repeat(factors.reshape(self.groups, inside).T, self.channels // self.groups, axis=1)
        return replace(self, kernel=(self.kernel * spread).astype(np.float32))

    def grouped(self) -> Array:
        return np.moveaxis(self.kernel.reshape(-1, self.groups, self.channels // self.groups), 1, 0)

    def grouped_bias(self) -> Array:
        return self.bias.reshape(self.groups, 1, -1)

    def with_grouped(self, kernel: Array) -> Weighted:
        return replace(self, kernel=np.moveaxis(kernel, 0, 1).reshape(self.kernel.shape))

    def grouped_rows(self, seen: Array) -> Array:
        count, places, _ = seen.shape
        return np.moveaxis(seen.reshape(count, places, self.groups, -1), 2, 0).reshape(self.groups, count, -1)


@dataclass(frozen=True, kw_only=True)
class Transposed(Conv):
    """A transposed convolution: one over the map with zeros between its pixels.

    Its kernel is that of this convolution, `[h, w, in, out]`: upside down and mirrored from how Keras, TFLite and
    ONNX store it. `padding` is `"same"` (the output is `strides` times as large) or `"valid"`.
    """

    tflite_name = "TRANSPOSE_CONV"
    gradient = None
    trains = False

    def _sides(self, sides: tuple[int, ...]) -> list[int]:
        """Height and width of the output."""
        grown = []
        for side, kernel, stride in zip(sides, self.kernel.shape, self.strides, strict=False):
            grown.append(side * stride + (max(kernel - stride, 0) if self.padding == "valid" else 0))
        return grown

    def _cut(self) -> list[tuple[int, int]]:
        """What padding takes from the whole result, before and behind, vertically and horizontally."""
        if self.padding == "valid":
            return [(0, 0), (0, 0)]
        cuts = [
            max(kernel - stride, 0) for kernel, stride in zip(self.kernel.shape, self.strides, strict=False)
        ]
        return [(cut // 2, cut - cut // 2) for cut in cuts]

    def kernel_keras(self) -> Array:
        return np.transpose(self.kernel[::-1, ::-1], (0, 1, 3, 2)).copy()

    def kernel_ohwi(self) -> Array:
        return np.transpose(self.kernel[::-1, ::-1], (3, 0, 1, 2)).copy()

    def kernel_oihw(self) -> Array:
        return np.transpose(self.kernel[::-1, ::-1], (3, 2, 0, 1)).copy()

    def tensorflow(self, *values: Any) -> Any:
        import tensorflow as tf

        (x,) = values
        shape = (len(x), *self._sides(tuple(x.shape[1:3])), self.channels)
        y = tf.nn.conv2d_transpose(
            x, self.kernel_keras(), shape, (1, *self.strides, 1), str(self.padding).upper()
        )
        return y + self.bias

    def layer(self, layers: Any, name: str) -> Any:
        return layers.Conv2DTranspose(self.channels, name=name, **self._options())

    def onnx(self, file: Any, name: str, *tensors: str) -> str:
        kernel, bias = file.kernel(name, self.kernel_oihw(), self.bias, source=self.inputs[0])
        kernel = file.node("Transpose", [kernel], f"{name}/iohw", perm=[1, 0, 2, 3])
        starts, ends = zip(*self._cut(), strict=True)
        sides = zip(self.kernel.shape, self.strides, strict=False)
        options = {
            "kernel_shape": list(self.kernel.shape[:2]),
            "strides": list(self.strides),
            "pads": [*starts, *ends],
            "output_padding": [max(stride - side, 0) for side, stride in sides],
        }
        return str(file.node("ConvTranspose", [*tensors, kernel, bias], f"{name}/convolution", **options))

    def seen_at(self, x: Array, places: int, rng: np.random.Generator) -> Array:
        spread = [(side - 1) * stride + 1 for side, stride in zip(x.shape[1:3], self.strides, strict=True)]
        zeros = []
        sides = zip(self._sides(x.shape[1:3]), spread, self.kernel.shape, self._cut(), strict=False)
        for side, inside, kernel, (start, _) in sides:
            ahead = kernel - 1 - start
            zeros.append((ahead, side + kernel - 1 - ahead - inside))
        same = Conv(name=self.name, kernel=self.kernel, bias=self.bias, padding=(zeros[0], zeros[1]))
        parts = []
        for image in x:
            stuffed = np.zeros((1, *spread, x.shape[3]), x.dtype)
            stuffed[0, :: self.strides[0], :: self.strides[1]] = image
            parts.append(same.seen_at(stuffed, places, rng))
        return np.concatenate(parts)
