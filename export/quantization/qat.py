"""Quantization-aware training: the integer network learns to give the float network's answers.

Starts where post-training quantization ends: its ranges stay, its weights train under their rounding.
The teacher is the float network, on crops and mirror images of the photographs; labels, where given,
join in. `tensorflow_model_optimization` works on `tf_keras` only and turns a whole process over to it,
so training happens in a child process; steps, weights and pictures go over as files, by name.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import ExportError, InvalidInputError, require
from keras_effnet.export.quantization import post_training, reconstruction
from keras_effnet.export.quantization.graph import WEIGHTED, Array, Graph, Step
from keras_effnet.export.quantization.post_training import IntegerNetwork

CHILD = "keras_effnet.export.quantization.qat_child"


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
    equalize: float = post_training.EQUALIZED_SHARE,
    size: int | None = None,
) -> IntegerNetwork:
    """Quantize a model and train it in integers.

    Args:
        model: an EfficientNet.
        images: photographs, see `post_training.prepare`.
        labels: class indices `[N]`, or None to learn from the float model alone.
        training: how long.
        equalize: see `post_training.prepare`.
        size: side of the input in pixels, for a model that leaves it open.

    Returns:
        The trained integer network; write it with `post_training.to_tflite`.

    Raises:
        InvalidInputError: photographs or labels that cannot be used.
        MissingExtraError: the extra `qat` is not installed.
        ExportError: training failed; what it printed stands above.
    """
    require("tf_keras", "qat")
    pixels = post_training.checked_images(model, images, size=size)
    if labels is not None and len(labels) != len(pixels):
        raise InvalidInputError(
            f"Expected one label for each of {len(pixels)} photographs. Received: {len(labels)}. Pass them in order."
        )
    network = post_training.prepare(model, pixels, equalize=equalize, size=size)
    with tempfile.TemporaryDirectory(prefix="keras_effnet_qat_") as folder:
        _hand_over(Path(folder), network, pixels, labels, training)
        _run_child(Path(folder))
        return _take_back(Path(folder), network)


def _run_child(folder: Path) -> None:
    """Train in a child process whose output is ours; the folder goes with us, whatever happens to it."""
    # the child imports what its parent does, also where the working directory holds another keras_effnet
    program = f"import sys; sys.path[:] = {sys.path!r}; from {CHILD} import run; run({str(folder)!r})"
    code = subprocess.run([sys.executable, "-c", program], check=False).returncode
    if code != 0:
        raise ExportError(
            f"Expected quantization-aware training to finish. The child process ended with code {code}. "
            "Its messages stand above; a negative code means that it was killed, often for lack of memory: "
            "then train with a smaller batch."
        )


def _hand_over(folder: Path, network: IntegerNetwork, images: Array, labels: Any, training: Training) -> None:
    for name, graph in (("teacher", network.reference), ("student", network.quantized.graph)):
        arrays = {f"{step.name}:{key}": value for step in graph for key, value in _arrays(step).items()}
        np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]  # stubs: one of the names is a bool
    ranges = {key: value.nudged for key, value in network.quantized.ranges.items()}
    facts = {
        "steps": [_facts(step) for step in network.reference],
        "shape": [network.height, network.width, images.shape[3]],
        "ranges": ranges,
        "training": asdict(training),
    }
    (folder / "facts.json").write_text(json.dumps(facts))
    np.save(folder / "images.npy", np.rint(images).astype(np.uint8))
    if labels is not None:
        np.save(folder / "labels.npy", np.asarray(labels, np.int64))


def _arrays(step: Step) -> dict[str, Array]:
    found = {"kernel": step.kernel, "bias": step.bias, "gain": step.gain}
    return {key: value for key, value in found.items() if value is not None}


def _facts(step: Step) -> dict[str, Any]:
    return {
        key: getattr(step, key)
        for key in ("name", "kind", "inputs", "strides", "padding", "activation", "keepdims")
    }


def _take_back(folder: Path, network: IntegerNetwork) -> IntegerNetwork:
    with np.load(folder / "trained.npz") as arrays:
        graph = network.quantized.graph
        for step in list(graph):
            if step.kind in WEIGHTED:
                graph = graph.updated(_trained(step, arrays))
    return replace(network, quantized=replace(network.quantized, graph=graph))


def _trained(step: Step, arrays: Any) -> Step:
    kernel, bias = arrays[f"{step.name}:kernel"], arrays[f"{step.name}:bias"]
    if step.kernel is None or kernel.shape != step.kernel.shape:
        raise ExportError(
            f"Expected the trained {step.name!r} to keep its shape. Received: {list(kernel.shape)}."
        )
    return replace(step, kernel=round_kernel(step, kernel), bias=bias)


def round_kernel(step: Step, kernel: Array) -> Array:
    """A kernel on its 8-bit grid, one scale per output channel."""
    channels = np.swapaxes(kernel, 2, 3) if step.kind == "depthwise" else kernel
    rounded = reconstruction.round_nearest(channels.reshape(1, -1, channels.shape[-1])).reshape(
        channels.shape
    )
    return np.swapaxes(rounded, 2, 3) if step.kind == "depthwise" else rounded


def graph_of(facts: dict[str, Any], arrays: Any) -> Graph:
    """The child's view of a handed-over graph."""
    steps: dict[str, Step] = {}
    for fact in facts["steps"]:
        name = fact["name"]
        own = {
            key: arrays[f"{name}:{key}"] for key in ("kernel", "bias", "gain") if f"{name}:{key}" in arrays
        }
        padding = fact["padding"]
        if not isinstance(padding, str):
            padding = tuple(tuple(side) for side in padding)
        fixed = {"inputs": tuple(fact["inputs"]), "strides": tuple(fact["strides"]), "padding": padding}
        steps[name] = Step(**{**fact, **fixed, **own})
    return Graph(steps=steps, input_shape=tuple(facts["shape"]))
