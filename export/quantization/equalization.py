"""Transformations that are exact in float and make every tensor use its one integer scale well.

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

from keras_effnet.export.quantization.graph import WEIGHTED, Array, Graph, Step
from keras_effnet.export.quantization.ranges import Range, integer_sigmoid, sigmoid
from keras_effnet.export.quantization.statistics import Samples

SATURATION = 8.0  # sigmoid(-8) is 0.0003: below it, swish is 0 to within an eighth of an int8 sigmoid's step
LEVELS = 255  # of an int8 constant whose smallest value is 0
PERCENTILES = (100.0, 99.95, 99.9, 99.5, 99.0)
SEARCH_ROWS = 600


def absorb_preprocessing(graph: Graph) -> Graph:
    """Move the factors of `affine` steps into the convolution behind: x·a + b = (x + b/a)·a.

    What is left is one sum, in pixel values: on the 8-bit grid that the pixels themselves are on.
    """
    for step in list(graph):
        consumers = graph.consumers(step.name)
        if step.kind != "affine" or step.kernel is None or [c.kind for c in consumers] != ["conv"]:
            continue
        bias = (step.bias / step.kernel).astype(np.float32)
        graph = _push(graph.updated(replace(step, kernel=None, bias=bias)), step.name, step.kernel)
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
        gains = choose_gains(samples[f"{name}/pre"], weights[name])
        graph = graph.updated(replace(divide_output(step, gains), gain=gains))
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


def divide_output(step: Step, factors: Array) -> Step:
    """A step whose output channels come out divided by `factors`, in front of its activation."""
    assert step.kernel is not None and step.bias is not None
    by_channel = factors[:, np.newaxis] if step.kind == "depthwise" else factors
    return replace(
        step,
        kernel=(step.kernel / by_channel).astype(np.float32),
        bias=(step.bias / factors).astype(np.float32),
    )


def _push(graph: Graph, name: str, factors: Array) -> Graph:
    """Multiply by `factors` what the consumers of `name` do with its channels."""
    for consumer in graph.consumers(name):
        if consumer.kind in WEIGHTED:
            graph = graph.updated(_times_input(consumer, factors))
        elif consumer.kind in ("mean", "product"):
            graph = _push(graph, consumer.name, factors)
        else:
            raise ValueError(f"A {consumer.kind} cannot take the factors of {name!r}.")
    return graph


def _times_input(step: Step, factors: Array) -> Step:
    assert step.kernel is not None
    return replace(step, kernel=(step.kernel * factors[:, np.newaxis]).astype(np.float32))


def swishes(graph: Graph) -> list[str]:
    """Steps whose swish can be equalized, in order.

    Squeeze-and-excite's are a single pixel and not worth it. A sum behind a swish, which only networks
    far narrower than B0 have, would need the same factors on its other side.
    """
    pooled = {step.name for step in graph if step.kind == "mean"}
    return [
        step.name
        for step in graph
        if step.activation == "swish" and not pooled.intersection(step.inputs) and _can_push(graph, step.name)
    ]


def _can_push(graph: Graph, name: str) -> bool:
    """Whether everything that reads a step can take factors for its channels."""
    return all(
        consumer.kind in WEIGHTED
        or (consumer.kind in ("mean", "product") and _can_push(graph, consumer.name))
        for consumer in graph.consumers(name)
    )


def affordable(graph: Graph, sizes: Mapping[str, int], share: float) -> list[str]:
    """The swishes to equalize within a budget: earlier ones first, those that exceed it left out.

    Args:
        graph: the network.
        sizes: values in each step's output, for one picture.
        share: of all values that go through a swish, 0–1.
    """
    names = swishes(graph)
    left = share * sum(sizes[name] for name in names)
    chosen = []
    for name in names:
        if sizes[name] <= left:
            chosen.append(name)
            left -= sizes[name]
    return chosen
