"""From a functional Keras model to its `Graph`: batch normalization folded, activations attached."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_effnet.errors import ExportError, InvalidInputError
from keras_effnet.network.reader import INPUT, Call, read_graph

from .graph import Graph
from .ops import ACTIVATIONS, Activation, Linear, Relu6, Softmax
from .ranges import Array
from .steps import Affine, Conv, Dense, Depthwise, Input, Mean, Padding, Product, Step, Sum, Weighted

IDENTITIES = ("Dropout", "Identity", "SpatialDropout2D")


class UnsupportedModelError(ExportError):
    """The model has a layer that the equalizing path does not know; the plain path may still do."""


def fold(model: Any) -> Graph:
    """Read a functional Keras model.

    Args:
        model: a Keras model with one input `[N, H, W, C]` and one output, of the layers that an
            EfficientNet consists of; models nested in it are unpacked.

    Returns:
        The network's steps. They compute what the model computes in inference.

    Raises:
        UnsupportedModelError: another kind of layer, or layers connected in another way; the message
            names the first one.
    """
    try:
        read = read_graph(model)
    except InvalidInputError as error:
        raise UnsupportedModelError(str(error)) from error
    if len(read.inputs) != 1 or len(read.outputs) != 1:
        raise UnsupportedModelError(
            "Expected a functional model with one input and one output. "
            f"Received: {model.name!r} with {len(read.inputs)} inputs and {len(read.outputs)} outputs."
        )
    image = read.calls[read.inputs[0]].outputs[0]
    if type(image).__module__.partition(".")[0] != "keras":
        raise UnsupportedModelError(
            f"Expected a model of Keras 3. Received: {model.name!r}, a tf_keras model. Save it as .h5 and load it "
            "with keras.saving.load_model."
        )
    folding = _Folding()
    names: list[str] = []  # by call: the step that holds its output
    for call in read.calls:
        names.append(folding.take(call, [names[source.call] for source in call.inputs]))
    last = names[read.outputs[0].call]
    if last != next(reversed(folding.steps)):
        raise UnsupportedModelError(
            f"Expected the output to be the last step. Received: {last!r} before others."
        )
    if pads := [step.name for step in folding.steps.values() if isinstance(step, _Pad)]:
        raise UnsupportedModelError(
            f"Expected zero padding in front of convolutions only. Received: {pads[0]!r}."
        )
    return Graph(steps=folding.steps, input_shape=tuple(image.shape[1:]))


@dataclass(frozen=True, kw_only=True)
class _Pad(Step):
    """Zeros around a map, until the convolution behind takes them over."""

    padding: Padding


class _Folding:
    """Collects steps, call by call."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}

    def add(self, step: Step) -> str:
        if step.name in self.steps:
            raise UnsupportedModelError(f"Expected layer names to be unique. Received {step.name!r} twice.")
        self.steps[step.name] = step
        return step.name

    def take(self, call: Call, sources: list[str]) -> str:
        """The step that holds what a call of a layer gives."""
        if call.kind == INPUT:
            return self.add(Input(name="image"))
        if not call.first:
            raise UnsupportedModelError(f"Expected layer {call.name!r} to be used once. It is shared.")
        if call.kind in IDENTITIES:
            return sources[0]
        # what `x + y` and keras.ops leave behind are no layers, and may be named like one
        handler = getattr(self, f"_{call.kind.lower()}", None) if hasattr(call.layer, "weights") else None
        if handler is None:
            raise UnsupportedModelError(
                f"Expected the layers of an EfficientNet. Received: {call.name!r}, a {call.kind}. "
                "It cannot be taken apart."
            )
        return str(handler(call.layer, *sources))

    def _rescaling(self, layer: Any, source: str) -> str:
        channels = int(layer.output.shape[-1])
        return self.add(
            Affine(
                name=layer.name,
                inputs=(source,),
                kernel=_per_channel(layer.scale, channels),
                bias=_per_channel(layer.offset, channels),
            )
        )

    def _conv2d(self, layer: Any, source: str) -> str:
        if layer.groups != 1:
            raise UnsupportedModelError(f"Expected convolutions without groups. Received: {layer.name!r}.")
        return self._convolution(layer, source, Conv, int(layer.filters))

    def _depthwiseconv2d(self, layer: Any, source: str) -> str:
        if layer.depth_multiplier != 1:
            raise UnsupportedModelError(f"Expected depth_multiplier 1. Received: {layer.name!r}.")
        return self._convolution(layer, source, Depthwise, int(layer.output.shape[-1]))

    def _convolution(self, layer: Any, source: str, kind: type[Conv], channels: int) -> str:
        if tuple(layer.dilation_rate) != (1, 1) or layer.data_format != "channels_last":
            raise UnsupportedModelError(
                f"Expected plain channels-last convolutions. Received: {layer.name!r}."
            )
        padding = layer.padding
        if isinstance(ahead := self.steps.get(source), _Pad):
            del self.steps[source]
            padding, (source,) = ahead.padding, ahead.inputs
        return self.add(
            kind(
                name=layer.name,
                inputs=(source,),
                kernel=np.asarray(layer.kernel, np.float32),
                bias=_bias(layer, channels),
                strides=tuple(layer.strides),
                padding=padding,
                activation=_activation_of(layer),
            )
        )

    def _zeropadding2d(self, layer: Any, source: str) -> str:
        return self.add(_Pad(name=layer.name, inputs=(source,), padding=layer.padding))

    def _batchnormalization(self, layer: Any, source: str) -> str:
        step = self.steps[source]
        if not isinstance(step, Conv) or not isinstance(step.activation, Linear):
            raise UnsupportedModelError(
                f"Expected {layer.name!r} to follow a convolution. It follows {source!r}."
            )
        scale, offset = _normalization(layer)
        self.steps[source] = replace(
            step,
            kernel=(step.kernel.astype(np.float64) * step.by_channel(scale)).astype(np.float32),
            bias=(step.bias * scale + offset).astype(np.float32),
        )
        return source

    def _activation(self, layer: Any, source: str) -> str:
        return self._attach(source, _activation_of(layer), layer.name)

    def _relu(self, layer: Any, source: str) -> str:
        if layer.max_value != 6.0 or layer.negative_slope or layer.threshold:
            raise UnsupportedModelError(f"Expected ReLU6. Received: {layer.name!r}.")
        return self._attach(source, Relu6(), layer.name)

    def _softmax(self, layer: Any, source: str) -> str:
        return self._attach(source, Softmax(), layer.name)

    def _attach(self, source: str, activation: Activation, name: str) -> str:
        step = self.steps[source]
        if not isinstance(step, Weighted) or not isinstance(step.activation, Linear):
            raise UnsupportedModelError(f"Expected {name!r} to follow a convolution. It follows {source!r}.")
        self.steps[source] = replace(step, activation=activation)
        return source

    def _globalaveragepooling2d(self, layer: Any, source: str) -> str:
        return self.add(Mean(name=layer.name, inputs=(source,), keepdims=bool(layer.keepdims)))

    def _multiply(self, layer: Any, *sources: str) -> str:
        return self.add(Product(name=layer.name, inputs=_two(layer, sources)))

    def _add(self, layer: Any, *sources: str) -> str:
        return self.add(Sum(name=layer.name, inputs=_two(layer, sources)))

    def _dense(self, layer: Any, source: str) -> str:
        return self.add(
            Dense(
                name=layer.name,
                inputs=(source,),
                kernel=np.asarray(layer.kernel, np.float32),
                bias=_bias(layer, int(layer.units)),
                activation=_activation_of(layer),
            )
        )


def _two(layer: Any, sources: tuple[str, ...]) -> tuple[str, ...]:
    if len(sources) != 2:
        raise UnsupportedModelError(f"Expected {layer.name!r} to join two tensors. It joins {len(sources)}.")
    return sources


def _per_channel(values: Any, channels: int) -> Array:
    return np.broadcast_to(np.asarray(values, np.float32), (channels,)).copy()


def _bias(layer: Any, channels: int) -> Array:
    return np.asarray(layer.bias, np.float32) if layer.use_bias else np.zeros(channels, np.float32)


def _activation_of(layer: Any) -> Activation:
    name = getattr(layer.activation, "__name__", str(layer.activation))
    if name not in ACTIVATIONS:
        raise UnsupportedModelError(
            f"Expected one of the activations {', '.join(ACTIVATIONS)}. Received: {name!r} in {layer.name!r}."
        )
    return ACTIVATIONS[name]


def _normalization(layer: Any) -> tuple[Array, Array]:
    """Scale and offset that inference applies, in float64."""
    mean, variance = (np.asarray(value, np.float64) for value in (layer.moving_mean, layer.moving_variance))
    gamma = np.asarray(layer.gamma, np.float64) if layer.scale else np.ones_like(mean)
    beta = np.asarray(layer.beta, np.float64) if layer.center else np.zeros_like(mean)
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale, beta - mean * scale
