"""From a functional Keras model to its `Graph`: one step for each layer, then what belongs together joined."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_effnet.errors import ExportError, InvalidInputError
from keras_effnet.network.reader import INPUT, Call, Graph as Read, constants_of, read_graph

from .graph import Graph
from .ops import ACTIVATIONS, Activation, Relu, Softmax
from .ranges import Array
from .simplify import Alone, Pad, simplify
from .steps import Affine, Conv, Dense, Depthwise, Input, Mean, Product, Reshape, Step, Sum

# what layers of these classes do, they do in training only
IDENTITIES = frozenset(
    "ActivityRegularization AlphaDropout AugMix CutMix Dropout GaussianDropout "
    "GaussianNoise Identity MixUp RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter "
    "RandomContrast RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue "
    "RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear "
    "RandomTranslation RandomZoom SpatialDropout2D".split()
)


class UnsupportedModelError(ExportError):
    """The model cannot be taken apart into steps; the plain path may still do."""


def fold(model: Any) -> Graph:
    """Read a functional Keras model.

    Args:
        model: a Keras model with one input `[N, H, W, C]` and one output; models nested in it are unpacked.

    Returns:
        The network's steps. They compute what the model computes in inference.

    Raises:
        UnsupportedModelError: a layer that is no step, or layers connected in another way; the message
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
    folding = _Folding(read)
    last = folding.read_all()
    if last != next(reversed(folding.steps)):
        raise UnsupportedModelError(
            f"Expected the output to be the last step. Received: {last!r} before others."
        )
    graph = simplify(Graph(steps=folding.steps, input_shape=tuple(image.shape[1:])))
    if pads := [step.name for step in graph if isinstance(step, Pad)]:
        raise UnsupportedModelError(
            f"Expected zero padding in front of convolutions only. Received: {pads[0]!r}."
        )
    return graph


class _Folding:
    """Collects steps, call by call."""

    def __init__(self, read: Read) -> None:
        self.read = read
        self.steps: dict[str, Step] = {}

    def read_all(self) -> str:
        """Read all calls; the step that holds the output."""
        names: list[str] = []  # by call: the step that holds its output
        for call in self.read.calls:
            names.append(self._take(call, [names[source.call] for source in call.inputs]))
        return names[self.read.outputs[0].call]

    def add(self, step: Step) -> str:
        if step.name in self.steps:
            raise UnsupportedModelError(f"Expected layer names to be unique. Received {step.name!r} twice.")
        self.steps[step.name] = step
        return step.name

    def _take(self, call: Call, sources: list[str]) -> str:
        """The step that holds what a call of a layer gives."""
        if call.kind == INPUT:
            return self.add(Input(name="image"))
        if not call.first and call.kind not in IDENTITIES:
            raise UnsupportedModelError(f"Expected layer {call.name!r} to be used once. It is shared.")
        if call.kind in IDENTITIES:
            return sources[0]
        # what `x + y` and keras.ops leave behind are no layers, and may be named like one
        handler = getattr(self, f"_{call.kind.lower()}", None) if hasattr(call.layer, "weights") else None
        if handler is None or any(len(shape) not in (2, 4) for shape in self._shapes(call)):
            raise self._unknown(call)
        return str(handler(call, *sources))

    def _shapes(self, call: Call) -> list[tuple[Any, ...]]:
        """Of what a call reads, then of what it gives."""
        read = [self.read.calls[source.call].outputs[source.index] for source in call.inputs]
        return [tuple(tensor.shape) for tensor in (*read, *call.outputs)]

    def _unknown(self, call: Call, why: str = "It cannot be taken apart.") -> UnsupportedModelError:
        return UnsupportedModelError(
            f"Expected layers that integers are known for. Received: {call.name!r}, a {call.kind}. {why}"
        )

    def _rescaling(self, call: Call, source: str) -> str:
        channels = self._shapes(call)[-1][-1]
        found = constants_of(call.layer)
        if found is None or getattr(call.layer, "invert", False):
            raise self._unknown(call)
        scale, offset = (_per_channel(values, channels) for values in found)
        return self.add(Affine(name=call.name, inputs=(source,), kernel=scale, bias=offset))

    _normalization = _rescaling

    def _batchnormalization(self, call: Call, source: str) -> str:
        scale, offset = _normalization(call.layer)
        if len(scale) != self._shapes(call)[-1][-1]:
            raise self._unknown(call, "Its axis is not that of the channels.")
        return self.add(Affine(name=call.name, inputs=(source,), kernel=scale, bias=offset))

    def _conv2d(self, call: Call, source: str) -> str:
        if call.layer.groups != 1:
            raise self._unknown(call, "It has groups.")
        return self._convolution(call, source, Conv, int(call.layer.filters))

    def _depthwiseconv2d(self, call: Call, source: str) -> str:
        if call.layer.depth_multiplier != 1:
            raise self._unknown(call, "Its depth_multiplier is not 1.")
        return self._convolution(call, source, Depthwise, int(call.layer.output.shape[-1]))

    def _convolution(self, call: Call, source: str, kind: type[Conv], channels: int) -> str:
        layer = call.layer
        if tuple(layer.dilation_rate) != (1, 1) or layer.data_format != "channels_last":
            raise self._unknown(call, "It is dilated, or its channels are not last.")
        return self.add(
            kind(
                name=layer.name,
                inputs=(source,),
                kernel=np.asarray(layer.kernel, np.float32),
                bias=_bias(layer, channels),
                strides=tuple(layer.strides),
                padding=layer.padding,
                activation=self._activation_of(call),
            )
        )

    def _dense(self, call: Call, source: str) -> str:
        layer, kernel = call.layer, np.asarray(call.layer.kernel, np.float32)
        given = {"name": layer.name, "inputs": (source,), "bias": _bias(layer, int(layer.units))}
        given["activation"] = self._activation_of(call)
        if len(self._shapes(call)[0]) == 4:  # at every place of a map
            return self.add(Conv(kernel=kernel[np.newaxis, np.newaxis], padding="valid", **given))
        return self.add(Dense(kernel=kernel, **given))

    def _zeropadding2d(self, call: Call, source: str) -> str:
        return self.add(Pad(name=call.name, inputs=(source,), padding=call.layer.padding))

    def _activation(self, call: Call, source: str) -> str:
        return self._alone(call, source, self._activation_of(call))

    def _relu(self, call: Call, source: str) -> str:
        layer = call.layer
        if layer.max_value not in (None, 6.0) or layer.negative_slope or layer.threshold:
            raise self._unknown(call, "Only max_value None and 6 are known.")
        return self._alone(call, source, Relu(top=layer.max_value))

    def _softmax(self, call: Call, source: str) -> str:
        if len(self._shapes(call)[0]) != 2:
            raise self._unknown(call)
        return self._alone(call, source, Softmax())

    def _alone(self, call: Call, source: str, activation: Activation) -> str:
        channels = int(self._shapes(call)[-1][-1])
        return self.add(Alone(name=call.name, inputs=(source,), activation=activation, channels=channels))

    def _activation_of(self, call: Call) -> Activation:
        function = call.layer.activation
        name = getattr(function, "__name__", str(function))
        if name not in ACTIVATIONS:
            raise self._unknown(call, f"Its activation {name!r} is none of {', '.join(ACTIVATIONS)}.")
        return ACTIVATIONS[name]

    def _globalaveragepooling2d(self, call: Call, source: str) -> str:
        return self.add(Mean(name=call.name, inputs=(source,), keepdims=bool(call.layer.keepdims)))

    def _flatten(self, call: Call, source: str) -> str:
        return self._reshape(call, source)

    def _reshape(self, call: Call, source: str) -> str:
        before, after = (shape[1:] for shape in self._shapes(call))
        step = self.steps[source]
        if before == after:
            return source
        if None in after or not (len(after) == 1 or after[:2] == (1, 1)):
            raise self._unknown(call)
        if isinstance(step, Mean) and before[-1] == after[-1]:  # the same mean, its sides kept or not
            return self.add(Mean(name=call.name, inputs=step.inputs, keepdims=len(after) == 3))
        return self.add(Reshape(name=call.name, inputs=(source,), shape=tuple(after)))

    def _multiply(self, call: Call, *sources: str) -> str:
        return self._joined(call, Product, sources)

    def _add(self, call: Call, *sources: str) -> str:
        return self._joined(call, Sum, sources)

    def _joined(self, call: Call, kind: type[Product] | type[Sum], sources: tuple[str, ...]) -> str:
        """Several tensors, two at a time."""
        if len({len(shape) for shape in self._shapes(call)}) != 1 or len(sources) < 2:
            raise self._unknown(call)
        first, *others = sources
        for place, other in enumerate(others, 1):
            name = call.name if place == len(others) else f"{call.name}_{place}"
            first = self.add(kind(name=name, inputs=(first, other)))
        return first


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
