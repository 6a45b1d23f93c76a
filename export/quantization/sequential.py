"""One walk through the network that turns it into integers, step by step.

Two copies of every tensor are carried along: what the float network computes, and what the integer
network computes with everything decided so far. Each step gets weights and ranges that bring the
second as close to the first as possible; what a step cannot repair, the next one sees and may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from tqdm.auto import tqdm

from keras_effnet.export.quantization import reconstruction, simulate
from keras_effnet.export.quantization.graph import WEIGHTED, Array, Graph, Step
from keras_effnet.export.quantization.ranges import (
    SEARCH_ELEMENTS,
    SIGMOID_STEPS,
    Range,
    best_range,
    covering,
    integer_sigmoid,
)

BATCH = 4
ROWS = 4096  # regression samples of a layer; wider layers get 4 for each weight of an output
DEPTHWISE_ROWS = 1024  # a depthwise output has 9 or 25 weights
PIXELS = Range(low=0.0, high=255.0)


@dataclass(frozen=True, kw_only=True)
class Method:
    """What the walk does; the defaults are what measurement favoured.

    Attributes:
        ranges: `"error"` (smallest output error) or `"minmax"`.
        weights: `"refit"` (least squares), `"bias"` (correct means only) or `"keep"`.
        rounding: `"compensated"`, `"nearest"`, or `"none"` to measure what rounding costs; a network
            that is not rounded cannot be written to a file.
        first_integer: of a network with swishes, what the name of the first step begins with that computes
            in integers; those before it stay float. Empty: all compute in integers.
    """

    ranges: str = "error"
    weights: str = "refit"
    rounding: str = "compensated"
    first_integer: str = ""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """An integer network.

    Attributes:
        graph: its steps; weights lie on their 8-bit grids.
        ranges: of its tensors, by the keys of `simulate`.
        lifted: names of steps that compute in float. What passes between two of them is float too.
    """

    graph: Graph
    ranges: dict[str, Range]
    lifted: frozenset[str] = frozenset()

    @property
    def between(self) -> frozenset[str]:
        """The lifted steps that only lifted ones read: what they pass on is float."""
        return frozenset(
            name
            for name in self.lifted
            if (readers := self.graph.consumers(name)) and self.lifted.issuperset(r.name for r in readers)
        )

    def lift(self, *names: str) -> Quantized:
        """The same network with further steps in float."""
        more = replace(self, lifted=self.lifted.union(names))
        inner = {key for key in self.ranges if "/" in key and key.split("/")[0] in more.lifted}
        dropped = inner | more.between
        return replace(more, ranges={key: value for key, value in self.ranges.items() if key not in dropped})


def quantize(
    graph: Graph,
    images: Array,
    importance: Mapping[str, Array],
    method: Method = Method(),
) -> Quantized:
    """Choose weights and ranges for all steps.

    Args:
        graph: the float network, equalized or not.
        images: calibration photographs, float32 `[N, H, W, C]`, 0–255.
        importance: of the channels, by step.
        method: what to do.

    Returns:
        The integer network.
    """
    walk = _Walk(graph, images, importance, method)
    for step in tqdm(list(graph), desc="quantizing", unit="step", disable=None, leave=False):
        walk.take(step)
    return Quantized(graph=walk.graph, ranges=walk.ranges, lifted=walk.floats)


class _Walk:
    """The state of the walk: the graph so far, and both copies of the tensors still needed."""

    def __init__(self, graph: Graph, images: Array, importance: Mapping[str, Array], method: Method) -> None:
        self.graph = graph
        self.images = images
        self.importance = importance
        self.method = method
        self.ranges: dict[str, Range] = {}
        self.floats = _before(graph, method.first_integer)
        self.exact: dict[str, Array] = {}
        self.integer: dict[str, Array] = {}
        self.last_use = {name: step.name for step in graph for name in step.inputs}
        self.rng = np.random.default_rng(0)

    def take(self, step: Step) -> None:
        """Decide everything about one step and compute its output in both copies."""
        if step.kind == "input":
            self.ranges[step.name] = PIXELS
            self.exact[step.name] = self.integer[step.name] = self.images
            return
        if step.kind in WEIGHTED:
            step = self._fit(step)
        elif step.kind != "affine":
            self._fit_plain(step)
        elif step.name not in self.floats:
            step = self._fit_affine(step)
        if step.name in self.floats:
            self.ranges = Quantized(graph=self.graph, ranges=self.ranges).lift(*self.floats).ranges
        self._advance(step)

    def _advance(self, step: Step) -> None:
        float_step = self.graph[step.name]
        self.graph = self.graph.updated(step)
        exact, integer = [], []
        for start in range(0, len(self.images), BATCH):
            part = slice(start, start + BATCH)
            exact.append(
                np.asarray(simulate.step_float(float_step, [self.exact[n][part] for n in step.inputs]))
            )
            sources = [self.integer[name][part] for name in step.inputs]
            integer.append(np.asarray(simulate.step_integer(step, sources, self.ranges)))
        self.exact[step.name], self.integer[step.name] = np.concatenate(exact), np.concatenate(integer)
        for name in step.inputs:
            if self.last_use[name] == step.name:
                self.exact.pop(name, None)
                self.integer.pop(name, None)

    def _fit_affine(self, step: Step) -> Step:
        """Preprocessing: one constant of 8 bits, and a range that holds every pixel value."""
        bias = step.bias
        assert bias is not None
        ends = np.array([PIXELS.low, PIXELS.high])[:, np.newaxis]
        if step.kernel is not None:
            kernel = covering(step.kernel).round(step.kernel)
            step = replace(step, kernel=kernel)
            scaled = ends * kernel
            self.ranges[f"{step.name}/scaled"] = covering(scaled)
            ends = scaled
        rounded_bias = covering(bias).round(bias)
        self.ranges[step.name] = covering(ends + rounded_bias)
        return replace(step, bias=rounded_bias)

    def _fit_plain(self, step: Step) -> None:
        """A step without weights: only the range of its output is open."""
        sources = [self.integer[name] for name in step.inputs], [self.exact[name] for name in step.inputs]
        result, target = (np.asarray(simulate.combine(step, self._some(values))) for values in sources)
        self.ranges[step.name] = self._output_range(step, result, target)

    def _some(self, values: list[Array]) -> list[Array]:
        """The same pixels of the same pictures from each tensor: enough to choose a range by."""
        shape = max((value.shape for value in values), key=np.prod)
        if len(shape) != 4 or all(value.shape[1:3] == (1, 1) for value in values):
            return values
        count = max(1, SEARCH_ELEMENTS // (len(values[0]) * shape[3]))
        chosen = np.random.default_rng(0).permutation(shape[1] * shape[2])[:count]
        flat = [value.reshape(len(value), -1, shape[3]) for value in values]
        return [(value if value.shape[1] == 1 else value[:, chosen])[:, :, np.newaxis] for value in flat]

    def _fit(self, step: Step) -> Step:
        """New weights, then the ranges of the step's tensors."""
        fit = self._regression(step)
        weights = self._weights(fit)
        bias = reconstruction.best_bias(fit, weights) if self.method.weights != "keep" else fit.bias
        step = replace(step, kernel=_ungrouped(step, weights), bias=bias.reshape(-1).astype(np.float32))
        self._activation_ranges(step, _flat(fit.inputs @ weights + bias), _flat(fit.targets))
        return step

    def _regression(self, step: Step) -> reconstruction.Fit:
        inputs, exact_inputs = self._rows(step)
        weights, bias = _grouped(step), _grouped_bias(step)
        targets = exact_inputs @ weights + bias
        relevance = None
        if step.activation in ("swish", "relu6") and self.method.weights != "keep":
            both = (_slope(step, _flat(values)) for values in (targets, inputs @ weights + bias))
            relevance = _unflat(np.maximum(*both), targets.shape)
        return reconstruction.Fit(
            inputs=inputs,
            targets=targets,
            weights=weights,
            bias=bias,
            least=reconstruction.least_scales(bias, _input_scale(self.ranges, step)),
            relevance=relevance,
        )

    def _weights(self, fit: reconstruction.Fit) -> Array:
        weights = reconstruction.refit(fit) if self.method.weights == "refit" else fit.weights
        if self.method.rounding == "none":
            return weights
        if self.method.rounding == "compensated":
            return reconstruction.round_compensated(weights, fit.gram, fit.least)
        return reconstruction.round_nearest(weights, fit.least)

    def _rows(self, step: Step) -> tuple[Array, Array]:
        """Inputs of the layer at random places of all pictures, integer and exact."""
        (name,) = step.inputs
        assert step.kernel is not None
        depthwise = step.kind == "depthwise"
        fan_in = int(np.prod(step.kernel.shape[:-1]))
        wanted = DEPTHWISE_ROWS if depthwise else max(ROWS, 4 * fan_in)
        places = -(-wanted // len(self.images))
        state = self.rng.integers(2**31)
        both = []
        for copy in (self.integer, self.exact):
            rows = _patches(step, copy[name], places, np.random.default_rng(state))
            both.append(np.moveaxis(rows, 2, 0) if depthwise else rows.reshape(1, len(rows), -1))
        return both[0], both[1]

    def _activation_ranges(self, step: Step, u: Array, target: Array) -> None:
        """Ranges of a weighted step's tensors, from samples of what enters its activation."""
        keep = max(1, min(len(u), SEARCH_ELEMENTS // u.shape[1]))
        rows = np.linspace(0, len(u) - 1, keep).astype(int)
        u, target = u[rows], target[rows]
        goal = np.asarray(simulate.activate(step, target))
        if step.activation not in simulate.CURVED:
            self.ranges[step.name] = self._output_range(step, np.asarray(simulate.activate(step, u)), goal)
            return
        self._pre_range(step, u, goal)
        u = self.ranges[f"{step.name}/pre"].round(u)
        if step.gain is not None:
            self._gate_range(step, u, goal)
        if step.activation == "swish":
            outputs = u * integer_sigmoid(self._gated(step, u))
            self.ranges[step.name] = self._output_range(step, outputs, goal)

    def _gated(self, step: Step, u: Array) -> Array:
        if step.gain is None:
            return u
        return self.ranges[f"{step.name}/gate"].round(u * step.gain)

    def _pre_range(self, step: Step, u: Array, goal: Array) -> None:
        key = f"{step.name}/pre"
        if self.method.ranges == "minmax" or step.activation == "softmax":
            self.ranges[key] = covering(u)
            return
        gain = np.float32(1.0) if step.gain is None else step.gain

        def loss(candidate: Range) -> float:
            held = candidate.round(u)
            gate = integer_sigmoid(held * gain)
            return self._error(step, held * gate if step.activation == "swish" else gate, goal)

        self.ranges[key] = best_range(u, loss)

    def _gate_range(self, step: Step, u: Array, goal: Array) -> None:
        scaled = u * step.gain

        def loss(candidate: Range) -> float:
            return self._error(step, u * integer_sigmoid(candidate.round(scaled)), goal)

        if self.method.ranges == "minmax":
            self.ranges[f"{step.name}/gate"] = covering(scaled)
            return
        limits = [
            Range(low=-low, high=high) for low in (4.0, 5.0, 6.0, 8.0) for high in (3.0, 4.0, 5.0, 6.0, 8.0)
        ]
        self.ranges[f"{step.name}/gate"] = min(limits, key=loss)

    def _output_range(self, step: Step, values: Array, goal: Array) -> Range:
        if self.method.ranges == "minmax":
            return covering(values)
        return best_range(values, lambda candidate: self._error(step, candidate.round(values), goal))

    def _error(self, step: Step, values: Array, goal: Array) -> float:
        squares = np.square(values - goal)
        axes = tuple(range(squares.ndim - 1))
        return float(squares.mean(axis=axes) @ self.importance[step.name])


def _before(graph: Graph, first: str) -> frozenset[str]:
    """The steps of a network with swishes before the first whose name begins with `first`, if there is one."""
    names = list(graph.steps)
    places = [place for place, name in enumerate(names) if first and name.startswith(first)]
    return frozenset(names[: places[0]]) if places and graph.has_swish else frozenset()


def rounded(step: Step, ranges: Mapping[str, Range]) -> Step:
    """A step with weights, each of them at the nearest place of its 8-bit grid."""
    least = reconstruction.least_scales(_grouped_bias(step), _input_scale(ranges, step))
    return replace(step, kernel=_ungrouped(step, reconstruction.round_nearest(_grouped(step), least)))


def _input_scale(ranges: Mapping[str, Range], step: Step) -> float:
    """The scale of the tensor that a step with weights reads; that of a sigmoid's output is fixed."""
    (name,) = step.inputs
    return ranges[name].scale if name in ranges else 1 / SIGMOID_STEPS


def _patches(step: Step, x: Array, places: int, rng: np.random.Generator) -> Array:
    """What the kernel of a step sees at random places.

    Returns:
        `[samples, places of the kernel, channels]`.
    """
    if x.ndim == 2:
        return x[:, np.newaxis, :]
    assert step.kernel is not None
    _, height, width, _ = x.shape
    tall, wide = step.kernel.shape[:2]
    (top, bottom), (left, right) = _padding(step, height, width)
    down, across = step.strides
    rows = (height + top + bottom - tall) // down + 1
    columns = (width + left + right - wide) // across + 1
    total = rows * columns
    parts = []
    for image in x:
        chosen = rng.permutation(total)[:places] if places < total else np.arange(total)
        y, x_ = chosen // columns * down - top, chosen % columns * across - left
        ys = y[:, np.newaxis, np.newaxis] + np.arange(tall)[:, np.newaxis]
        xs = x_[:, np.newaxis, np.newaxis] + np.arange(wide)
        inside = (ys >= 0) & (ys < height) & (xs >= 0) & (xs < width)
        patch = image[np.clip(ys, 0, height - 1), np.clip(xs, 0, width - 1)] * inside[..., np.newaxis]
        parts.append(patch.reshape(len(chosen), tall * wide, -1))
    return np.concatenate(parts)


def _padding(step: Step, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    if not isinstance(step.padding, str):
        return step.padding
    if step.padding == "valid":
        return (0, 0), (0, 0)
    assert step.kernel is not None
    sides = []
    for size, kernel, stride in zip((height, width), step.kernel.shape[:2], step.strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides.append((total // 2, total - total // 2))
    return sides[0], sides[1]


def _grouped(step: Step) -> Array:
    """A kernel as `[groups, fan_in, outputs]`."""
    assert step.kernel is not None
    if step.kind == "depthwise":
        return np.moveaxis(step.kernel.reshape(-1, step.channels, 1), 1, 0)
    return step.kernel.reshape(1, -1, step.channels)


def _grouped_bias(step: Step) -> Array:
    assert step.bias is not None
    return step.bias.reshape(-1, 1, 1) if step.kind == "depthwise" else step.bias.reshape(1, 1, -1)


def _ungrouped(step: Step, kernel: Array) -> Array:
    assert step.kernel is not None
    if step.kind == "depthwise":
        kernel = np.moveaxis(kernel, 0, 1)
    return kernel.reshape(step.kernel.shape)


def _flat(values: Array) -> Array:
    """`[groups, samples, outputs]` as `[samples, channels]`."""
    return np.moveaxis(values, 0, 1).reshape(values.shape[1], -1)


def _unflat(values: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `_flat`."""
    groups, samples, outputs = shape
    return np.moveaxis(values.reshape(samples, groups, outputs), 1, 0)


def _slope(step: Step, u: Array) -> Array:
    """Squared slope of an activation over one unit to either side, at most 1."""
    scale = np.float32(1.0) if step.gain is None else step.gain
    ends = [np.asarray(simulate.activate(step, u + side / scale)) for side in (1.0, -1.0)]
    return np.minimum(np.square((ends[0] - ends[1]) * scale / 2), 1.0)
