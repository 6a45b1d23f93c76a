"""How much an error in a channel matters to what the network says of each photograph.

Squared slopes of the outputs along a channel say what an error there costs, to first order and as if the errors
of places and channels were independent. They are divided by the energy of the photograph's outputs, so that
every photograph counts by its own signal-to-noise ratio: features of one can hold a hundred times the energy of
another's, whose errors a total would not show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .graph import Graph, evaluate
from .ops import Linear, in_float
from .ranges import Array
from .steps import Input, Step, Sum
from .weighted import Weighted

PROBES = 2  # random signs on the outputs; the mean over places evens out what is random in them
# of the energy that half of the photographs exceed: a logit may be 0, and its photograph is not all that counts
LEAST_ENERGY = 0.1
TAPE_BYTES = 1 << 30
KEPT = 8  # copies of an output that are held: it, and the slopes of both probes while they are computed

_Part = tuple[Array, dict[str, Array]]  # of some photographs


def by_photograph(graph: Graph, images: Array, sizes: dict[str, int]) -> dict[str, Array]:
    """How much an error in each channel of every step's output costs each photograph.

    The slopes of random signs' sums, squared, are on average over signs the sums of squared slopes
    (Hutchinson's estimate of the diagonal of JᵀJ).

    Args:
        graph: the network.
        images: float32 `[N, H, W, C]`, 0–255.
        sizes: values in each step's output, for one picture.

    Returns:
        By step `[N, channels]`, the mean over all of them 1; 0 where nothing follows.
    """
    batch = int(np.clip(TAPE_BYTES // (4 * KEPT * sum(sizes.values())), 1, 4))
    rng = np.random.default_rng(0)
    parts: list[list[_Part]] = []
    starts = range(0, len(images), batch)
    for start in tqdm(starts, desc="measuring importance", unit="batch", disable=None, leave=False):
        parts.append(_slopes(graph, images[start : start + batch], rng))
    shares: dict[str, Array] = {}
    for of_one_output in zip(*parts, strict=True):
        energy = np.concatenate([energy for energy, _ in of_one_output])
        energy = np.maximum(energy, max(LEAST_ENERGY * float(np.median(energy)), 1e-30))[:, np.newaxis]
        for name in of_one_output[0][1]:
            share = np.concatenate([squares[name] for _, squares in of_one_output]) / energy
            shares[name] = shares.get(name, 0.0) + share
    return {name: value / max(float(value.mean()), 1e-30) for name, value in shares.items()}


def _slopes(graph: Graph, images: Array, rng: np.random.Generator) -> list[_Part]:
    """Of each output: its energy for every picture, and its mean squared slopes by step `[pictures, channels]`.

    Backwards step by step, each computed again from what it read: a tape of the whole network would hold every
    intermediate value of every activation, several times what the steps give.
    """
    import tensorflow as tf

    outputs = list(dict.fromkeys(graph.outputs))
    graph = graph.before_last_activations()
    values: dict[str, Any] = {}

    def value_of(step: Step, sources: list[Any]) -> Any:
        values[step.name] = tf.constant(images) if isinstance(step, Input) else evaluate(step, sources, None)
        return values[step.name]

    for _ in graph.walk(value_of):
        pass
    energies = {
        name: tf.reduce_sum(tf.reshape(values[name], (len(images), -1)) ** 2, axis=1) for name in outputs
    }
    names = [step.name for step in graph if not isinstance(step, Input)]
    squares = {
        output: {name: np.zeros((len(images), values[name].shape[-1])) for name in names}
        for output in outputs
    }
    # of the sums that lie behind a step: by output and probe
    slopes: dict[str, dict[tuple[str, int], Any]] = {name: {} for name in values}
    for name in outputs:
        shape = values[name].shape
        for probe in range(PROBES):
            signs = rng.choice([-1.0, 1.0], (len(images), int(np.prod(shape[1:]))))
            slopes[name][name, probe] = tf.reshape(tf.constant(signs, tf.float32), shape)
    for step in reversed(list(graph)):
        behind = slopes.pop(step.name)
        del values[step.name]
        if isinstance(step, Input):
            continue
        for (output, _), slope in behind.items():
            square = np.square(np.asarray(tf.convert_to_tensor(slope)))
            squares[output][step.name] += square.reshape(len(images), -1, square.shape[-1]).mean(axis=1)
        read = {name: values[name] for name in step.inputs}
        ahead = [name for name, value in read.items() if name in names and value.dtype.is_floating]
        if not ahead or not behind:
            continue
        for key, passed in zip(behind, _passed(step, read, ahead, list(behind.values())), strict=True):
            for name, slope in zip(ahead, passed, strict=True):
                slopes[name][key] = slopes[name][key] + slope if key in slopes[name] else slope
    return [(np.asarray(energies[name], np.float64), squares[name]) for name in outputs]


def _passed(step: Step, read: dict[str, Any], ahead: list[str], slopes: list[Any]) -> list[list[Any]]:
    """For each slope along a step's output, those along what it reads: of `read`, only those that `ahead` names."""
    alike = len(read) == len(step.inputs) and all(value.shape == slopes[0].shape for value in read.values())
    if type(step) is Sum and alike:  # TensorFlow 2.21 never frees what its own gradient of a sum is given
        return [[slope] * len(ahead) for slope in slopes]
    if not isinstance(step, Weighted):
        return _by_tape(lambda *values: evaluate(step, [*values], None), step.inputs, read, ahead, slopes)
    ((name, value),) = read.items()
    if type(step.activation) is not Linear:
        entered = {"": step.tensorflow(value)}
        activated = _by_tape(lambda u: step.activation.compute(in_float, u), ("",), entered, [""], slopes)
        slopes = [slope for (slope,) in activated]
    passed = [step.backwards(slope, value.shape) for slope in slopes]
    if any(each is None for each in passed):
        return _by_tape(step.tensorflow, (name,), read, ahead, slopes)
    return [[each] for each in passed]


def _by_tape(
    compute: Callable[..., Any],
    inputs: Sequence[str],
    read: dict[str, Any],
    ahead: list[str],
    slopes: list[Any],
) -> list[list[Any]]:
    """The same for any function of the tensors that `inputs` names."""
    import tensorflow as tf

    sources = [read[name] for name in ahead]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(sources)
        value = compute(*(read[name] for name in inputs))
    return [tape.gradient(value, sources, slope, unconnected_gradients="zero") for slope in slopes]
