"""What each kind of Keras layer is as steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from keras_effnet.network.conventions import constants_of
from keras_effnet.network.reader import Call

from .activations import Form, Ramp, UnknownFormError, form_of, is_activation
from .convolutions import Grouped, Transposed
from .maps import Crop, GlobalMax, Pad, Pool, Reshape, Resize
from .ops import Activation, Linear, Relu
from .ranges import Array
from .simplify import Alone
from .steps import Concatenate, Difference, Island, Larger, Mean, Product, Step, Sum
from .weighted import Affine, Conv, Dense, Depthwise, Weighted


class UnknownLayerError(Exception):
    """A layer that becomes an island; why, in a few words."""


class KnownLayers:
    """A method for each class of layers: from a call and the steps that it reads to the step that holds the result."""

    steps: dict[str, Step]

    def add(self, step: Step) -> str:
        """Put a step behind the others; its name."""
        raise NotImplementedError

    def shapes(self, call: Call) -> list[tuple[Any, ...]]:
        """Of what a call reads, then of what it gives."""
        raise NotImplementedError

    def handler(self, call: Call) -> Callable[..., str] | None:
        """What takes a call; None where nothing does.

        What `keras.ops` leaves behind is no layer and may be named like one.
        """
        if not hasattr(call.layer, "weights"):
            if is_activation(call.kind):
                return lambda call, source: self._applied(call, source, call.layer)
            if call.kind not in OPERATIONS:
                return None
        return getattr(self, f"_{call.kind.lower()}", None)

    def _rescaling(self, call: Call, source: str) -> str:
        found = constants_of(call.layer)
        if found is None or getattr(call.layer, "invert", False):
            raise UnknownLayerError
        return self._affine(call, source, *found)

    _normalization = _rescaling

    def _batchnormalization(self, call: Call, source: str) -> str:
        scale, offset = _normalization(call.layer)
        if len(scale) != self.shapes(call)[-1][-1]:
            raise UnknownLayerError("its axis is not that of the channels")
        return self.add(Affine(name=call.name, inputs=(source,), kernel=scale, bias=offset))

    def _conv2d(self, call: Call, source: str) -> str:
        layer, kernel = call.layer, np.asarray(call.layer.kernel, np.float32)
        groups = int(layer.groups)
        if groups == 1:
            return self._convolution(call, source, Conv, kernel)
        if groups == int(layer.filters) == self.shapes(call)[0][-1]:
            return self._convolution(call, source, Depthwise, np.swapaxes(kernel, 2, 3))
        return self._convolution(call, source, Grouped, kernel, groups=groups)

    def _depthwiseconv2d(self, call: Call, source: str) -> str:
        return self._convolution(call, source, *_depthwise(call.layer.kernel))

    def _separableconv2d(self, call: Call, source: str) -> str:
        layer = call.layer
        kind, kernel, grouped = _depthwise(layer.depthwise_kernel)
        channels = int(np.prod(kernel.shape[2:]))
        given: dict[str, Any] = {"kernel": kernel, "bias": np.zeros(channels, np.float32), **grouped}
        name = f"{layer.name}_depthwise"
        between = self.add(kind(name=name, inputs=(source,), **given, **self._placed(layer)))
        return self._activated(
            call,
            Conv(
                name=layer.name,
                inputs=(between,),
                kernel=np.asarray(layer.pointwise_kernel, np.float32),
                bias=_bias(layer, int(layer.filters)),
                padding="valid",
            ),
        )

    def _conv2dtranspose(self, call: Call, source: str) -> str:
        layer = call.layer
        if layer.output_padding is not None or tuple(layer.dilation_rate) != (1, 1):
            raise UnknownLayerError("it has an output padding, or is dilated")
        kernel = np.transpose(np.asarray(layer.kernel, np.float32)[::-1, ::-1], (0, 1, 3, 2))
        return self._convolution(call, source, Transposed, kernel.copy())

    def _convolution(
        self,
        call: Call,
        source: str,
        kind: type[Conv],
        kernel: Array,
        grouped: Mapping[str, Any] = {},
        **more: Any,
    ) -> str:
        layer = call.layer
        return self._activated(
            call,
            kind(
                name=layer.name,
                inputs=(source,),
                kernel=kernel,
                bias=_bias(layer, int(self.shapes(call)[-1][-1])),
                **self._placed(layer),
                **grouped,
                **more,
            ),
        )

    def _placed(self, layer: Any) -> dict[str, Any]:
        """Where a convolution is computed."""
        if layer.data_format != "channels_last":
            raise UnknownLayerError("its channels are not last")
        strides, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
        return {"strides": strides, "padding": layer.padding, "dilation": dilation}

    def _dense(self, call: Call, source: str) -> str:
        layer, kernel = call.layer, np.asarray(call.layer.kernel, np.float32)
        given = {"name": layer.name, "inputs": (source,), "bias": _bias(layer, int(layer.units))}
        if len(self.shapes(call)[0]) == 4:  # at every place of a map
            return self._activated(
                call, Conv(kernel=kernel[np.newaxis, np.newaxis], padding="valid", **given)
            )
        return self._activated(call, Dense(kernel=kernel, **given))

    def _zeropadding2d(self, call: Call, source: str) -> str:
        return self.add(Pad(name=call.name, inputs=(source,), padding=call.layer.padding))

    def _cropping2d(self, call: Call, source: str) -> str:
        if call.layer.data_format != "channels_last":
            raise UnknownLayerError("its channels are not last")
        tall, wide = (tuple(pair) for pair in call.layer.cropping)
        if not any((*tall, *wide)):
            return source
        return self.add(Crop(name=call.name, inputs=(source,), cropping=(tall, wide)))

    def _upsampling2d(self, call: Call, source: str) -> str:
        layer = call.layer
        if layer.interpolation not in RESIZED or layer.data_format != "channels_last":
            raise UnknownLayerError(f"interpolation {layer.interpolation!r}")
        smooth = layer.interpolation == "bilinear"
        return self.add(Resize(name=call.name, inputs=(source,), smooth=smooth, factors=tuple(layer.size)))

    def _resizing(self, call: Call, source: str) -> str:
        layer = call.layer
        asked = ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias")
        odd = [name for name in asked if getattr(layer, name, False)]
        if odd or layer.interpolation not in RESIZED or layer.data_format != "channels_last":
            raise UnknownLayerError(", ".join(odd) or f"interpolation {layer.interpolation!r}")
        size = (int(layer.height), int(layer.width))
        return self.add(
            Resize(name=call.name, inputs=(source,), smooth=layer.interpolation == "bilinear", size=size)
        )

    def _activation(self, call: Call, source: str) -> str:
        return self._applied(call, source, call.layer)

    _relu = _leakyrelu = _prelu = _elu = _softmax = _activation

    def _activated(self, call: Call, step: Weighted) -> str:
        """A step with the activation that its layer has, which is an island where it is unknown."""
        function = call.layer.activation
        shape = self.shapes(call)[-1]
        try:
            form = form_of(function, shape)
        except UnknownFormError as error:
            source = self.add(step)
            return self.add(
                Island(
                    name=f"{source}_activation",
                    inputs=(source,),
                    function=lambda tensors: function(*tensors),
                    what=f"{error!s}, the activation of {call.name!r}",
                    parts=(function,),
                    shape=shape[1:],
                )
            )
        if isinstance(form, Activation):
            return self.add(replace(step, activation=form))
        return self._formed(f"{call.name}_activated", self.add(step), form, int(shape[-1]))

    def _applied(self, call: Call, source: str, function: Any) -> str:
        """An activation that is a layer or an operation of its own."""
        shape = self.shapes(call)[-1]
        try:
            form = form_of(function, shape)
        except UnknownFormError as error:
            known = str(error).strip("'")
            raise UnknownLayerError("" if known.lower() == call.kind.lower() else known) from error
        return self._formed(call.name, source, form, int(shape[-1]))

    def _formed(self, name: str, source: str, form: Form, channels: int) -> str:
        """The steps of an activation."""

        def affine(name: str, source: str, kernel: Any, bias: Any = 0.0) -> str:
            given = {"kernel": _per_channel(kernel, channels), "bias": _per_channel(bias, channels)}
            return self.add(Affine(name=name, inputs=(source,), **given))

        def alone(name: str, source: str, activation: Activation) -> str:
            return self.add(Alone(name=name, inputs=(source,), activation=activation, channels=channels))

        if isinstance(form, Linear):
            return source
        if isinstance(form, Activation):
            return alone(name, source, form)
        if isinstance(form, Ramp):
            ahead = affine(f"{name}_ahead", source, form.scale, form.offset)
            return affine(name, alone(f"{name}_ramp", ahead, Relu(top=6.0)), form.factor, form.summand)
        missing = 1.0 - form.slopes  # of the slope below 0
        below = alone(f"{name}_below", affine(f"{name}_turned", source, -np.abs(missing)), Relu())
        if np.any(missing < 0):
            below = affine(f"{name}_signed", below, np.sign(missing))
        return self.add(Sum(name=name, inputs=(source, below)))

    def _globalaveragepooling2d(self, call: Call, source: str) -> str:
        return self.add(Mean(name=call.name, inputs=(source,), keepdims=bool(call.layer.keepdims)))

    def _maxpooling2d(self, call: Call, source: str) -> str:
        return self._pool(call, source, mean=False)

    def _averagepooling2d(self, call: Call, source: str) -> str:
        return self._pool(call, source, mean=True)

    def _globalmaxpooling2d(self, call: Call, source: str) -> str:
        if call.layer.data_format != "channels_last":
            raise UnknownLayerError("its channels are not last")
        shape = (int(self.shapes(call)[0][-1]),)
        if call.layer.keepdims:
            return self.add(GlobalMax(name=call.name, inputs=(source,)))
        largest = self.add(GlobalMax(name=f"{call.name}_map", inputs=(source,)))
        return self.add(Reshape(name=call.name, inputs=(largest,), shape=shape))

    def _adaptiveaveragepooling2d(self, call: Call, source: str, *, mean: bool = True) -> str:
        before, after = (shape[1:3] for shape in self.shapes(call))
        if tuple(after) == (1, 1):
            kind = Mean if mean else GlobalMax
            return self.add(kind(name=call.name, inputs=(source,)))
        if None in before or any(side % parts for side, parts in zip(before, after, strict=True)):
            raise UnknownLayerError("its windows differ in size")
        size = (before[0] // after[0], before[1] // after[1])
        return self.add(
            Pool(name=call.name, inputs=(source,), mean=mean, size=size, strides=size, padding="valid")
        )

    def _adaptivemaxpooling2d(self, call: Call, source: str) -> str:
        return self._adaptiveaveragepooling2d(call, source, mean=False)

    def _pool(self, call: Call, source: str, *, mean: bool) -> str:
        layer = call.layer
        if layer.data_format != "channels_last":
            raise UnknownLayerError("its channels are not last")
        size, strides = tuple(layer.pool_size), tuple(layer.strides)
        return self.add(
            Pool(
                name=call.name, inputs=(source,), mean=mean, size=size, strides=strides, padding=layer.padding
            )
        )

    def _concatenate(self, call: Call, *sources: str) -> str:
        if call.layer.axis not in (-1, len(self.shapes(call)[-1]) - 1):
            raise UnknownLayerError("its axis is not that of the channels")
        return self.add(Concatenate(name=call.name, inputs=sources))

    def _reshape(self, call: Call, source: str) -> str:
        before, after = (shape[1:] for shape in self.shapes(call))
        step = self.steps[source]
        if before == after:
            return source
        if None in after:
            raise UnknownLayerError
        if isinstance(step, Mean) and before[-1] == after[-1]:  # the same mean, its sides kept or not
            return self.add(Mean(name=call.name, inputs=step.inputs, keepdims=len(after) == 3))
        return self.add(Reshape(name=call.name, inputs=(source,), shape=tuple(after)))

    _flatten = _reshape

    def _multiply(self, call: Call, *sources: str) -> str:
        return self._joined(call, Product, sources)

    def _add(self, call: Call, *sources: str) -> str:
        return self._joined(call, Sum, sources)

    def _subtract(self, call: Call, *sources: str) -> str:
        return self._joined(call, Difference, sources)

    def _maximum(self, call: Call, *sources: str) -> str:
        return self._joined(call, Larger, sources)

    def _average(self, call: Call, *sources: str) -> str:
        total = self._joined(call, Sum, sources, suffix="_sum")
        return self._affine(call, total, 1 / len(sources), 0.0)

    def _truedivide(self, call: Call, *sources: str) -> str:
        return self._with_constant(call, sources[0])

    _divide = _truedivide

    def _negative(self, call: Call, source: str) -> str:
        return self._affine(call, source, -1.0, 0.0)

    def _joined(
        self, call: Call, kind: type[Product] | type[Sum], sources: tuple[str, ...], suffix: str = ""
    ) -> str:
        """Several tensors, two at a time."""
        if len(sources) == 1:
            return self._with_constant(call, sources[0])
        if len({len(shape) for shape in self.shapes(call)}) != 1:
            raise UnknownLayerError
        first, *others = sources
        for place, other in enumerate(others, 1):
            name = f"{call.name}{suffix}" if place == len(others) else f"{call.name}_{place}"
            first = self.add(kind(name=name, inputs=(first, other)))
        return first

    def _with_constant(self, call: Call, source: str) -> str:
        """`x + c`, `x - c`, `c - x`, `x * c`, `x / c`, with one constant or one for each channel."""
        arguments = [*call.args, *call.kwargs.values()]
        ahead = len(arguments) == 2 and hasattr(arguments[0], "_keras_history")
        before, after = self.shapes(call)[0], self.shapes(call)[-1]
        try:
            constant = np.asarray(arguments[1 if ahead else 0], np.float64)
            values = _per_channel(constant.reshape(constant.shape[-1:]), int(after[-1]))
        except (ValueError, TypeError, IndexError) as error:
            raise UnknownLayerError("its other argument is not a number, or one for each channel") from error
        if before != after or call.kind not in CONSTANTS or (call.kind in QUOTIENTS and not ahead):
            raise UnknownLayerError("its other argument is not a number, or one for each channel")
        factor, summand = CONSTANTS[call.kind]
        scale, offset = (values**factor if factor else np.ones_like(values)), summand * values
        if call.kind == "Subtract" and not ahead:
            scale, offset = -scale, -offset
        return self._affine(call, source, scale, offset)

    def _affine(self, call: Call, source: str, scale: Any, offset: Any) -> str:
        channels = int(self.shapes(call)[-1][-1])
        given = {"kernel": _per_channel(scale, channels), "bias": _per_channel(offset, channels)}
        return self.add(Affine(name=call.name, inputs=(source,), **given))

    def _layerscale(self, call: Call, source: str) -> str:
        """Of ConvNeXt in keras.applications."""
        if not type(call.layer).__module__.startswith("keras."):
            raise UnknownLayerError
        return self._affine(call, source, np.asarray(call.layer.gamma), 0.0)

    def _mean(self, call: Call, source: str) -> str:
        axis = call.layer.axis
        if not isinstance(axis, list | tuple) or sorted(axis) not in ([1, 2], [-3, -2]):
            raise UnknownLayerError("it is not that of a map")
        return self.add(Mean(name=call.name, inputs=(source,), keepdims=bool(call.layer.keepdims)))


# by kind of operation: the power of the constant that x is multiplied by, and the sign with which it is added
CONSTANTS = {"Add": (0, 1), "Subtract": (0, -1), "Multiply": (1, 0), "TrueDivide": (-1, 0), "Divide": (-1, 0)}
QUOTIENTS = ("TrueDivide", "Divide")
OPERATIONS = (*CONSTANTS, "Negative", "Maximum", "Mean")
RESIZED = ("nearest", "bilinear")


def _depthwise(kernel: Any) -> tuple[type[Conv], Array, dict[str, Any]]:
    """A depthwise kernel `[h, w, channels, several]` as a kind of step and its kernel."""
    kernel = np.asarray(kernel, np.float32)
    tall, wide, channels, several = kernel.shape
    if several == 1:
        return Depthwise, kernel, {}
    return Grouped, kernel.reshape(tall, wide, 1, channels * several), {"groups": channels}


def _per_channel(values: Any, channels: int) -> Array:
    return np.broadcast_to(np.asarray(values, np.float32), (channels,)).copy()


def _bias(layer: Any, channels: int) -> Array:
    return np.asarray(layer.bias, np.float32) if layer.use_bias else np.zeros(channels, np.float32)


def _normalization(layer: Any) -> tuple[Array, Array]:
    """Scale and offset that inference applies, in float64."""
    mean, variance = (np.asarray(value, np.float64) for value in (layer.moving_mean, layer.moving_variance))
    gamma = np.asarray(layer.gamma, np.float64) if layer.scale else np.ones_like(mean)
    beta = np.asarray(layer.beta, np.float64) if layer.center else np.zeros_like(mean)
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale, beta - mean * scale
