"""How much an error in a channel matters to what the network says of each photograph.

Squared slopes of the outputs along a channel say what an error there costs, to first order and as if the errors
of places and channels were independent. They are divided by the energy of the photograph's outputs, so that
every photograph counts by its own signal-to-noise ratio: features of one can hold a hundred times the energy of
another's, whose errors a total would not show.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .graph import Graph
from .ops import OUTPUT, Operator
from .ranges import Array
from .steps import Input, Step

PROBES = 2  # random signs on the outputs; the mean over places evens out what is random in them
# of the energy that half of the photographs exceed: a logit may be 0, and its photograph is not all that counts
LEAST_ENERGY = 0.1
TAPE_BYTES = 1 << 30
KEPT = 8  # copies of an output that a tape holds, with its activation's

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
    """Of each output: its energy for every picture, and its mean squared slopes by step `[pictures, channels]`."""
    import tensorflow as tf

    outputs = list(dict.fromkeys(graph.outputs))
    graph = graph.before_last_activations()
    seen: dict[str, Any] = {}
    with tf.GradientTape(persistent=True) as tape:

        def value_of(step: Step, sources: list[Any]) -> Any:
            def do(operator: Operator, *values: Any, tensor: str | None = OUTPUT) -> Any:
                value = operator.tensorflow(*values)
                if tensor == OUTPUT:
                    value = seen[step.name] = tf.identity(value)
                    tape.watch(value)
                return value

            return tf.constant(images) if isinstance(step, Input) else step.compute(do, *sources)

        flat = {
            step.name: tf.reshape(value, (len(images), -1))
            for step, value in graph.walk(value_of)
            if step.name in outputs
        }
        sums = {
            name: [
                tf.reduce_sum(flat[name] * tf.constant(rng.choice([-1.0, 1.0], flat[name].shape), tf.float32))
                for _ in range(PROBES)
            ]
            for name in outputs
        }
    found: list[_Part] = []
    for name in outputs:
        squares = {step: np.zeros((len(images), value.shape[-1])) for step, value in seen.items()}
        for total in sums[name]:
            slopes = tape.gradient(total, list(seen.values()), unconnected_gradients="zero")
            for step, slope in zip(seen, slopes, strict=True):
                square = np.square(np.asarray(tf.convert_to_tensor(slope)))
                squares[step] += square.reshape(len(images), -1, square.shape[-1]).mean(axis=1)
        found.append((np.asarray(tf.reduce_sum(flat[name] ** 2, axis=1), np.float64), squares))
    return found
