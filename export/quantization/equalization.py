"""What the float network's channels look like, and transformations that balance them, exact in float.

A tensor has one scale for all its channels, so a channel with a hundredth of the largest channel's
range keeps 2 or 3 of 256 levels. Dividing channels by factors of their own and multiplying the weights
behind by the same factors changes nothing in float. Swish is not homogeneous, but
swish(s·u) = s · [u · sigmoid(s·u)]: the producer is divided by s, the activation computes
u · sigmoid(s·u), the consumers are multiplied by s. That costs one product per value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from tqdm.auto import tqdm

from .graph import Graph
from .ops import OUTPUT, PRE, Operator, Swish
from .ranges import LEVELS, Array, Range, integer_sigmoid, sigmoid
from .steps import Input, Mean, Samples, Step
from .weighted import Affine, Conv, Depthwise, Weighted

SAMPLES = 2000  # values per channel; a percentile of 99.9 then rests on two of them
SAMPLE_BYTES = 1 << 30  # of all samples together: B7 has half a million channels
SAMPLED = (OUTPUT, PRE)
SATURATION = 8.0  # sigmoid(-8) is 0.0003: below it, swish is 0 to within an eighth of an int8 sigmoid's step
PERCENTILES = (100.0, 99.95, 99.9, 99.5, 99.0)
SEARCH_ROWS = 600


def sample(graph: Graph, images: Array, *, per_channel: int = SAMPLES) -> dict[str, Array]:
    """Draw values of every tensor of the float network.

    Args:
        graph: the network.
        images: float32 `[N, H, W, C]`, 0–255.
        per_channel: how many values of a channel to keep, from places spread over all pictures; fewer
            where the network has so many channels that the samples would exceed `SAMPLE_BYTES`.

    Returns:
        `[values, channels]` by key: of outputs, and of what enters an activation. The same rows are
        taken from both. The extremes of each channel are always among them, in the first two rows,
        which are theirs alone.
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

        def measured(step: Step, sources: list[Array], image: Array = image) -> Array:
            tensors = _tensors(step, sources) if sources else {OUTPUT: image[np.newaxis]}
            value = tensors[OUTPUT]
            count = value.size // value.shape[-1]
            index = rng.permutation(count)[:places] if count > places else np.arange(count)
            for tensor in SAMPLED:
                if tensor in tensors:
                    note(step.key(tensor), tensors[tensor], index)
            return value

        for _ in graph.walk(measured):
            pass
    return {
        key: np.concatenate([*(side[np.newaxis] for side in extremes[key]), *parts])
        for key, parts in rows.items()
    }


def _tensors(step: Step, sources: list[Array]) -> dict[str, Array]:
    """The tensors of a step in float."""
    seen: dict[str, Array] = {}

    def do(operator: Operator, *values: Array, tensor: str | None = OUTPUT) -> Array:
        value = np.asarray(operator.tensorflow(*values))
        if tensor is not None:
            seen[tensor] = value
        return value

    step.compute(do, *sources)
    return seen


def _all_channels(graph: Graph) -> int:
    """Channels of everything that `sample` draws from."""
    widths: dict[str, int] = {}
    total = 0
    for step in graph:
        sources = [widths[name] for name in step.inputs]
        widths[step.name] = (
            int(graph.input_shape[2] or 0) if isinstance(step, Input) else step.channels_of(sources)
        )
        twice = isinstance(step, Weighted) and step.activation.entry == PRE
        total += widths[step.name] * (2 if twice else 1)
    return total


def importance(graph: Graph, samples: Samples) -> dict[str, Array]:
    """How strongly an error in each channel of each step's output reaches the network's output.

    To first order and as if the errors of channels were independent: squared weights, summed along
    every path, slopes of activations averaged over the samples.

    Returns:
        By step name, one weight per channel, mean 1.
    """
    weights: dict[str, Array] = {}
    for step in reversed(list(graph)):
        parts = [
            reader.error_behind(weights[reader.name], step.name, samples)
            for reader in graph.consumers(step.name)
        ]
        parts += [_own_weight(graph, samples[step.name])] * graph.outputs.count(step.name)
        weights[step.name] = np.sum(parts, axis=0)
    return {name: value / max(float(value.mean()), 1e-30) for name, value in weights.items()}


def _own_weight(graph: Graph, values: Array) -> Array:
    """How much an error in each channel of an output matters; of several, relative to the power of each output."""
    power = float(np.mean(values.astype(np.float64) ** 2)) if len(graph.outputs) > 1 else 1.0
    return np.full(values.shape[1], 1 / max(power, 1e-30))


def absorb_preprocessing(graph: Graph) -> Graph:
    """Move the factors of `affine` steps into the convolution behind: x·a + b = (x + b/a)·a.

    What is left is one sum, in pixel values: on the 8-bit grid that the pixels themselves are on. Without a
    summand nothing is left.
    """
    for step in list(graph):
        if not isinstance(step, Affine) or step.kernel is None:
            continue
        readers = graph.consumers(step.name)
        if len(readers) != 1 or not isinstance(readers[0], Conv) or isinstance(readers[0], Depthwise):
            continue
        if step.name in graph.outputs:
            continue
        bias = (step.bias / step.kernel).astype(np.float32)
        rest = replace(step, kernel=None, bias=bias)
        graph = _push(graph.updated(rest), step.name, step.kernel)
        if not bias.any():
            graph = graph.without(rest)
    return graph


def equalize_swishes(
    graph: Graph, samples: Samples, weights: Mapping[str, Array], names: Iterable[str]
) -> Graph:
    """Balance the channels around the given swishes.

    Args:
        graph: the network.
        samples: of its tensors.
        weights: importance of channels.
        names: steps with a swish.

    Returns:
        A graph that computes the same, with `gain` set on those steps.
    """
    for name in names:
        step = graph[name]
        assert isinstance(step, Weighted)
        gains = choose_gains(samples[step.key(PRE)], weights[name])
        graph = graph.updated(replace(divide_output(step, gains), activation=Swish(gain=gains)))
        graph = _push(graph, name, gains)
    return graph


def choose_gains(u: Array, weights: Array) -> Array:
    """Factors s for one swish.

    Every channel is to fill the shared range [-r, 1] of u/s; below -8 a channel may be cut off, since
    swish is 0 there. Percentile and r are those with the smallest error of the swish's output.

    Args:
        u: samples in front of the swish, `[values, channels]`.
        weights: importance of the channels.

    Returns:
        float32 `[channels]`, multiples of their maximum / 255, so that an int8 constant holds them.
    """
    rows = np.linspace(0, len(u) - 1, min(len(u), SEARCH_ROWS)).astype(int)
    best, least = np.ones(u.shape[1], np.float32), np.inf
    for percentile in PERCENTILES:
        high = np.maximum(np.percentile(u, percentile, axis=0), 1e-3)
        low = np.clip(-np.percentile(u, 100 - percentile, axis=0), 0.0, SATURATION)
        for ratio in np.geomspace(0.02, 8.0, 25):
            gains = snap(np.maximum(high, low / ratio))
            if (loss := _swish_loss(u[rows], gains, weights, float(ratio))) < least:
                best, least = gains, loss
    return best


def snap(factors: Array) -> Array:
    """The nearest factors that an int8 constant with one scale can hold, none of them 0."""
    step = float(np.max(factors)) / LEVELS
    return (np.maximum(np.rint(factors / step), 1) * step).astype(np.float32)


def _swish_loss(u: Array, gains: Array, weights: Array, ratio: float) -> float:
    held = Range(low=-ratio, high=1.0).round(u / gains) * gains
    gate = integer_sigmoid(Range(low=-SATURATION, high=SATURATION).round(held))
    error = np.mean((held * gate - u * sigmoid(u)) ** 2, axis=0)
    return float(error @ weights)


def divide_output(step: Weighted, factors: Array) -> Weighted:
    """A step whose output channels come out divided by `factors`, in front of its activation."""
    return replace(
        step,
        kernel=(step.kernel / step.by_channel(factors)).astype(np.float32),
        bias=(step.bias / factors).astype(np.float32),
    )


def _push(graph: Graph, name: str, factors: Array) -> Graph:
    """Multiply by `factors` what the consumers of `name` do with its channels."""
    for reader in graph.consumers(name):
        if isinstance(reader, Weighted):
            graph = graph.updated(reader.times_input(factors))
        elif reader.passes_factors:
            graph = _push(graph, reader.name, factors)
        else:
            raise ValueError(f"A {type(reader).__name__} cannot take the factors of {name!r}.")
    return graph


def swishes(graph: Graph) -> list[str]:
    """Steps whose swish can be equalized, in order.

    Squeeze-and-excite's are a single pixel and not worth it. A sum behind a swish, which only networks
    far narrower than B0 have, would need the same factors on its other side.
    """
    return [name for name in _large_swishes(graph) if _can_push(graph, name)]


def _large_swishes(graph: Graph) -> list[str]:
    pooled = {step.name for step in graph if isinstance(step, Mean)}
    return [
        step.name
        for step in graph.weighted
        if isinstance(step.activation, Swish) and not pooled.intersection(step.inputs)
    ]


def _can_push(graph: Graph, name: str) -> bool:
    """Whether everything that reads a step can take factors for its channels, and something does.

    Behind an output, nothing would multiply the factors back. A depthwise convolution takes them for
    nothing, as each of its channels has a scale of its own. Where channels are mixed, one scale would have
    to hold a channel's large factor and the weights of all others.
    """
    readers = graph.consumers(name)
    return name not in graph.outputs and all(
        isinstance(reader, Depthwise) or (reader.passes_factors and _can_push(graph, reader.name))
        for reader in readers
    )


def affordable(graph: Graph, sizes: Mapping[str, int], share: float) -> list[str]:
    """The swishes to equalize within a budget: earlier ones first, those that exceed it left out.

    Args:
        graph: the network.
        sizes: values in each step's output, for one picture.
        share: of all values that go through a swish, 0–1.
    """
    left = share * sum(sizes[name] for name in _large_swishes(graph))
    chosen = []
    for name in swishes(graph):
        if sizes[name] <= left:
            chosen.append(name)
            left -= sizes[name]
    return chosen
