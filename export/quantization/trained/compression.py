"""Pruning and weight clustering in front of int8: files that a store or an update compresses further.

A pruned network has zeros, a clustered one few different weights; the int8 file is as large as any
other, but what travels is compressed. Both train for some minutes with the float network as the
teacher, by `tensorflow_model_optimization` in a child process, on kernels whose output channels are
brought to one size first: magnitudes of channels that batch normalization scales differently cannot be
compared. The integer ranges are then chosen as always, but weights are only rounded: refitted ones
would be neither zero nor few.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError, require

from ...model_facts import as_facts
from ..fold import fold
from ..graph import Graph, IntegerNetwork
from ..layerwise import Method
from ..prepare import calibration_images, prepare
from ..ranges import Array
from ..weighted import Depthwise, Weighted
from . import handover

CHILD = "keras_effnet.export.quantization.trained.compression_child"
ROUNDED_ONLY = Method(weights="bias", rounding="nearest")


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What happens to the weights, and how long they train.

    Attributes:
        sparsity: share of each kernel's weights that becomes zero, 0–1; None not to prune.
        clusters: different weights that a kernel may keep; None not to cluster.
        smallest: weights of a kernel; smaller ones stay as they are, they are not worth their errors.
        steps: optimizer steps.
        batch: pictures in each.
        learning_rate: of Adam, for weights whose channels have the size 1; falls to 0 along a cosine.
        label_weight: see `qat.Training`.
    """

    sparsity: float | None = None
    clusters: int | None = None
    smallest: int = 4096
    steps: int = 150
    batch: int = 8
    learning_rate: float = 1e-3
    label_weight: float = 0.1

    def __post_init__(self) -> None:
        if (self.sparsity is None) == (self.clusters is None):
            raise InvalidInputError(
                "Expected either sparsity or clusters. Received: "
                f"sparsity={self.sparsity}, clusters={self.clusters}. Name one of them."
            )
        if self.sparsity is not None and not 0 < self.sparsity < 1:
            raise InvalidInputError(f"Expected sparsity between 0 and 1. Received: {self.sparsity}.")
        if self.clusters is not None and not 2 <= self.clusters <= 128:
            raise InvalidInputError(f"Expected clusters from 2 to 128. Received: {self.clusters}.")


# of the recipes `int8_pruned` and `int8_clustered`
PRUNED, CLUSTERED = Compression(sparsity=0.3), Compression(clusters=32)


def compress(
    model: Any, images: Any, compression: Compression, labels: Any = None, *, size: int | None = None
) -> IntegerNetwork:
    """Prune or cluster a model, or what its `ModelFacts` are of, and quantize the result.

    For `images` see `prepare`; labels are class indices `[N]`, or None to learn from the float model alone.

    Raises:
        InvalidInputError: photographs that cannot be used.
        MissingExtraError: the extra `qat` is not installed.
        ExportError: training failed; what it printed stands above.
    """
    require("tf_keras", "qat")  # tfmot itself would turn this process over to tf_keras
    facts = as_facts(model, size)
    pixels = calibration_images(images, facts)
    float_graph = fold(facts.model)
    title = "pruning" if compression.sparsity else "weight clustering"
    handover.check_trainable(float_graph, title)
    sizes = _channel_sizes(float_graph, compression)
    task = handover.Task(
        teacher=float_graph,
        student=_scaled(float_graph, {name: 1 / value for name, value in sizes.items()}),
        facts={
            "training": asdict(compression),
            "sizes": {name: value.tolist() for name, value in sizes.items()},
        },
        images=np.rint(pixels).astype(np.uint8),
        labels=labels,
    )
    trained = handover.train(task, CHILD, title=title)
    return prepare(facts, pixels, graph=_scaled(trained, sizes), equalize=0.0, method=ROUNDED_ONLY)


def _channel_sizes(graph: Graph, compression: Compression) -> dict[str, Array]:
    """Size of each output channel of the kernels to compress.

    Root mean square for pruning; for clustering the largest weight, by which int8 scales too: equal
    weights of different channels then become equal bytes.
    """
    sizes = {}
    for step in graph.weighted:
        if isinstance(step, Depthwise) or step.kernel.size < compression.smallest:
            continue
        channels = step.kernel.reshape(-1, step.channels)
        if compression.clusters is not None:
            measured = np.abs(channels).max(0)
        else:
            measured = np.sqrt(np.mean(channels**2, axis=0))
        sizes[step.name] = np.maximum(measured, 1e-12)
    return sizes


def _scaled(graph: Graph, factors: dict[str, Array]) -> Graph:
    """Kernels and biases of the named steps times factors for their output channels."""
    steps = [step for step in graph.weighted if step.name in factors]
    return graph.updated(*(_times(step, factors[step.name]) for step in steps))


def _times(step: Weighted, factor: Array) -> Weighted:
    return replace(step, kernel=step.kernel * factor, bias=step.bias * factor)
