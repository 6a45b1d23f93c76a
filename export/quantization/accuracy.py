"""Which steps of a network suffer most from integers, and an export that keeps a promised accuracy."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from keras_effnet.errors import ExportError, InvalidInputError, require
from keras_effnet.export.quantization import post_training
from keras_effnet.export.quantization.graph import WEIGHTED, Array, Graph, Step
from keras_effnet.export.quantization.post_training import IntegerNetwork
from keras_effnet.export.quantization.ranges import Range
from keras_effnet.export.quantization.sequential import Method, Quantized, rounded

SENSITIVITY_IMAGES = 8
HELD_OUT = 4  # one of so many calibration photographs checks the result
FEWEST_HELD_OUT = 8
LARGEST_SHARE = 0.5  # of the steps: with more of them in float, float16 is the better recipe


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What integers do to a network, step by step.

    Attributes:
        sqnr_db: by step: signal to noise of the logits, in dB, when that step alone computes in
            integers. The lowest are the most sensitive.
    """

    sqnr_db: Mapping[str, float]

    def worst(self, count: int) -> list[str]:
        """The most sensitive steps, worst first."""
        return sorted(self.sqnr_db, key=lambda name: self.sqnr_db[name])[:count]

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw one bar per step, in the order of the network, into a PNG or SVG file."""
        require("matplotlib", "report")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        names, values = list(self.sqnr_db), list(self.sqnr_db.values())
        figure = Figure(figsize=(max(6.0, 0.16 * len(names)), 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.bar(names, values, color="#4269d0")
        axes.set_ylabel("logits SQNR, this step alone in int8 [dB]")
        axes.tick_params(axis="x", rotation=90, labelsize=6)
        axes.margins(x=0.005)
        figure.savefig(path)
        return Path(path)


def sensitivity(model: Any, calibration: Any, *, size: int | None = None) -> Sensitivity:
    """Measure each step of a model on its own.

    Args:
        model: an EfficientNet.
        calibration: photographs, see `post_training.prepare`.
        size: side of the input in pixels, for a model that leaves it open.

    Returns:
        The signal to noise ratio of the logits for each step.
    """
    return of_network(post_training.prepare(model, calibration, size=size))


def of_network(network: IntegerNetwork) -> Sensitivity:
    """The sensitivity of a network that is quantized already."""
    few = network.images[:: max(1, len(network.images) // SENSITIVITY_IMAGES)][:SENSITIVITY_IMAGES]
    goal = network.logits(few, integer=False)
    found: dict[str, float] = {}
    steps = [step for step in network.reference if step.kind != "input"]
    for step in tqdm(steps, desc="sensitivity", unit="step", disable=None, leave=False):
        alone = _alone(network.reference, step, network.quantized.ranges)
        found[step.name] = sqnr_db(goal, replace(network, quantized=alone).logits(few))
    return Sensitivity(sqnr_db=found)


def _alone(graph: Graph, step: Step, ranges: Mapping[str, Range]) -> Quantized:
    """The float network with one step in integers."""
    own = {key: value for key, value in ranges.items() if key.split("/")[0] == step.name}
    if step.kind in WEIGHTED:
        graph = graph.updated(rounded(step, ranges))
    return Quantized(graph=graph, ranges=own)


def sqnr_db(goal: Array, values: Array) -> float:
    """Power of the goal over power of the difference, in dB; infinite when nothing differs."""
    noise = float(np.sum((goal.astype(np.float64) - values) ** 2))
    return 10 * np.log10(float(np.sum(goal.astype(np.float64) ** 2)) / noise) if noise else np.inf


def prepare(
    model: Any,
    calibration: Any,
    min_agreement: float,
    *,
    equalize: float = post_training.EQUALIZED_SHARE,
    method: Method = post_training.DEFAULT_METHOD,
    size: int | None = None,
) -> IntegerNetwork:
    """Quantize a model and lift its most sensitive steps to float until it agrees with the original.

    Args:
        model: an EfficientNet.
        calibration: photographs; a quarter of them is held out to measure agreement on.
        min_agreement: share of held-out photographs on which the best class must be the float model's.
        equalize, method: see `post_training.prepare`.
        size: side of the input in pixels, for a model that leaves it open.

    Returns:
        The network; its `lifted` and `agreement` say what it took.

    Raises:
        InvalidInputError: a share outside 0–1, or too few photographs to hold some out.
        ExportError: half of the steps in float is still not enough.
    """
    if not 0.0 < min_agreement <= 1.0:
        raise InvalidInputError(
            f"Expected min_agreement as a share between 0 and 1. Received: {min_agreement}. Pass for example 0.98."
        )
    images = post_training.checked_images(model, calibration, size=size)
    if len(images) < 2 * FEWEST_HELD_OUT:
        raise InvalidInputError(
            f"Expected at least {2 * FEWEST_HELD_OUT} calibration photographs with min_agreement, which holds "
            f"some out to check the result. Received: {len(images)}. Pass more photographs."
        )
    held_out = np.arange(len(images)) % HELD_OUT == 0
    if held_out.sum() < FEWEST_HELD_OUT:
        held_out = np.arange(len(images)) % 2 == 0
    network = post_training.prepare(model, images[~held_out], equalize=equalize, method=method, size=size)
    return _lift_until(network, images[held_out], min_agreement)


def _lift_until(network: IntegerNetwork, images: Array, wanted: float) -> IntegerNetwork:
    goal = network.logits(images, integer=False)
    reached = _agreement(goal, network.logits(images))
    if reached >= wanted:
        return replace(network, agreement=reached)
    steps = network.reference.steps
    limit = int(LARGEST_SHARE * (len(steps) - len(network.floats)))
    ends = _ends(network.reference)
    for name in of_network(network).worst(len(steps)):
        lifted = network.quantized.lift(*set(_with_readers(network.reference, name)) - ends)
        if lifted.lifted == network.quantized.lifted:  # float already, as a neighbour or for its speed
            continue
        if len(lifted.lifted - network.floats) > limit:
            break
        network = replace(network, quantized=lifted)
        now = _agreement(goal, network.logits(images))
        reached = max(reached, now)
        if now >= wanted:
            return replace(network, agreement=now)
    raise ExportError(
        f"Expected {wanted:.1%} top-1 agreement, {math.ceil(wanted * len(images))} of {len(images)} held-out "
        f"photographs. Reached {reached:.1%}, {round(reached * len(images))} of them, with {limit} of {len(steps) - len(network.floats)} steps in float. Pass more calibration photographs, ask for less, or "
        "train with recipe 'int8_qat'."
    )


def _with_readers(graph: Graph, name: str) -> list[str]:
    """A step and those that read it: a tensor stays float when both its ends do."""
    return [name, *(step.name for step in graph.consumers(name))]


def _ends(graph: Graph) -> set[str]:
    """The steps at the ends, which stay integers: there the file has the types that were asked for."""
    first = {reader.name for step in graph if step.kind == "input" for reader in graph.consumers(step.name)}
    return first | {graph.output}


def _agreement(goal: Array, values: Array) -> float:
    return float(np.mean(goal.argmax(1) == values.argmax(1)))
