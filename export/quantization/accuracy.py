"""Which steps of a network suffer most from integers, and how many must stay float for a promised accuracy."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from keras_effnet.errors import ExportError, require

from ..kinds import CLASSES, Kind
from .graph import Graph, IntegerNetwork, Quantized, map_sizes
from .layerwise import rounded
from .ops import step_of
from .ranges import Array, Range
from .steps import Input, Step
from .weighted import Weighted

SENSITIVITY_IMAGES = 8
LARGEST_SHARE = 0.5  # of the steps: with more of them in float, float16 is the better recipe


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What integers do to a network, step by step.

    Attributes:
        sqnr_db: by step: signal to noise of the logits, in dB, when that step alone computes in integers; of
            several outputs that of the one with the least. The lowest are the most sensitive.
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


def sensitivity(network: IntegerNetwork) -> Sensitivity:
    """Measure each step of a network from `prepare` on its own: the signal to noise of the logits."""
    few = _few(network)
    goals = network.results(few, integer=False)
    found: dict[str, float] = {}
    steps = [step for step in network.reference if not isinstance(step, Input)]
    for step in tqdm(steps, desc="sensitivity", unit="step", disable=None, leave=False):
        alone = _alone(network.reference, step, network.quantized.ranges)
        results = replace(network, quantized=alone).results(few)
        found[step.name] = min(map(sqnr_db, goals, results))
    return Sensitivity(sqnr_db=found)


def island_costs(network: IntegerNetwork) -> tuple[dict[str, Any], ...]:
    """What each layer that stays float, because integers are not known for it, costs.

    Returns:
        For each island `layer`, what it is; `share_of_values`, 0–1, of all that the network's steps make; `sqnr_db`,
        the signal to noise of the outputs if nothing but the tensors that it reads and makes were rounded, or None
        where that changes nothing: its neighbours are float too.
    """
    graph = network.reference
    if not graph.islands:
        return ()
    sizes = map_sizes(graph, network.images.shape[1:])
    few = _few(network)
    goals = network.results(few, integer=False)
    told = []
    for island in graph.islands:
        ends = {
            name: r for name, r in network.quantized.ranges.items() if name in (island.name, *island.inputs)
        }
        results = replace(network, quantized=Quantized(graph=graph, ranges=ends)).results(few)
        closeness = min(map(sqnr_db, goals, results))
        told.append(
            {
                "layer": island.what,
                "share_of_values": round(sizes[island.name] / sum(sizes.values()), 5),
                "sqnr_db": round(closeness, 1) if math.isfinite(closeness) else None,
            }
        )
    return tuple(told)


def _few(network: IntegerNetwork) -> Array:
    return network.images[:: max(1, len(network.images) // SENSITIVITY_IMAGES)][:SENSITIVITY_IMAGES]


def _alone(graph: Graph, step: Step, ranges: Mapping[str, Range]) -> Quantized:
    """The float network with one step in integers."""
    own = {key: value for key, value in ranges.items() if step_of(key) == step.name}
    if isinstance(step, Weighted):
        graph = graph.updated(rounded(step, ranges))
    return Quantized(graph=graph, ranges=own)


def sqnr_db(goal: Array, values: Array) -> float:
    """Power of the goal over power of the difference, in dB; infinite when nothing differs or the goal is 0."""
    exact = goal.astype(np.float64)
    signal, noise = float(np.sum(exact**2)), float(np.sum((exact - values) ** 2))
    return 10 * math.log10(signal / noise) if noise and signal else math.inf


def lift_until(
    network: IntegerNetwork, images: Array, wanted: float, kinds: Sequence[Kind] = (CLASSES,)
) -> IntegerNetwork:
    """Lift the most sensitive steps to float until a network agrees with the float one.

    The share `wanted` of the held-out photographs must have the float model's decision, of each output that decides
    something (see `kinds.Kind`). The network's `lifted` and `agreement` say what it took.

    Raises:
        ExportError: half of the steps in float is still not enough.
    """
    goals = network.results(images, integer=False)
    reached = _agreement(kinds, goals, network.results(images))
    if reached >= wanted:
        return replace(network, agreement=reached)
    steps = network.reference.steps
    limit = int(LARGEST_SHARE * (len(steps) - len(network.floats)))
    ends = _ends(network.reference)
    for name in sensitivity(network).worst(len(steps)):
        lifted = network.quantized.lift(*set(_with_readers(network.reference, name)) - ends)
        if lifted.lifted == network.quantized.lifted:  # float already, as a neighbour or for its speed
            continue
        if len(lifted.lifted - network.floats) > limit:
            break
        network = replace(network, quantized=lifted)
        now = _agreement(kinds, goals, network.results(images))
        reached = max(reached, now)
        if now >= wanted:
            return replace(network, agreement=now)
    counts = all(
        kind.has_one_decision for kind in kinds if kind.decides
    )  # others decide more than once a photograph
    raise ExportError(
        f"Expected {wanted:.1%} {_called(kinds, goals)}"
        + (f", {math.ceil(wanted * len(images))} of {len(images)} held-out photographs. " if counts else ". ")
        + f"Reached {reached:.1%}{f', {round(reached * len(images))} of them,' if counts else ''} with {limit} of "
        f"{len(steps) - len(network.floats)} steps in float. Pass more calibration photographs, ask for less, or "
        "train with recipe 'int8_qat'."
    )


def _called(kinds: Sequence[Kind], goals: Sequence[Array]) -> str:
    """What the agreement of the outputs that decide is called."""
    best = [
        kind.has_best_class(goal.shape[1]) for kind, goal in zip(kinds, goals, strict=True) if kind.decides
    ]
    if all(best):
        return "top-1 agreement"
    return "agreement of the decisions" if any(best) else "agreement of yes and no"


def _with_readers(graph: Graph, name: str) -> list[str]:
    """A step and those that read it: a tensor stays float when both its ends do."""
    return [name, *(step.name for step in graph.consumers(name))]


def _ends(graph: Graph) -> set[str]:
    """The steps at the ends, which stay integers: there the file has the types that were asked for."""
    first = {
        reader.name for step in graph if isinstance(step, Input) for reader in graph.consumers(step.name)
    }
    return first.union(graph.outputs)


def _agreement(kinds: Sequence[Kind], goals: Sequence[Array], values: Sequence[Array]) -> float:
    """The least agreement of the outputs that decide, all of them in front of their last activation."""
    found = []
    for kind, goal, made in zip(kinds, goals, values, strict=True):
        logits = replace(kind, threshold=None if kind.threshold is None else 0.0)
        found.append(logits.agreement(goal, made))
    return min(share for share in found if share is not None)
