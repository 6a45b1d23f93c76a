"""What each kind of layer does to a shape, and what that costs.

A rule takes a layer's constructor arguments and the shapes of its inputs. Counted as multiply-adds
are convolutions and dense layers, as every published table does; additions of biases, activations,
poolings, sums, the products of squeeze-and-excite and batch normalization (which inference folds
into the convolution before it) are not. A kind without a rule is an error, never a silent zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_effnet.errors import InvalidInputError
from keras_effnet.network.reader import TRAINING_ONLY

Shape = tuple[int, ...]
"""Shape of a tensor for one picture: (H, W, C), or (C,) behind a pooling; no batch axis."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What one call yields and costs, for one picture.

    Attributes:
        shape: of the output.
        macs: multiply-adds.
        params: trained weights.
        statistics: weights that no gradient reaches: means and variances.
        free: the output is the input itself at inference, so it takes no memory.
        normalized: values that a batch normalization writes (some counters charge for them).
    """

    shape: Shape
    macs: int = 0
    params: int = 0
    statistics: int = 0
    free: bool = False
    normalized: int = 0


Config = Mapping[str, Any]
Rule = Callable[[Config, Sequence[Shape]], Counted]


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, second = value
    return int(first), int(second)


def _slid(shape: Shape, window: tuple[int, int], config: Config, strides: tuple[int, int]) -> tuple[int, int]:
    """Height and width behind a sliding window."""
    dilation = _pair(config.get("dilation_rate", 1))
    sides = []
    for side, size, stride, spread in zip(shape[:2], window, strides, dilation, strict=True):
        if str(config.get("padding", "valid")).lower() == "same":
            sides.append(math.ceil(side / stride))
        else:
            sides.append((side - (size - 1) * spread - 1) // stride + 1)
    if min(sides) < 1:
        raise InvalidInputError(
            f"Expected an input as large as the kernel {window} of {config.get('name', 'a layer')!r}. "
            f"Received: {shape}. Pass a larger input_shape."
        )
    return sides[0], sides[1]


def _weighted(config: Config, shape: Shape, weights: int, places: int) -> Counted:
    """A layer whose whole kernel is applied at so many places, with a bias for each channel that leaves it."""
    bias = shape[-1] if config.get("use_bias", True) else 0
    return Counted(shape=shape, macs=places * weights, params=weights + bias)


def _conv(config: Config, inputs: Sequence[Shape]) -> Counted:
    (shape,) = inputs
    kernel, filters = _pair(config["kernel_size"]), int(config["filters"])
    height, width = _slid(shape, kernel, config, _pair(config.get("strides", 1)))
    weights = math.prod(kernel) * shape[-1] // int(config.get("groups", 1)) * filters
    return _weighted(config, (height, width, filters), weights, height * width)


def _depthwise(config: Config, inputs: Sequence[Shape]) -> Counted:
    (shape,) = inputs
    kernel = _pair(config["kernel_size"])
    height, width = _slid(shape, kernel, config, _pair(config.get("strides", 1)))
    filters = shape[-1] * int(config.get("depth_multiplier", 1))
    return _weighted(config, (height, width, filters), math.prod(kernel) * filters, height * width)


def _separable(config: Config, inputs: Sequence[Shape]) -> Counted:
    first = _depthwise({**config, "use_bias": False}, inputs)
    second = _conv({**config, "kernel_size": 1, "strides": 1, "dilation_rate": 1}, [first.shape])
    return Counted(shape=second.shape, macs=first.macs + second.macs, params=first.params + second.params)


def _transposed(config: Config, inputs: Sequence[Shape]) -> Counted:
    (shape,) = inputs
    kernel, filters = _pair(config["kernel_size"]), int(config["filters"])
    strides, dilation = _pair(config.get("strides", 1)), _pair(config.get("dilation_rate", 1))
    extra = config.get("output_padding")
    added = (None, None) if extra is None else _pair(extra)
    same = str(config.get("padding", "valid")).lower() == "same"
    sides = []
    for side, size, stride, spread, more in zip(shape[:2], kernel, strides, dilation, added, strict=True):
        reach = (size - 1) * spread + 1
        if more is None:
            sides.append(side * stride if same else (side - 1) * stride + max(reach, stride))
        else:
            sides.append((side - 1) * stride + (reach % 2 if same else reach) + more)
    weights = math.prod(kernel) * shape[-1] * filters
    # every pixel that comes in meets the whole kernel
    return _weighted(config, (sides[0], sides[1], filters), weights, math.prod(shape[:2]))


def _dense(config: Config, inputs: Sequence[Shape]) -> Counted:
    (shape,) = inputs
    units = int(config["units"])
    return _weighted(config, (*shape[:-1], units), shape[-1] * units, math.prod(shape[:-1]))


def _batch_normalization(config: Config, inputs: Sequence[Shape]) -> Counted:
    (shape,) = inputs
    trained = bool(config.get("scale", True)) + bool(config.get("center", True))
    return Counted(
        shape=shape,
        params=trained * shape[-1],
        statistics=2 * shape[-1],
        normalized=math.prod(shape),
    )


def _layer_normalization(config: Config, inputs: Sequence[Shape]) -> Counted:
    (shape,) = inputs
    axes = config.get("axis", -1)
    axes = [axes] if isinstance(axes, int) else axes
    size = math.prod(shape[axis if axis < 0 else axis - 1] for axis in axes)
    trained = bool(config.get("scale", True)) + bool(config.get("center", True))
    return Counted(shape=shape, params=trained * size)


def _normalization(config: Config, inputs: Sequence[Shape]) -> Counted:
    (shape,) = inputs
    # mean and variance per channel and a counter, or none where both were given
    return Counted(shape=shape, statistics=0 if config.get("mean") is not None else 2 * shape[-1] + 1)


def _elementwise(_: Config, inputs: Sequence[Shape]) -> Counted:
    rank = max(map(len, inputs))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in inputs]
    return Counted(shape=tuple(max(sides) for sides in zip(*padded, strict=True)))


def _prelu(config: Config, inputs: Sequence[Shape]) -> Counted:
    (shape,) = inputs
    shared = config.get("shared_axes") or ()  # counted with the batch
    return Counted(
        shape=shape, params=math.prod(1 if axis in shared else side for axis, side in enumerate(shape, 1))
    )


def _identity(_: Config, inputs: Sequence[Shape]) -> Counted:
    return Counted(shape=inputs[0], free=True)


def _concatenate(config: Config, inputs: Sequence[Shape]) -> Counted:
    axis = int(config.get("axis", -1))
    axis = axis if axis < 0 else axis - 1 - len(inputs[0])  # counted from the end, without the batch
    shape = list(inputs[0])
    shape[axis] = sum(each[axis] for each in inputs)
    return Counted(shape=tuple(shape))


def _global_pooling(config: Config, inputs: Sequence[Shape]) -> Counted:
    (shape,) = inputs
    return Counted(shape=(1, 1, shape[-1]) if config.get("keepdims") else (shape[-1],))


def _pooling(config: Config, inputs: Sequence[Shape]) -> Counted:
    (shape,) = inputs
    window = _pair(config.get("pool_size", 2))
    height, width = _slid(shape, window, config, _pair(config.get("strides") or window))
    return Counted(shape=(height, width, shape[-1]))


def _zero_padding(config: Config, inputs: Sequence[Shape]) -> Counted:
    ((height, width, channels),) = inputs
    rows, columns = _edges(config.get("padding", 1))
    return Counted(shape=(height + rows, width + columns, channels))


def _cropping(config: Config, inputs: Sequence[Shape]) -> Counted:
    ((height, width, channels),) = inputs
    rows, columns = _edges(config.get("cropping", 0))
    return Counted(shape=(height - rows, width - columns, channels))


def _edges(given: Any) -> tuple[int, int]:
    """Rows and columns at both edges together, however they were given."""
    rows, columns = (given, given) if isinstance(given, int) else given
    first, second = (2 * side if isinstance(side, int) else sum(side) for side in (rows, columns))
    return first, second


def _upsampling(config: Config, inputs: Sequence[Shape]) -> Counted:
    ((height, width, channels),) = inputs
    rows, columns = _pair(config.get("size", 2))
    return Counted(shape=(height * rows, width * columns, channels))


def _flatten(_: Config, inputs: Sequence[Shape]) -> Counted:
    return Counted(shape=(math.prod(inputs[0]),), free=True)


def _reshape(config: Config, inputs: Sequence[Shape]) -> Counted:
    target = [int(side) for side in config["target_shape"]]
    if -1 in target:
        target[target.index(-1)] = math.prod(inputs[0]) // -math.prod(target)
    return Counted(shape=tuple(target), free=True)


_ELEMENTWISE = (
    "Add Subtract Multiply Average Maximum Minimum TrueDivide "
    "Activation ReLU LeakyReLU ELU Softmax Rescaling Relu6 Relu Silu Sigmoid"
)
RULES: dict[str, Rule] = {
    "Conv2D": _conv,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "Conv2DTranspose": _transposed,
    "Dense": _dense,
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "Normalization": _normalization,
    "PReLU": _prelu,
    "MaxPooling2D": _pooling,
    "AveragePooling2D": _pooling,
    "GlobalAveragePooling2D": _global_pooling,
    "GlobalMaxPooling2D": _global_pooling,
    "ZeroPadding2D": _zero_padding,
    "Cropping2D": _cropping,
    "UpSampling2D": _upsampling,
    "Concatenate": _concatenate,
    "Flatten": _flatten,
    "Reshape": _reshape,
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(TRAINING_ONLY, _identity),
}
"""Rules by the name of a layer's class."""
