"""From a functional Keras model to its `Graph`: one step for each layer, then what belongs together joined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from keras_effnet.errors import ExportError, InvalidInputError
from keras_effnet.network.conventions import constants_of
from keras_effnet.network.reader import INPUT, Call, CallGraph, read_graph

from ..outputs import places_of
from .graph import Graph
from .ops import ACTIVATIONS, Activation, Relu, Softmax
from .ranges import Array
from .simplify import Alone, simplify
from .steps import Concatenate, Input, Island, Mean, Pad, Pool, Product, Reshape, Step, Sum
from .weighted import Affine, Conv, Dense, Depthwise, Weighted

# what layers of these classes do, they do in training only
IDENTITIES = frozenset(
    [
        "ActivityRegularization",
        "AlphaDropout",
        "AugMix",
        "CutMix",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "MixUp",
        "RandAugment",
        "RandomBrightness",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomContrast",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomRotation",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
        "SpatialDropout2D",
    ]
)


class UnsupportedModelError(ExportError):
    """The model cannot be taken apart into steps; the plain path may still do."""


def fold(model: Any) -> Graph:
    """Read a functional Keras model.

    Args:
        model: a Keras model with one input `[N, H, W, C]`; models nested in it are unpacked.

    Returns:
        The network's steps. They compute what the model computes in inference. A layer that is no step is an
        `Island` among them.

    Raises:
        UnsupportedModelError: no such model, or a layer with several outputs.
    """
    try:
        read = read_graph(model)
    except InvalidInputError as error:
        raise UnsupportedModelError(str(error)) from error
    if len(read.inputs) != 1:
        raise UnsupportedModelError(
            f"Expected a functional model with one input. Received: {model.name!r} with {len(read.inputs)} inputs."
        )
    image = read.calls[read.inputs[0]].outputs[0]
    if type(image).__module__.partition(".")[0] != "keras":
        raise UnsupportedModelError(
            f"Expected a model of Keras 3. Received: {model.name!r}, a tf_keras model. Save it as .h5 and load it "
            "with keras.saving.load_model."
        )
    folding = _Folding(read)
    made = folding.read_all()
    last = next(reversed(folding.steps))
    if any(isinstance(folding.steps[name], Input) for name in made):
        raise UnsupportedModelError(
            f"Expected outputs that something is computed for. Received: {model.name!r}, one of whose is its input."
        )
    results = () if made == [last] else tuple(made[place] for place in places_of(model))
    return simplify(Graph(steps=folding.steps, input_shape=tuple(image.shape[1:]), results=results))


class _UnknownError(Exception):
    """A layer that becomes an island; why, in a sentence."""


class _Folding:
    """Collects steps, call by call."""

    def __init__(self, read: CallGraph) -> None:
        self.read = read
        self.steps: dict[str, Step] = {}

    def read_all(self) -> list[str]:
        """Read all calls; the steps that hold the outputs."""
        names: list[str] = []  # by call: the step that holds its output
        for call in self.read.calls:
            names.append(self._take(call, [names[source.call] for source in call.inputs]))
        return [names[output.call] for output in self.read.outputs]

    def add(self, step: Step) -> str:
        """Put a step behind the others; its name, with a number where a layer is called again."""
        name, count = step.name, 1
        while name in self.steps:
            count += 1
            name = f"{step.name}_{count}"
        self.steps[name] = replace(step, name=name)
        return name

    def _take(self, call: Call, sources: list[str]) -> str:
        """The step that holds what a call of a layer gives."""
        if call.kind == INPUT:
            return self.add(Input(name="image"))
        if call.kind in IDENTITIES:
            return sources[0]
        # what keras.ops leaves behind is no layer and may be named like one; `x + y` and `x * y` are the same as both
        is_known = hasattr(call.layer, "weights") or call.kind in ("Add", "Multiply")
        handler = getattr(self, f"_{call.kind.lower()}", None) if is_known else None
        try:
            if handler is None or any(len(shape) not in (2, 4) for shape in self._shapes(call)):
                raise _UnknownError
            return str(handler(call, *sources))
        except _UnknownError as error:
            return self._island(call, sources, str(error))

    def _shapes(self, call: Call) -> list[tuple[Any, ...]]:
        """Of what a call reads, then of what it gives."""
        read = [self.read.calls[source.call].outputs[source.index] for source in call.inputs]
        return [tuple(tensor.shape) for tensor in (*read, *call.outputs)]

    def _island(self, call: Call, sources: list[str], why: str) -> str:
        """A layer as it is, in float."""
        if len(call.outputs) != 1 or call.outputs[0].dtype != "float32":
            raise UnsupportedModelError(
                f"Expected layers with one output of floats. Received: {call.name!r}, a {call.kind}."
            )
        changed = {"training": False} if "training" in call.kwargs else {}
        return self.add(
            Island(
                name=call.name,
                inputs=tuple(sources),
                function=lambda tensors: call.apply(tensors, **changed),
                what=f"{call.name!r}, a {call.kind}{f' ({why})' if why else ''}",
                parts=(call.layer,),
                shape=self._shapes(call)[-1][1:],
            )
        )

    def _rescaling(self, call: Call, source: str) -> str:
        channels = self._shapes(call)[-1][-1]
        found = constants_of(call.layer)
        if found is None or getattr(call.layer, "invert", False):
            raise _UnknownError
        scale, offset = (_per_channel(values, channels) for values in found)
        return self.add(Affine(name=call.name, inputs=(source,), kernel=scale, bias=offset))

    _normalization = _rescaling

    def _batchnormalization(self, call: Call, source: str) -> str:
        scale, offset = _normalization(call.layer)
        if len(scale) != self._shapes(call)[-1][-1]:
            raise _UnknownError("its axis is not that of the channels")
        return self.add(Affine(name=call.name, inputs=(source,), kernel=scale, bias=offset))

    def _conv2d(self, call: Call, source: str) -> str:
        if call.layer.groups != 1:
            raise _UnknownError("it has groups")
        return self._convolution(call, source, Conv, int(call.layer.filters))

    def _depthwiseconv2d(self, call: Call, source: str) -> str:
        if call.layer.depth_multiplier != 1:
            raise _UnknownError("its depth_multiplier is not 1")
        return self._convolution(call, source, Depthwise, int(call.layer.output.shape[-1]))

    def _convolution(self, call: Call, source: str, kind: type[Conv], channels: int) -> str:
        layer = call.layer
        if tuple(layer.dilation_rate) != (1, 1) or layer.data_format != "channels_last":
            raise _UnknownError("it is dilated, or its channels are not last")
        return self._activated(
            call,
            kind(
                name=layer.name,
                inputs=(source,),
                kernel=np.asarray(layer.kernel, np.float32),
                bias=_bias(layer, channels),
                strides=tuple(layer.strides),
                padding=layer.padding,
            ),
        )

    def _dense(self, call: Call, source: str) -> str:
        layer, kernel = call.layer, np.asarray(call.layer.kernel, np.float32)
        given = {"name": layer.name, "inputs": (source,), "bias": _bias(layer, int(layer.units))}
        if len(self._shapes(call)[0]) == 4:  # at every place of a map
            return self._activated(
                call, Conv(kernel=kernel[np.newaxis, np.newaxis], padding="valid", **given)
            )
        return self._activated(call, Dense(kernel=kernel, **given))

    def _zeropadding2d(self, call: Call, source: str) -> str:
        return self.add(Pad(name=call.name, inputs=(source,), padding=call.layer.padding))

    def _activation(self, call: Call, source: str) -> str:
        name = _name_of(call.layer.activation)
        if name not in ACTIVATIONS:
            raise _UnknownError(name)
        return self._alone(call, source, ACTIVATIONS[name])

    def _relu(self, call: Call, source: str) -> str:
        layer = call.layer
        if layer.max_value not in (None, 6.0) or layer.negative_slope or layer.threshold:
            raise _UnknownError("only max_value None and 6 are known")
        return self._alone(call, source, Relu(top=layer.max_value))

    def _softmax(self, call: Call, source: str) -> str:
        if len(self._shapes(call)[0]) != 2:
            raise _UnknownError
        return self._alone(call, source, Softmax())

    def _alone(self, call: Call, source: str, activation: Activation) -> str:
        channels = int(self._shapes(call)[-1][-1])
        return self.add(Alone(name=call.name, inputs=(source,), activation=activation, channels=channels))

    def _activated(self, call: Call, step: Weighted) -> str:
        """A step with the activation that its layer has, which is an island where it is unknown."""
        function = call.layer.activation
        if (name := _name_of(function)) in ACTIVATIONS:
            return self.add(replace(step, activation=ACTIVATIONS[name]))
        source = self.add(step)
        return self.add(
            Island(
                name=f"{source}_activation",
                inputs=(source,),
                function=lambda tensors: function(*tensors),
                what=f"{name!r}, the activation of {call.name!r}",
                parts=(function,),
                shape=self._shapes(call)[-1][1:],
            )
        )

    def _globalaveragepooling2d(self, call: Call, source: str) -> str:
        return self.add(Mean(name=call.name, inputs=(source,), keepdims=bool(call.layer.keepdims)))

    def _maxpooling2d(self, call: Call, source: str) -> str:
        return self._pool(call, source, mean=False)

    def _averagepooling2d(self, call: Call, source: str) -> str:
        return self._pool(call, source, mean=True)

    def _pool(self, call: Call, source: str, *, mean: bool) -> str:
        layer = call.layer
        if layer.data_format != "channels_last":
            raise _UnknownError("its channels are not last")
        size, strides = tuple(layer.pool_size), tuple(layer.strides)
        return self.add(
            Pool(
                name=call.name, inputs=(source,), mean=mean, size=size, strides=strides, padding=layer.padding
            )
        )

    def _concatenate(self, call: Call, *sources: str) -> str:
        if call.layer.axis not in (-1, len(self._shapes(call)[-1]) - 1):
            raise _UnknownError("its axis is not that of the channels")
        return self.add(Concatenate(name=call.name, inputs=sources))

    def _flatten(self, call: Call, source: str) -> str:
        return self._reshape(call, source)

    def _reshape(self, call: Call, source: str) -> str:
        before, after = (shape[1:] for shape in self._shapes(call))
        step = self.steps[source]
        if before == after:
            return source
        if None in after or not (len(after) == 1 or after[:2] == (1, 1)):
            raise _UnknownError
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
            raise _UnknownError
        first, *others = sources
        for place, other in enumerate(others, 1):
            name = call.name if place == len(others) else f"{call.name}_{place}"
            first = self.add(kind(name=name, inputs=(first, other)))
        return first


def _name_of(activation: Any) -> str:
    return str(getattr(activation, "__name__", None) or type(activation).__name__)


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
