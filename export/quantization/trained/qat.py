"""Quantization-aware training: the integer network learns to give the float network's answers.

Starts where post-training quantization ends: its ranges stay, its weights train under their rounding.
The teacher is the float network, on crops and mirror images of the photographs; labels, where given,
join in. `tensorflow_model_optimization` works on `tf_keras` only and turns a whole process over to it,
so training happens in a child process; steps, weights and pictures go over as files, by name.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError, require

from ...model_facts import as_facts
from ..fold import fold
from ..graph import IntegerNetwork
from ..layerwise import rounded
from ..prepare import calibration_images, prepare
from . import handover

CHILD = "keras_effnet.export.quantization.trained.qat_child"
TITLE = "quantization-aware training"


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and how fast to train.

    Attributes:
        steps: optimizer steps.
        batch: pictures in each.
        learning_rate: of Adam, at the start; falls to 0 along a cosine.
        label_weight: of the labels' cross entropy beside the teacher's logits, when there are labels.
    """

    steps: int = 150
    batch: int = 8
    learning_rate: float = 2e-5
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
    indices `[N]`, or None to learn from the float model alone.

    Raises:
        InvalidInputError: photographs or labels that cannot be used.
        MissingExtraError: the extra `qat` is not installed.
        ExportError: training failed; what it printed stands above.
    """
    require("tf_keras", "qat")
    facts = as_facts(model, size)
    pixels = calibration_images(images, facts)
    if labels is not None and len(labels) != len(pixels):
        raise InvalidInputError(
            f"Expected one label for each of {len(pixels)} photographs. Received: {len(labels)}. Pass them in order."
        )
    graph = fold(facts.model)
    handover.check_trainable(graph, TITLE)
    network = prepare(facts, pixels, equalize=equalize, graph=graph)
    ranges = {key: value.nudged for key, value in network.quantized.ranges.items()}
    task = handover.Task(
        teacher=network.reference,
        student=network.quantized.graph,
        facts={"ranges": ranges, "training": asdict(training)},
        images=np.rint(pixels).astype(np.uint8),
        labels=labels,
    )
    graph = handover.train(task, CHILD, title=TITLE)
    graph = graph.updated(*(rounded(step, network.quantized.ranges) for step in graph.weighted))
    return replace(network, quantized=replace(network.quantized, graph=graph))
