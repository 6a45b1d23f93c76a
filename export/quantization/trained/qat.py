"""Quantization-aware training: the integer network learns to give the float network's answers.

Starts where post-training quantization ends: its ranges and the scales of its weights stay, weights and biases
move a little under their rounding (straight-through gradients). The teacher is the float network, on crops,
mirror images and copies of other brightness and contrast of the photographs; labels, where given, join in.

What is minimised is the mean of decibels, so that a photograph which loses much counts as much as any other and
no more. The maps that blocks hand on are drawn to the teacher's too: the outputs alone say little of which of
a hundred layers went wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from keras_effnet.errors import InvalidInputError, warn

from ...model_facts import as_facts
from ..fold import fold
from ..graph import Graph, InIntegers, IntegerNetwork, Ranges, evaluate, held, map_sizes
from ..importance import KEPT, TAPE_BYTES
from ..layerwise import weight_scales_of
from ..ops import LARGEST, LINEAR, OUTPUT, Operator
from ..prepare import calibration_images, prepare
from ..ranges import PIXELS, Array
from ..steps import Input, Step, Sum
from ..weighted import Weighted
from . import handover

TITLE = "quantization-aware training"
JUDGED_BY = 8  # one of so many photographs, which is not trained on
# of the noise on them, as a natural logarithm (1 dB), from where on training has failed. Not 0: the start was fitted to
# them, and on a trained B0 it seemed .4 dB better than what training had made, which gained .1 to .3 on unseen ones
SPOILT = 0.23
QUIET = 1e-3  # of a signal's energy: 30 dB, from where on less noise is not worth much
SMALLEST_CROP = 0.85  # of the side
CONTRASTS = (0.5, 1.3)  # of every other copy
BRIGHTER = 20.0  # pixel values that it may be brighter or darker by
BIAS_SHARE = 0.4  # of the learning rate, in steps of the grid that a layer's sums are held on
MOMENTS = (0.9, 0.99)  # of Adam


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and how fast to train.

    Attributes:
        steps: optimizer steps.
        batch: pictures in each.
        learning_rate: of Adam, at the start, in steps of each weight's 8-bit grid; falls to 0 along a cosine.
        label_weight: of the labels' cross entropy beside the teacher's answers, when there are labels.
    """

    steps: int = 200
    batch: int = 4
    learning_rate: float = 0.005
    label_weight: float = 0.1


def train(
    model: Any,
    images: Any,
    labels: Any = None,
    *,
    training: Training = Training(),
    equalize: float | None = None,
    size: int | None = None,
) -> IntegerNetwork:
    """Quantize a model, or what its `ModelFacts` are of, and train it in integers.

    Write the network with `to_tflite(..., network=…)`. For `images` and `equalize` see `prepare`; labels are class
    indices `[N]`, or None to learn from the float model alone. An eighth of the photographs is not trained on; where
    they lose a decibel, the weights of the start stay.

    Raises:
        InvalidInputError: photographs or labels that cannot be used.
        ExportError: a layer that training is not known for.
    """
    facts = as_facts(model, size)
    pixels = calibration_images(images, facts)
    if labels is not None and len(labels) != len(pixels):
        raise InvalidInputError(
            f"Expected one label for each of {len(pixels)} photographs. Received: {len(labels)}. Pass them in order."
        )
    if labels is not None and len(facts.outputs) > 1:
        raise InvalidInputError(
            f"Expected a network of one output for training with labels. Received: {len(facts.outputs)} outputs. "
            "Leave the labels out: every output then learns from the float network."
        )
    graph = fold(facts.model)
    handover.check_trainable(graph, TITLE)
    network = prepare(facts, pixels, equalize=equalize, graph=graph)
    classes = None if labels is None else np.asarray(labels, np.int64)
    graph = trained(network, pixels, classes, training)
    return replace(network, quantized=replace(network.quantized, graph=graph))


def trained(network: IntegerNetwork, pixels: Array, classes: Array | None, training: Training) -> Graph:
    """The integer network's graph with trained weights, on their grids."""
    values = sum(map_sizes(network.reference, pixels.shape[1:]).values())
    batch = int(np.clip(TAPE_BYTES // (4 * KEPT * values), 1, training.batch))
    student = _Student(network, training)
    held_out = np.arange(len(pixels)) % JUDGED_BY == 0
    places = np.flatnonzero(~held_out) if len(pixels) > 1 else np.arange(1)
    rng = np.random.default_rng(0)
    start, first = student.weights(), student.noise(pixels[held_out])
    for _ in tqdm(range(training.steps), desc=TITLE, unit="step", disable=None, leave=False):
        chosen = rng.choice(places, batch)
        pictures = np.stack([_changed(pixels[place], rng) for place in chosen])
        student.learn(pictures, None if classes is None else classes[chosen])
    lost = student.noise(pixels[held_out]) - first
    if lost <= SPOILT:
        return student.graph_with(student.weights())
    warn(
        f"Training in integers cost {10 * lost / np.log(10):.1f} dB on the photographs that it was not shown. "
        "Keeps the weights of recipe int8."
    )
    return student.graph_with(start)


def _changed(image: Array, rng: np.random.Generator) -> Array:
    """A crop, resized back, mirrored every other time, and every other time of another brightness and contrast."""
    import tensorflow as tf

    height, width, _ = image.shape
    share = rng.uniform(SMALLEST_CROP, 1)
    tall, wide = max(1, int(height * share)), max(1, int(width * share))
    top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    crop = image[top : top + tall, left : left + wide]
    made = np.asarray(tf.image.resize(crop, (height, width)))
    if rng.random() < 0.5:
        made = made[:, ::-1]
    if rng.random() < 0.5:
        mean = made.mean()
        made = (made - mean) * rng.uniform(*CONTRASTS) + mean + rng.uniform(-BRIGHTER, BRIGHTER)
    return np.clip(np.rint(made), PIXELS.low, PIXELS.high)


class _Student:
    """The integer network, its weights as variables, and the float network that it learns from.

    A weight is a variable in steps of its grid, a bias the distance from the first in steps of the grid that the
    layer's sums are held on: one learning rate then suits all, also channels that equalization made a hundred
    times smaller than others. The scales stay: so do the weights that they are derived from, each channel's largest.
    """

    def __init__(self, network: IntegerNetwork, training: Training) -> None:
        import tensorflow as tf

        self.teacher = network.reference.before_last_activations()
        self.graph = network.quantized.graph
        self.running = self.graph.before_last_activations()
        self.ranges = network.quantized.ranges
        self.training = training
        self.grids: dict[str, Array] = {}
        self.free: list[Array] = []
        self.levels: dict[str, Any] = {}
        self.shifts: dict[str, Any] = {}
        self.steps: dict[str, float] = {}
        for step in self.graph.weighted:
            scales = weight_scales_of(step, self.ranges)[:, np.newaxis]
            level = np.rint(step.grouped() / scales)
            # of a scale that a bias asks for, no weight is the largest: what it is must not change
            derived = np.abs(level).max(axis=1, keepdims=True) == LARGEST
            self.free.append(step.with_grouped((np.abs(level) < LARGEST) & derived).kernel.astype(np.float32))
            self.grids[step.name] = step.with_grouped(np.broadcast_to(scales, level.shape)).kernel
            self.levels[step.name] = tf.Variable(step.with_grouped(level).kernel.astype(np.float32))
            self.shifts[step.name] = tf.Variable(np.zeros_like(step.bias))
            sums = self.ranges.get(step.key(step.activation.entry or OUTPUT))
            self.steps[step.name] = 0.0 if sums is None else sums.scale * BIAS_SHARE
        self.free += [np.ones(1, np.float32)] * len(self.shifts)
        self.variables = [*self.levels.values(), *self.shifts.values()]
        self.moments = [[tf.Variable(tf.zeros_like(each)) for each in self.variables] for _ in MOMENTS]
        self.learned = 0
        self._updated = tf.function(self._update, autograph=False, reduce_retracing=True)
        self._compared = tf.function(self._compare, autograph=False, reduce_retracing=True)

    def weights(self) -> list[Array]:
        """What trains, to be given to `graph_with`."""
        return [variable.numpy() for variable in self.variables]

    def graph_with(self, weights: list[Array]) -> Graph:
        """The integer network's graph with the weights that training had come to."""
        levels, shifts = weights[: len(self.levels)], weights[len(self.levels) :]
        changed = [
            replace(
                step,
                kernel=(np.rint(level) * self.grids[step.name]).astype(np.float32),
                bias=(step.bias + shift * self.steps[step.name]).astype(np.float32),
            )
            for step, level, shift in zip(self.graph.weighted, levels, shifts, strict=True)
        ]
        return self.graph.updated(*changed)

    def noise(self, pictures: Array) -> float:
        """The mean over pictures and outputs of the logarithm of what the student says differently."""
        return float(np.mean([self._compared(picture[np.newaxis]) for picture in pictures]))

    def learn(self, pictures: Array, classes: Array | None) -> None:
        """One step of Adam."""
        import tensorflow as tf

        self.learned += 1
        rate = self.training.learning_rate * 0.5 * (1 + np.cos(np.pi * self.learned / self.training.steps))
        unbiased = np.sqrt(1 - MOMENTS[1] ** self.learned) / (1 - MOMENTS[0] ** self.learned)
        self._updated(tf.constant(pictures, tf.float32), classes, tf.constant(rate * unbiased, tf.float32))

    def _update(self, pictures: Any, classes: Any, rate: Any) -> None:
        import tensorflow as tf

        goals = self._walk(pictures, self.teacher, None)
        with tf.GradientTape() as tape:
            values = self._walk(pictures, self.running, self.ranges)
            loss = self._noise(values, goals, dict.fromkeys(self.running.outputs))
            if inner := self._handed_on():
                loss += self._noise(values, goals, inner)
            if classes is not None:
                logits = values[self.running.outputs[0]]
                entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
                loss += self.training.label_weight * tf.reduce_mean(entropy)
        slopes = tape.gradient(loss, self.variables, unconnected_gradients="zero")
        for variable, slope, free, first, second in zip(
            self.variables, slopes, self.free, *self.moments, strict=True
        ):
            first.assign(MOMENTS[0] * first + (1 - MOMENTS[0]) * slope * free)
            second.assign(MOMENTS[1] * second + (1 - MOMENTS[1]) * tf.square(slope * free))
            variable.assign_sub(rate * first / (tf.sqrt(second) + 1e-12))

    def _compare(self, pictures: Any) -> Any:
        goals = self._walk(pictures, self.teacher, None)
        values = self._walk(pictures, self.running, self.ranges)
        return self._noise(values, goals, dict.fromkeys(self.running.outputs))

    def _noise(self, values: dict[str, Any], goals: dict[str, Any], names: Iterable[str]) -> Any:
        """The mean over pictures and tensors of the noise's logarithm, as a share of the signal."""
        import tensorflow as tf

        found = []
        for name in names:
            goal = goals[name]
            inside = range(1, len(goal.shape))
            energy = tf.reduce_sum(tf.square(goal), axis=inside)
            error = tf.reduce_sum(tf.square(values[name] - goal), axis=inside)
            found.append(tf.reduce_mean(tf.math.log(error / tf.maximum(energy, 1e-12) + QUIET)))
        return tf.add_n(found) / len(found)

    def _handed_on(self) -> list[str]:
        """The maps that blocks hand on: sums, and what enters the next block without one."""
        graph = self.running
        ends = [
            step.name
            for step in graph
            if isinstance(step, Sum)
            or (
                isinstance(step, Weighted)
                and step.activation == LINEAR
                and not any(isinstance(reader, Sum) for reader in graph.consumers(step.name))
            )
        ]
        return [name for name in ends if name not in graph.outputs]

    def _walk(self, pictures: Any, graph: Graph, ranges: Ranges | None) -> dict[str, Any]:
        """Every step's output; with ranges, in integers and with the weights that train."""
        values: dict[str, Any] = {}

        def value_of(step: Step, sources: list[Any]) -> Any:
            if isinstance(step, Input):
                made = pictures if ranges is None else held(pictures, ranges.get(step.name))
            elif ranges is None:
                made = evaluate(step, sources, None)
            else:
                step = self._with_variables(step) if isinstance(step, Weighted) else step
                made = step.compute(_StraightThrough(step.name, ranges), *sources)
            values[step.name] = made
            return made

        for _ in graph.walk(value_of):
            pass
        return values

    def _with_variables(self, step: Weighted) -> Weighted:
        import tensorflow as tf

        level = tf.clip_by_value(self.levels[step.name], -float(LARGEST), float(LARGEST))
        level += tf.stop_gradient(tf.round(level) - level)
        bias = step.bias + self.shifts[step.name] * self.steps[step.name]
        return replace(step, kernel=level * self.grids[step.name], bias=bias)


class _StraightThrough(InIntegers):
    """Integer arithmetic with the slopes of float arithmetic inside ranges."""

    def __call__(self, operator: Operator, *values: Any, tensor: str | None = OUTPUT) -> Any:
        import tensorflow as tf

        made = super().__call__(operator, *values, tensor=tensor)
        if not (operator.fixed and self.in_integers):
            return made
        smooth = operator.tensorflow(*values)
        return smooth + tf.stop_gradient(made - smooth)
