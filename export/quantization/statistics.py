"""What the float network's tensors look like: samples of every channel, and how much channels matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from tqdm.auto import tqdm

from keras_effnet.export.quantization import simulate
from keras_effnet.export.quantization.graph import WEIGHTED, Array, Graph, Step
from keras_effnet.export.quantization.ranges import sigmoid

SAMPLES = 2000  # values per channel; a percentile of 99.9 then rests on two of them
SAMPLE_BYTES = 1 << 30  # of all samples together: B7 has half a million channels
Samples = Mapping[str, Array]


def sample(graph: Graph, images: Array, *, per_channel: int = SAMPLES) -> dict[str, Array]:
    """Draw values of every tensor of the float network.

    Args:
        graph: the network.
        images: float32 `[N, H, W, C]`, 0–255.
        per_channel: how many values of a channel to keep, from places spread over all pictures; fewer
            where the network has so many channels that the samples would exceed `SAMPLE_BYTES`.

    Returns:
        `[values, channels]` by key: `name` for outputs, `name/pre` for what enters an activation.
        The same rows are taken from `name` and `name/pre`. The extremes of each channel are always
        among them, in the first two rows, which are theirs alone.
    """
    per_channel = min(per_channel, SAMPLE_BYTES // (4 * _all_channels(graph)))
    places = -(-per_channel // len(images))
    rng = np.random.default_rng(0)
    rows: dict[str, list[Array]] = {}
    extremes: dict[str, tuple[Array, Array]] = {}

    def note(key: str, value: Array, index: Array) -> None:
        flat = value.reshape(-1, value.shape[-1])
        rows.setdefault(key, []).append(flat[index])
        low, high = flat.min(0), flat.max(0)
        if key in extremes:
            low, high = np.minimum(low, extremes[key][0]), np.maximum(high, extremes[key][1])
        extremes[key] = (low, high)

    for image in tqdm(images, desc="measuring the float network", unit="image", disable=None, leave=False):
        for step, pre, value in _tensors(graph, image[np.newaxis]):
            count = value.size // value.shape[-1]
            index = rng.permutation(count)[:places] if count > places else np.arange(count)
            note(step.name, value, index)
            if pre is not None:
                note(f"{step.name}/pre", pre, index)
    return {
        key: np.concatenate([*(side[np.newaxis] for side in extremes[key]), *parts])
        for key, parts in rows.items()
    }


def _all_channels(graph: Graph) -> int:
    """Channels of everything that `sample` draws from."""
    widths: dict[str, int] = {}
    total = 0
    for step in graph:
        if step.kind in WEIGHTED:
            widths[step.name] = step.channels
        else:
            widths[step.name] = widths[step.inputs[0]] if step.inputs else int(graph.input_shape[2] or 0)
        total += widths[step.name] * (2 if step.activation in simulate.CURVED else 1)
    return total


def _tensors(graph: Graph, images: Array) -> Iterator[tuple[Step, Array | None, Array]]:
    """(step, what enters its activation or None, output) of each step, in order."""
    last_use = {name: step.name for step in graph for name in step.inputs}
    values: dict[str, Array] = {}
    for step in graph:
        pre = None
        if step.kind == "input":
            value = images
        elif step.activation in simulate.CURVED:
            pre = np.asarray(simulate.linear(step, values[step.inputs[0]]))
            value = np.asarray(simulate.activate(step, pre))
        else:
            value = np.asarray(simulate.step_float(step, [values[name] for name in step.inputs]))
        values[step.name] = value
        yield step, pre, value
        for name in step.inputs:
            if last_use[name] == step.name:
                values.pop(name, None)


def importance(graph: Graph, samples: Samples) -> dict[str, Array]:
    """How strongly an error in each channel of each step's output reaches the network's output.

    To first order and as if the errors of channels were independent: squared weights, summed along
    every path, slopes of activations averaged over the samples.

    Returns:
        By step name, one weight per channel, mean 1.
    """
    weights: dict[str, Array] = {}
    for step in reversed(list(graph)):
        parts = [_through(consumer, step, weights, samples) for consumer in graph.consumers(step.name)]
        channels = samples[step.name].shape[1]
        total = np.sum(parts, axis=0) if parts else np.ones(channels)
        weights[step.name] = total
    return {name: value / max(float(value.mean()), 1e-30) for name, value in weights.items()}


def _through(consumer: Step, step: Step, weights: Mapping[str, Array], samples: Samples) -> Array:
    """What `consumer` makes of an error in the output of `step`, per channel of `step`."""
    behind = weights[consumer.name]
    if consumer.kind == "sum":
        return behind
    if consumer.kind == "product":
        other = next(name for name in consumer.inputs if name != step.name)
        return behind * np.mean(samples[other].astype(np.float64) ** 2, axis=0)
    if consumer.kind == "mean":
        # independent errors average out; what is left over a map of n places is 1/n
        return behind * 1e-2 if consumer.keepdims else behind
    assert consumer.kernel is not None or consumer.kind == "affine"
    slope = _slope(consumer, samples)
    if consumer.kind == "affine":
        factor = 1.0 if consumer.kernel is None else consumer.kernel.astype(np.float64) ** 2
        return behind * slope * factor
    squares = np.asarray(consumer.kernel, np.float64) ** 2
    if consumer.kind == "depthwise":
        return squares.sum(axis=(0, 1, 3)) * behind * slope
    return squares.reshape(-1, *squares.shape[-2:]).sum(0) @ (behind * slope)


def _slope(step: Step, samples: Samples) -> Array:
    """Mean squared derivative of a step's activation, per channel."""
    if step.activation in ("linear", "softmax"):
        return np.ones(step.channels)
    if step.activation == "relu6":
        out = samples[step.name]
        return np.mean((out > 0) & (out < 6), axis=0) + 1e-6
    u = samples[f"{step.name}/pre"].astype(np.float64)
    gain = 1.0 if step.gain is None else step.gain
    gate = np.asarray(sigmoid(u * gain))
    slope = gate * (1 - gate) if step.activation == "sigmoid" else gate + u * gain * gate * (1 - gate)
    return np.mean(slope**2, axis=0) + 1e-12
