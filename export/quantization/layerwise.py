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

from . import reconstruction
from .graph import Graph, Quantized, activate_samples, evaluate
from .ops import OUTPUT, PRE, in_float
from .ranges import PIXELS, SEARCH_ELEMENTS, SIGMOID_STEPS, Array, Range, best_range, covering
from .steps import Input, Island, Mean, Step, Sum
from .weighted import Affine, Depthwise, Weighted

BATCH = 4
ROWS = 4096  # regression samples of a layer; wider layers get 4 for each weight of an output
DEPTHWISE_ROWS = 1024  # a depthwise output has 9 or 25 weights


@dataclass(frozen=True, kw_only=True)
class Method:
    """What the walk does; the defaults are what measurement favoured.

    Attributes:
        ranges: `"error"` (smallest output error) or `"minmax"`.
        weights: `"refit"` (least squares), `"bias"` (correct means only) or `"keep"`.
        rounding: `"compensated"`, `"nearest"`, or `"none"` to measure what rounding costs; a network
            that is not rounded cannot be written to a file.
        first_integer: what the name of the first step begins with that computes in integers; those before it
            stay float. Empty: all compute in integers.
        symmetric: whether the zero point of tensors is to be 0, where it is no shift of a bias behind.
        only_read: whether only those tensors are rounded that a kernel or a sum reads: what stands between
            them, activations and squeeze-and-excite products, computes in float.
        float_output: whether an output that no kernel makes, such as a mean, is not rounded: the file gives
            floats anyway.
    """

    ranges: str = "error"
    weights: str = "refit"
    rounding: str = "compensated"
    first_integer: str = ""
    symmetric: bool = False
    only_read: bool = False
    float_output: bool = False


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
        importance: of errors in each channel for each photograph, by step (see `importance`).
        method: what to do.

    Returns:
        The integer network.
    """
    walk = _Walk(graph, images, importance, method)
    steps = graph.walk(walk.take)
    for _ in tqdm(steps, total=len(graph.steps), desc="quantizing", unit="step", disable=None, leave=False):
        pass
    return Quantized(graph=walk.graph, ranges=walk.ranges, lifted=walk.floats)


@dataclass(frozen=True)
class _Copies:
    """A tensor as the float network computes it, and as the integer network does."""

    exact: Array
    integer: Array


class _Walk:
    """The state of the walk: the graph and the ranges so far."""

    def __init__(self, graph: Graph, images: Array, importance: Mapping[str, Array], method: Method) -> None:
        self.graph = graph
        self.images = images
        self.importance = importance
        self.method = method
        self.ranges: dict[str, Range] = {}
        self.floats = steps_before(graph, method.first_integer).union(step.name for step in graph.islands)
        self.rng = np.random.default_rng(0)

    def take(self, step: Step, sources: list[_Copies]) -> _Copies:
        """Decide everything about one step and compute its output in both copies."""
        if isinstance(step, Input):
            self.ranges[step.name] = PIXELS
            return _Copies(self.images, self.images)
        if isinstance(step, Island):
            return self._take_island(step, sources)
        decided = step
        if isinstance(step, Weighted):
            decided = self._fit(step, sources[0])
        elif not isinstance(step, Affine):
            self._fit_plain(step, sources)
        elif step.name not in self.floats:
            decided = self._fit_affine(step)
        self.graph = self.graph.updated(decided)
        if step.name in self.floats:
            self._lift_floats()
        return self._computed(step, decided, sources)

    def _is_rounded(self, name: str) -> bool:
        """Whether the output of a step is held in integers."""
        if (
            self.method.float_output
            and name in self.graph.outputs
            and not self.graph.consumers(name)
            and not isinstance(self.graph[name], Weighted)
        ):
            return False
        return not self.method.only_read or any(
            self._is_rounded(reader.name) if reader.keeps_range else isinstance(reader, Weighted | Sum)
            for reader in self.graph.consumers(name)
            if reader.name not in self.floats
        )

    def _is_symmetric(self, step: Step) -> bool:
        return self.method.symmetric and not self.graph.takes_shift(step.name)

    def _lift_floats(self) -> None:
        """Drop the ranges of what stays float."""
        self.ranges = Quantized(graph=self.graph, ranges=self.ranges).lift(*self.floats).ranges

    def _take_island(self, step: Island, sources: list[_Copies]) -> _Copies:
        """Something that may look at whole pictures: computed first, its range chosen from what it gave."""
        copies = self._computed(step, step, sources)
        if not self._is_rounded(step.name):
            return copies
        exact, integer = (self._sampled(value) for value in (copies.exact, copies.integer))
        self.ranges[step.name] = self._output_range(step, integer, exact)
        self._lift_floats()
        chosen = self.ranges.get(step.name)
        return copies if chosen is None else replace(copies, integer=chosen.round(copies.integer))

    def _computed(self, float_step: Step, step: Step, sources: list[_Copies]) -> _Copies:
        return _Copies(
            self._in_parts(float_step, [source.exact for source in sources], None),
            self._in_parts(step, [source.integer for source in sources], self.ranges),
        )

    def _in_parts(self, step: Step, sources: list[Array], ranges: Mapping[str, Range] | None) -> Array:
        """A step's output for all photographs, a few at a time, into one array: two would be the largest there are."""
        made: Array | None = None
        for start in range(0, len(self.images), BATCH):
            part = slice(start, start + BATCH)
            value = np.asarray(evaluate(step, [source[part] for source in sources], ranges))
            if made is None:
                made = np.empty((len(self.images), *value.shape[1:]), value.dtype)
            made[part] = value
        assert made is not None  # there are photographs
        return made

    def _fit_affine(self, step: Affine) -> Affine:
        """Preprocessing: one constant of 8 bits, and a range that holds every pixel value."""
        ends = np.array([PIXELS.low, PIXELS.high])[:, np.newaxis]
        if self.method.only_read:
            factor = 1.0 if step.kernel is None else step.kernel
            self.ranges[step.name] = covering(ends * factor + step.bias, symmetric=self._is_symmetric(step))
            return step
        if step.kernel is not None:
            step = replace(step, kernel=covering(step.kernel).round(step.kernel))
            ends = ends * step.kernel
            self.ranges[step.key("scaled")] = covering(ends)
        rounded_bias = covering(step.bias).round(step.bias)
        self.ranges[step.name] = covering(ends + rounded_bias)
        return replace(step, bias=rounded_bias)

    def _fit_plain(self, step: Step, sources: list[_Copies]) -> None:
        """A step without weights: only the range of its output is open, or not even that."""
        # the mean of one pixel is the pixel
        of_one_pixel = isinstance(step, Mean) and sources[0].exact.shape[1:3] == (1, 1)
        if step.keeps_range or (of_one_pixel and step.inputs[0] in self.ranges):
            (source,) = step.inputs
            if source in self.ranges:
                self.ranges[step.name] = self.ranges[source]
            return
        if not self._is_rounded(step.name):
            return
        copies = [source.integer for source in sources], [source.exact for source in sources]
        # the mean of some places spreads far more than that of all
        taken = copies if isinstance(step, Mean) else [_some(values) for values in copies]
        result, target = (np.asarray(evaluate(step, values, None)) for values in taken)
        self.ranges[step.name] = self._output_range(step, result, target)

    def _fit(self, step: Weighted, source: _Copies) -> Weighted:
        """New weights, then the ranges of the step's tensors."""
        fit = self._regression(step, source)
        weights = self._weights(fit, one_place=source.exact.shape[1:3] == (1, 1))
        bias = reconstruction.best_bias(fit, weights) if self.method.weights != "keep" else fit.bias
        step = replace(step.with_grouped(weights), bias=bias.reshape(-1).astype(np.float32))
        self._activation_ranges(step, _flat(fit.inputs @ weights + bias), _flat(fit.targets))
        return step

    def _regression(self, step: Weighted, source: _Copies) -> reconstruction.Regression:
        inputs, exact_inputs = self._rows(step, source)
        weights, bias = step.grouped(), step.grouped_bias()
        targets = exact_inputs @ weights + bias
        relevance = None
        if step.activation.weighs_samples and self.method.weights != "keep":
            both = (step.activation.relevance(_flat(values)) for values in (targets, inputs @ weights + bias))
            relevance = _unflat(np.maximum(*both), targets.shape)
        return reconstruction.Regression(
            inputs=inputs,
            targets=targets,
            weights=weights,
            bias=bias,
            least=reconstruction.least_scales(bias, _input_scale(self.ranges, step)),
            relevance=relevance,
            weight=self._photograph_weights(step, inputs.shape[1]),
        )

    def _photograph_weights(self, step: Weighted, samples: int) -> Array:
        """How much each sample counts: as much as its photograph does on average over the step's channels."""
        importance = self.importance[step.name]
        share = np.mean(importance / np.maximum(importance.mean(axis=0), 1e-30), axis=1)
        mean = float(share.mean())
        weights = share / mean if mean > 0 else np.ones_like(share)
        return np.repeat(weights, samples // len(weights)).astype(np.float32)

    def _weights(self, fit: reconstruction.Regression, *, one_place: bool) -> Array:
        # a map of one place, as squeeze-and-excite has, is one sample of each photograph: too few to learn from
        learns = self.method.weights == "refit" and not one_place
        if fit.inputs.shape[-1] > reconstruction.MOST_INPUTS:
            return (
                fit.weights
                if self.method.rounding == "none"
                else reconstruction.round_nearest(fit.weights, fit.least)
            )
        weights = reconstruction.refit(fit) if learns else fit.weights
        if self.method.rounding == "none":
            return weights
        if self.method.rounding == "compensated":
            return reconstruction.round_compensated(weights, fit.gram, fit.least)
        return reconstruction.round_nearest(weights, fit.least)

    def _rows(self, step: Weighted, source: _Copies) -> tuple[Array, Array]:
        """Inputs of the layer at random places of all pictures, integer and exact."""
        fan_in = int(np.prod(step.kernel.shape[:-1]))
        wanted = DEPTHWISE_ROWS if isinstance(step, Depthwise) else max(ROWS, 4 * fan_in)
        places = -(-wanted // len(self.images))
        state = self.rng.integers(2**31)
        integer, exact = (
            step.grouped_rows(step.seen_at(copy, places, np.random.default_rng(state)))
            for copy in (source.integer, source.exact)
        )
        return integer, exact

    def _activation_ranges(self, step: Weighted, u: Array, target: Array) -> None:
        """Ranges of a weighted step's tensors, from samples of what enters its activation."""
        u, target = self._sampled(u), self._sampled(target)
        goal = np.asarray(step.activation.compute(in_float, target))
        if step.activation.entry != PRE:
            result = np.asarray(step.activation.compute(in_float, u))
            if self._is_rounded(step.name):
                self.ranges[step.name] = self._output_range(step, result, goal)
            return
        inner = not self.method.only_read
        for tensor in step.activation.tensors:
            if not (self._is_rounded(step.name) if tensor == OUTPUT else inner):
                continue
            seen: dict[str, Array] = {}
            activate_samples(step.activation, step.name, u, self.ranges, seen)
            self.ranges[step.key(tensor)] = self._tensor_range(step, tensor, seen[tensor], u, goal)

    def _tensor_range(self, step: Weighted, tensor: str, values: Array, u: Array, goal: Array) -> Range:
        """The range of one tensor of an activation, those before it decided."""
        if tensor == OUTPUT:
            return step.activation.output_range or self._output_range(step, values, goal)
        if self.method.ranges == "minmax":
            return covering(values)

        def loss(candidate: Range) -> float:
            tried = {**self.ranges, step.key(tensor): candidate}
            return self._error(step, activate_samples(step.activation, step.name, u, tried), goal)

        return step.activation.choose(tensor, values, loss)

    def _output_range(self, step: Step, values: Array, goal: Array) -> Range:
        symmetric = self._is_symmetric(step)
        if self.method.ranges == "minmax":
            return covering(values, symmetric=symmetric)
        return best_range(
            values, lambda candidate: self._error(step, candidate.round(values), goal), symmetric=symmetric
        )

    def _sampled(self, values: Array) -> Array:
        """Enough samples to choose a range by: `[samples, channels]`, as many of each photograph, in their order."""
        channels, photographs = values.shape[-1], len(self.images)
        places = values.reshape(photographs, -1, channels)
        keep = max(1, min(places.shape[1], SEARCH_ELEMENTS // (channels * photographs)))
        chosen = np.linspace(0, places.shape[1] - 1, keep).astype(int)
        return places[:, chosen].reshape(-1, channels)

    def _error(self, step: Step, values: Array, goal: Array) -> float:
        importance = self.importance[step.name]
        squares = np.square(values - goal).reshape(len(importance), -1, importance.shape[1])
        return float(np.sum(squares.mean(axis=1) * importance, dtype=np.float64))


def steps_before(graph: Graph, first: str) -> frozenset[str]:
    """The steps before the first whose name begins with `first`; none when no weights are among them."""
    names = list(graph.steps)
    places = [place for place, name in enumerate(names) if first and name.startswith(first)]
    before = frozenset(names[: places[0]]) if places else frozenset()
    return before if any(step.name in before for step in graph.weighted) else frozenset()


def rounded(step: Weighted, ranges: Mapping[str, Range]) -> Weighted:
    """A step with each of its weights at the nearest place of its 8-bit grid."""
    return step.with_grouped(reconstruction.round_nearest(step.grouped(), _least_scales(ranges, step)))


def weight_scales_of(step: Weighted, ranges: Mapping[str, Range]) -> Array:
    """The scale of each output's weights, `[groups, outputs]`."""
    return reconstruction.weight_scales(step.grouped(), _least_scales(ranges, step))


def _least_scales(ranges: Mapping[str, Range], step: Weighted) -> Array:
    return reconstruction.least_scales(step.grouped_bias(), _input_scale(ranges, step))


def _input_scale(ranges: Mapping[str, Range], step: Weighted) -> float:
    """The scale of the tensor that a step with weights reads; that of a sigmoid's output is fixed."""
    (name,) = step.inputs
    return ranges[name].scale if name in ranges else 1 / SIGMOID_STEPS


def _some(values: list[Array]) -> list[Array]:
    """The same pixels of the same pictures from each tensor: enough to choose a range by."""
    shape = max((value.shape for value in values), key=np.prod)
    if len(shape) != 4 or all(value.shape[1:3] == (1, 1) for value in values):
        return values
    count = max(1, SEARCH_ELEMENTS // (len(values[0]) * shape[3]))
    chosen = np.random.default_rng(0).permutation(shape[1] * shape[2])[:count]
    flat = [value.reshape(len(value), -1, value.shape[3]) for value in values]
    return [(value if value.shape[1] == 1 else value[:, chosen])[:, :, np.newaxis] for value in flat]


def _flat(values: Array) -> Array:
    """`[groups, samples, outputs]` as `[samples, channels]`."""
    return np.moveaxis(values, 0, 1).reshape(values.shape[1], -1)


def _unflat(values: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `_flat`."""
    groups, samples, outputs = shape
    return np.moveaxis(values.reshape(samples, groups, outputs), 1, 0)
