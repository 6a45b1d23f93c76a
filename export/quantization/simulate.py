"""Runs a graph in NumPy/TensorFlow: in float, and with every tensor rounded as integer kernels round it.

Tensors of a step, by key: `name` (output), `name/pre` (in front of an activation), `name/gate` (the
scaled input of an equalized swish's sigmoid). The sigmoid's own output has a fixed scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_effnet.export.quantization.graph import Array, Graph, Step
from keras_effnet.export.quantization.ranges import SIGMOID_STEPS, Range

Ranges = Mapping[str, Range]
CURVED = frozenset({"swish", "sigmoid", "softmax"})


def linear(step: Step, x: Any) -> Any:
    """The weighted part of a step.

    Args:
        step: of a kind with weights, or `affine`.
        x: its input, `[N, H, W, C]` or `[N, C]`.

    Returns:
        The tensor in front of the activation, a TensorFlow tensor.
    """
    import tensorflow as tf

    if step.kind == "affine":
        return x * step.kernel + step.bias if step.kernel is not None else x + step.bias
    if step.kind == "dense":
        return tf.linalg.matmul(x, step.kernel) + step.bias
    padding: Any = step.padding
    if isinstance(padding, str):
        padding = padding.upper()
    elif step.kind == "conv":
        padding = [(0, 0), *padding, (0, 0)]
    else:
        x, padding = tf.pad(x, [(0, 0), *padding, (0, 0)]), "VALID"
    convolve = tf.nn.conv2d if step.kind == "conv" else tf.nn.depthwise_conv2d
    return convolve(x, step.kernel, (1, *step.strides, 1), padding) + step.bias


def activate(step: Step, u: Any) -> Any:
    """The activation of a step in float."""
    import tensorflow as tf

    if step.activation == "swish":
        return u * tf.sigmoid(u if step.gain is None else u * step.gain)
    if step.activation == "sigmoid":
        return tf.sigmoid(u)
    if step.activation == "relu6":
        return tf.clip_by_value(u, 0.0, 6.0)
    return tf.nn.softmax(u) if step.activation == "softmax" else u


def activate_integer(step: Step, u: Any, ranges: Ranges) -> Any:
    """The activation as integer kernels compute it, its output rounded."""
    import tensorflow as tf

    name = step.name
    if step.activation == "softmax":
        return tf.nn.softmax(rounded(u, ranges, f"{name}/pre"))
    if step.activation not in CURVED or f"{name}/pre" not in ranges:
        return rounded(activate(step, u), ranges, name)
    u = rounded(u, ranges, f"{name}/pre")
    gated = u if step.gain is None else rounded(u * step.gain, ranges, f"{name}/gate")
    gate = tf.minimum(tf.round(tf.sigmoid(gated) * SIGMOID_STEPS), SIGMOID_STEPS - 1) / SIGMOID_STEPS
    return rounded(u * gate, ranges, name) if step.activation == "swish" else gate


def rounded(x: Any, ranges: Ranges, key: str) -> Any:
    """`x` as its integer tensor holds it; unchanged when the tensor has no range (it stays float)."""
    import tensorflow as tf

    chosen = ranges.get(key)
    if chosen is None:
        return x
    low, high = chosen.nudged
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high)


def combine(step: Step, sources: list[Any]) -> Any:
    """The value of a step without weights, in float."""
    import tensorflow as tf

    if step.kind == "mean":
        return tf.reduce_mean(sources[0], axis=(1, 2), keepdims=step.keepdims)
    left, right = sources
    return left * right if step.kind == "product" else left + right


def step_float(step: Step, sources: list[Any]) -> Any:
    """A step in float."""
    if step.kind in ("mean", "product", "sum"):
        return combine(step, sources)
    return activate(step, linear(step, sources[0]))


def step_integer(step: Step, sources: list[Any], ranges: Ranges) -> Any:
    """A step with its tensors rounded; its weights are taken as they are."""
    if step.kind in ("mean", "product", "sum"):
        return rounded(combine(step, sources), ranges, step.name)
    return activate_integer(step, linear(step, sources[0]), ranges)


def run(
    graph: Graph,
    images: Array,
    ranges: Ranges | None = None,
    *,
    batch: int = 8,
    keep: Callable[[str], bool] | None = None,
) -> dict[str, Array]:
    """Run a graph on pictures.

    Args:
        graph: the network.
        images: float32 `[N, H, W, C]`, 0–255.
        ranges: None to compute in float, else the integer tensors' ranges.
        batch: pictures at a time.
        keep: which tensors to return besides the output; default none.

    Returns:
        Arrays by step name, with all pictures.
    """
    collected: dict[str, list[Array]] = {}
    for chunk in batches(images, batch):
        for name, value in _walk(graph, chunk, ranges):
            if name == graph.output or (keep is not None and keep(name)):
                collected.setdefault(name, []).append(np.asarray(value))
    return {name: np.concatenate(parts) for name, parts in collected.items()}


def map_sizes(graph: Graph, shape: tuple[int, ...]) -> dict[str, int]:
    """Values of each step's output for one picture of the given (height, width, channels)."""
    image = np.zeros((1, *shape), np.float32)
    return {name: int(np.prod(value.shape)) for name, value in _walk(graph, image, None)}


def batches(images: Array, size: int) -> Iterator[Array]:
    """Pictures in groups of at most `size`."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def _walk(graph: Graph, images: Array, ranges: Ranges | None) -> Iterator[tuple[str, Any]]:
    """Every step's value in order; values are forgotten after their last use."""
    last_use = {name: step.name for step in graph for name in step.inputs}
    values: dict[str, Any] = {}
    for step in graph:
        sources = [values[name] for name in step.inputs]
        if step.kind == "input":
            value = images if ranges is None else rounded(images, ranges, step.name)
        else:
            value = step_float(step, sources) if ranges is None else step_integer(step, sources, ranges)
        values[step.name] = value
        yield step.name, value
        for name in step.inputs:
            if last_use[name] == step.name:
                values.pop(name, None)
