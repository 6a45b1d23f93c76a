"""Transformations that are exact in float and make every tensor use its one integer scale well.

A tensor has one scale for all its channels, so a channel with a hundredth of the largest channel's
range keeps 2 or 3 of 256 levels. Dividing channels by factors of their own and multiplying the weights
behind by the same factors changes nothing in float. Three places, three forms:

- **swish** is not homogeneous, but swish(s·u) = s · [u · sigmoid(s·u)]: the producer is divided by s,
  the activation computes u · sigmoid(s·u), the consumers are multiplied by s. Costs one product.
- **gates**: the squeeze-and-excite gate, a single pixel, takes factors that balance the product behind
  it; the projection is divided by them. Costs a product of one pixel.
- **streams**: the linear tensors of a stage, tied together by residual sums, share one set of
  factors. Costs nothing.
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
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
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


def equalize_gates(graph: Graph, samples: Samples, weights: Mapping[str, Array]) -> Graph:
    """Balance the products of features and squeeze-and-excite gates.

    Must come after `equalize_swishes`; measures the products again through the gains it set.
    """
    for product in [step for step in graph if step.kind == "product"]:
        gate = next((n for n in product.inputs if graph[n].activation == "sigmoid"), None)
        consumers = graph.consumers(product.name)
        if gate is None or not all(consumer.kind == "conv" for consumer in consumers):
            continue
        features = next(name for name in product.inputs if name != gate)
        gains = graph[features].gain
        values = samples[product.name] / (1.0 if gains is None else gains)
        factors = snap(1.0 / _balance(values, consumers, weights))
        if np.ptp(factors) > 0:
            graph = graph.updated(replace(graph[gate], rescale=factors))
            graph = _push(graph, product.name, 1.0 / factors)
    return graph


def equalize_streams(graph: Graph, samples: Samples, weights: Mapping[str, Array]) -> Graph:
    """Balance the linear tensors that residual sums tie together."""
    for group in _streams(graph):
        values = np.concatenate([samples[name] for name in group])
        readers = [c for name in group for c in graph.consumers(name) if c.kind != "sum"]
        if not readers or not all(reader.kind in ("conv", "dense") for reader in readers):
            continue
        factors = _balance(values, readers, weights).astype(np.float32)
        for name in group:
            if graph[name].kind == "conv":
                graph = graph.updated(divide_output(graph[name], factors))
        for reader in {reader.name: reader for reader in readers}.values():
            graph = graph.updated(_times_input(graph[reader.name], factors))
    return graph


def _streams(graph: Graph) -> list[list[str]]:
    """Groups of steps without activation that are added to each other."""
    group_of: dict[str, list[str]] = {}
    for step in graph:
        if step.kind == "conv" and step.activation == "linear":
            group_of[step.name] = [step.name]
        elif step.kind == "sum" and all(name in group_of for name in step.inputs):
            merged = [name for source in dict.fromkeys(map(id, (group_of[n] for n in step.inputs)))
                      for name in next(g for g in group_of.values() if id(g) == source)]
            merged.append(step.name)
            for name in merged:
                group_of[name] = merged
    return list({id(group): group for group in group_of.values()}.values())


def _balance(values: Array, consumers: list[Step], weights: Mapping[str, Array]) -> Array:
    """Factors t for a tensor x/t, with the consumers' weights taking t.

    Between "not at all" and "every channel fills the range", the power with the least predicted noise:
    rounding of x/t seen through the weights, plus rounding of the weights that have taken t.
    """
    reach = np.maximum(np.percentile(np.abs(values), 99.9, axis=0), 1e-6)
    power = np.mean(values.astype(np.float64) ** 2, axis=0)

    def noise(exponent: float) -> float:
        factors = (reach / reach.max()) ** exponent
        step = np.max(reach / factors)
        total = 0.0
        for consumer in consumers:
            kernel = _matrix(consumer) * factors[:, np.newaxis]
            behind = weights[consumer.name]
            activation = (2 * step / 255) ** 2 * float((kernel**2).sum(0) @ behind)
            steps = np.max(np.abs(kernel), axis=0) / 127
            total += activation + float(np.sum(power / factors**2)) * float(steps**2 @ behind)
        return total

    best = min(EXPONENTS, key=noise)
    return (reach / reach.max()) ** best


def _matrix(step: Step) -> Array:
    """A kernel as `[input channels, all the rest]`; output channels vary fastest."""
    assert step.kernel is not None
    kernel = step.kernel.astype(np.float64)
    if kernel.ndim == 2:
        return kernel
    if kernel.shape[:2] != (1, 1):
        return np.sqrt((kernel**2).sum((0, 1)))
    return kernel[0, 0]


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
        consumer.kind in WEIGHTED or (consumer.kind in ("mean", "product") and _can_push(graph, consumer.name))
        for consumer in graph.consumers(name)
    )


def strides(graph: Graph) -> dict[str, float]:
    """How many input pixels lie between neighbouring values of each step, infinity behind a mean."""
    found: dict[str, float] = {}
    for step in graph:
        before = max((found[name] for name in step.inputs if np.isfinite(found[name])), default=np.inf)
        if step.kind == "input":
            before = 1.0
        found[step.name] = np.inf if step.kind == "mean" else before * max(step.strides)
    return found
