"""From a `Graph` back to a functional Keras model, in the form that integer kernels run fastest."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_effnet.export.quantization.graph import Array, Graph, Step


def to_keras(graph: Graph, *, height: int, width: int) -> Any:
    """Build the network that a graph describes.

    Args:
        graph: the steps.
        height, width: of the input, in pixels.

    Returns:
        A `keras.Model` from pixels 0–255 `[N, height, width, C]` to what the graph's last step gives.
    """
    import keras

    image = keras.Input(shape=(height, width, graph.input_shape[2]), name="image")
    values: dict[str, Any] = {}
    for step in graph:
        sources = [values[name] for name in step.inputs]
        values[step.name] = image if step.kind == "input" else _build(keras, step, sources)
    return keras.Model(image, values[graph.output], name="quantizable")


def _build(keras: Any, step: Step, sources: list[Any]) -> Any:
    layers = keras.layers
    if step.kind == "mean":
        return layers.GlobalAveragePooling2D(keepdims=step.keepdims, name=step.name)(sources[0])
    if step.kind == "product":
        return layers.Multiply(name=step.name)(sources)
    if step.kind == "sum":
        return layers.Add(name=step.name)(sources)
    if step.kind == "affine":
        return _scaled(keras, sources[0], step.kernel) + _row(sources[0], step.bias)
    return _activate(keras, step, _linear(keras, step, sources[0]))


def _linear(keras: Any, step: Step, x: Any) -> Any:
    """The weighted part of a step, without its activation."""
    layers = keras.layers
    assert step.kernel is not None
    weights = [step.kernel, step.bias]
    if step.kind == "dense":
        layer = layers.Dense(step.channels, name=step.name)
    else:
        if not isinstance(step.padding, str):
            x = layers.ZeroPadding2D(step.padding, name=f"{step.name}_pad")(x)
        options = {
            "kernel_size": step.kernel.shape[:2],
            "strides": step.strides,
            "padding": step.padding if isinstance(step.padding, str) else "valid",
            "name": step.name,
        }
        make = layers.Conv2D if step.kind == "conv" else layers.DepthwiseConv2D
        layer = make(step.channels, **options) if step.kind == "conv" else make(**options)
    y = layer(x)
    layer.set_weights(weights)
    return y


def _activate(keras: Any, step: Step, u: Any) -> Any:
    if step.activation == "swish":
        return u * keras.ops.sigmoid(_scaled(keras, u, step.gain))
    if step.activation == "relu6":
        return keras.layers.ReLU(6.0, name=f"{step.name}_activation")(u)
    if step.activation == "sigmoid":
        return keras.ops.sigmoid(u)
    if step.activation == "softmax":
        return keras.layers.Softmax(name=f"{step.name}_activation")(u)
    return u


def _scaled(keras: Any, x: Any, factors: Array | None) -> Any:
    return x if factors is None else x * _row(x, factors)


def _row(x: Any, values: Array | None) -> Array:
    """One value per channel, repeated along the width.

    XNNPACK broadcasts a constant `[C]` pixel by pixel, with a call for each; a whole row of pixels
    makes the calls long enough to run at memory speed.
    """
    assert values is not None
    if len(x.shape) != 4:
        return values.astype(np.float32)
    return np.tile(values.astype(np.float32), (1, 1, int(x.shape[2]), 1))
