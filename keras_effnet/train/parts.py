"""A classifier as fine-tuning computes it: the same layers and the same numbers, with less work.

    frozen      what comes before the first layer that learns; it says the same of a photograph whenever it is asked
    learning    the rest, which is what `fit` gets

Both have the classifier's own variables, so what the one learns the other has. A batch normalization that is frozen is
one factor and one summand for each channel: its factor goes into the kernel in front of it, in every step anew, and
two passes over the maps are saved on the way forward and one on the way back. The gradients are those of the kernel
as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_effnet.network.reader import INPUT, Call, CallGraph, read_graph

# columns of a depthwise kernel up to which oneDNN, TensorFlow's library on CPUs, has a fast gradient
NARROW = 3


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A classifier in two parts, or as it is.

    Attributes:
        learning: from the frozen part's maps, or from pixels, to probabilities; to be compiled.
        frozen: from pixels `[N, H, W, C]` to maps; None where nothing is frozen, or not in one piece.
    """

    learning: Any
    frozen: Any = None


def parts_of(model: Any) -> Parts:
    """The parts of a functional model of one input and one output whose layers are frozen or not by now, for TensorFlow.

    Compile `learning` afterwards; freezing other layers needs new parts.
    """
    graph = read_graph(model)
    cut = _cut(graph)
    tensors: list[Any] = [None] * len(graph.calls)
    for position, call in enumerate(graph.calls):
        tensors[position] = _again(graph, position, [tensors[source.call] for source in call.inputs])
        if position == cut:
            maps = tensors[position]
            tensors[position] = keras.Input(maps.shape[1:], name="maps")
    (pixels,), (end,) = graph.inputs, graph.outputs
    if cut is None:
        return Parts(learning=keras.Model(tensors[pixels], tensors[end.call], name=model.name))
    frozen = keras.Model(tensors[pixels], maps, name=f"{model.name}_frozen")
    return Parts(learning=keras.Model(tensors[cut], tensors[end.call], name=model.name), frozen=frozen)


def _cut(graph: CallGraph) -> int | None:
    """The last call before anything learns that everything behind reads, and nothing behind reads what is before it."""
    calls = graph.calls
    learns = next((place for place, call in enumerate(calls) if _variables(call, "trainable_")), None)
    if learns is None:
        return None
    for place in range(learns - 1, -1, -1):
        read = {source.call for call in calls[place + 1 :] for source in call.inputs if source.call <= place}
        if read == {place} and _joined_with(graph, place) is None:
            return place if any(_variables(call) for call in calls[:place]) else None
    return None


def _variables(call: Call, which: str = "") -> Sequence[Any]:
    return getattr(call.layer, f"{which}variables", ())


def _joined_with(graph: CallGraph, position: int) -> Any:
    """The frozen batch normalization that alone reads a convolution, or None."""
    layer, readers = graph.calls[position].layer, graph.readers(position)
    if not isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D) or len(readers) != 1:
        return None
    norm = graph.calls[readers[0]].layer
    if not isinstance(norm, keras.layers.BatchNormalization) or norm.trainable:
        return None
    plain = not layer.use_bias and layer.activation is keras.activations.linear and norm.scale and norm.center
    last = layer.data_format == "channels_last" and norm.axis in (-1, 3)
    usual = (getattr(layer, "groups", 1), getattr(layer, "depth_multiplier", 1), tuple(layer.dilation_rate))
    return norm if plain and last and usual == (1, 1, (1, 1)) else None


def _again(graph: CallGraph, position: int, sources: list[Any]) -> Any:
    """A call of the model once more, on other tensors; its layers are left without a trace of it."""
    call = graph.calls[position]
    if call.kind == INPUT:
        (tensor,) = call.outputs
        return keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=call.name)
    if len(call.inputs) == 1 and _joined_with(graph, call.inputs[0].call) is call.layer:
        return sources[0]
    if (norm := _joined_with(graph, position)) is not None:
        return _Joined(call.layer, norm)(sources[0])
    layer: Any = call.layer
    if isinstance(layer, keras.layers.Layer):
        layer = _Same(layer) if layer.variables else type(layer).from_config(layer.get_config())
    return replace(call, layer=layer).apply(sources)


class _Same(keras.layers.Layer):
    """A layer with weights, in another model."""

    def __init__(self, layer: Any) -> None:
        super().__init__(name=layer.name)
        self.layer = layer

    def call(self, *inputs: Any, training: bool | None = None, **given: Any) -> Any:
        if self.layer._call_has_training_arg:
            given["training"] = training
        return self.layer(*inputs, **given)


class _Joined(keras.layers.Layer):
    """A convolution with the frozen batch normalization behind it."""

    def __init__(self, conv: Any, norm: Any) -> None:
        super().__init__(name=conv.name)
        self.conv, self.norm = conv, norm

    def call(self, x: Any) -> Any:
        import tensorflow as tf

        conv, norm = self.conv, self.norm
        factor = norm.gamma * keras.ops.rsqrt(norm.moving_variance + norm.epsilon)
        strides, padding = (1, *conv.strides, 1), conv.padding.upper()
        summand = norm.beta - norm.moving_mean * factor
        if isinstance(conv, keras.layers.DepthwiseConv2D):
            return _depthwise(x, conv.kernel * factor[:, None], summand, strides, padding)
        return tf.nn.bias_add(tf.nn.conv2d(x, conv.kernel * factor, strides, padding), summand)


def _depthwise(x: Any, kernel: Any, summand: Any, strides: tuple[int, ...], padding: str) -> Any:
    """A depthwise convolution, whose kernel's gradient is computed in pieces of few columns on a CPU.

    Two pieces of a 5×5 kernel take half the time of the whole. The summand is frozen.
    """
    import tensorflow as tf

    def forward(x: Any, kernel: Any) -> Any:
        return tf.nn.bias_add(tf.nn.depthwise_conv2d(x, kernel, strides, padding), summand)

    if kernel.shape[1] <= NARROW or tf.config.list_physical_devices("GPU"):
        return forward(x, kernel)

    def convolved(x: Any, kernel: Any) -> Any:
        def gradients(slope: Any) -> tuple[Any, Any]:
            behind = tf.nn.depthwise_conv2d_backprop_input(tf.shape(x), kernel, slope, strides, padding)
            return behind, _kernel_gradient(x, kernel.shape, slope, strides, padding)

        return forward(x, kernel), gradients

    return tf.custom_gradient(convolved)(x, kernel)


def _kernel_gradient(x: Any, shape: Any, slope: Any, strides: tuple[int, ...], padding: str) -> Any:
    """The gradient of a depthwise kernel of this shape `[h, w, C, 1]`, some of its columns at a time."""
    import tensorflow as tf

    height, width, channels, _ = shape
    rows, columns = slope.shape[1], slope.shape[2]
    down, across = strides[1:3]
    seen = (rows - 1) * down + height, (columns - 1) * across + width
    if padding == "SAME":
        gaps = [max(wanted - side, 0) for wanted, side in zip(seen, x.shape[1:3], strict=True)]
        x = tf.pad(x, [(0, 0), *((gap // 2, gap - gap // 2) for gap in gaps), (0, 0)])
    found = []
    for first in range(0, width, NARROW):
        part = min(NARROW, width - first)
        taken = x[:, : seen[0], first : first + (columns - 1) * across + part]
        kernel = (height, part, channels, 1)
        found.append(tf.nn.depthwise_conv2d_backprop_filter(taken, kernel, slope, strides, "VALID"))
    return tf.concat(found, axis=1)
