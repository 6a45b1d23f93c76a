"""Handing a training task to a child process and taking the weights back: arrays by name, in files.

tfmot turns the process that imports it over to `tf_keras`; the user's process stays on Keras 3. The
folder belongs to the parent and goes with it, whatever happens to the child.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import ExportError
from keras_effnet.export.quantization.graph import WEIGHTED, Array, Graph, Step


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a child trains.

    Attributes:
        teacher, student: float weights of both graphs.
        facts: further figures, as JSON knows them.
        images: uint8 `[N, H, W, C]`.
        labels: class indices `[N]`, or None.
    """

    teacher: Graph
    student: Graph
    facts: dict[str, Any]
    images: Array
    labels: Array | None = None


def train(task: Task, module: str, *, title: str) -> Graph:
    """The student with trained kernels and biases.

    Args:
        task: what to train.
        module: its `run(folder)` is called in the child.
        title: what the error calls it.

    Raises:
        ExportError: the child failed; what it printed stands above.
    """
    with tempfile.TemporaryDirectory(prefix="keras_effnet_train_") as folder:
        _hand_over(Path(folder), task)
        _run(Path(folder), module, title)
        with np.load(Path(folder) / "trained.npz") as arrays:
            graph = task.student
            for step in list(graph):
                if step.kind in WEIGHTED:
                    graph = graph.updated(_trained(step, arrays))
            return graph


def _run(folder: Path, module: str, title: str) -> None:
    # the child imports what its parent does, also where the working directory holds another keras_effnet
    program = f"import sys; sys.path[:] = {sys.path!r}; from {module} import run; run({str(folder)!r})"
    code = subprocess.run([sys.executable, "-c", program], check=False).returncode
    if code != 0:
        raise ExportError(
            f"Expected {title} to finish. The child process ended with code {code}. "
            "Its messages stand above; a negative code means that it was killed, often for lack of memory: "
            "then train with a smaller batch."
        )


def _hand_over(folder: Path, task: Task) -> None:
    for name, graph in (("teacher", task.teacher), ("student", task.student)):
        arrays = {f"{step.name}:{key}": value for step in graph for key, value in _arrays(step).items()}
        np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]  # stubs: one of the names is a bool
    described = {"steps": [_facts(step) for step in task.teacher], "shape": list(task.images.shape[1:])}
    (folder / "facts.json").write_text(json.dumps({**task.facts, **described}))
    np.save(folder / "images.npy", task.images)
    if task.labels is not None:
        np.save(folder / "labels.npy", np.asarray(task.labels, np.int64))


def _arrays(step: Step) -> dict[str, Array]:
    found = {"kernel": step.kernel, "bias": step.bias, "gain": step.gain}
    return {key: value for key, value in found.items() if value is not None}


def _facts(step: Step) -> dict[str, Any]:
    return {
        key: getattr(step, key)
        for key in ("name", "kind", "inputs", "strides", "padding", "activation", "keepdims")
    }


def _trained(step: Step, arrays: Any) -> Step:
    kernel, bias = arrays[f"{step.name}:kernel"], arrays[f"{step.name}:bias"]
    if step.kernel is None or kernel.shape != step.kernel.shape:
        raise ExportError(
            f"Expected the trained {step.name!r} to keep its shape. Received: {list(kernel.shape)}."
        )
    return replace(step, kernel=kernel, bias=bias)


def read(folder: Path) -> Task:
    """In the child: what the parent handed over."""
    facts = json.loads((folder / "facts.json").read_text())
    graphs = []
    for name in ("teacher", "student"):
        with np.load(folder / f"{name}.npz") as arrays:
            graphs.append(_graph(facts, dict(arrays)))
    labels = folder / "labels.npy"
    return Task(
        teacher=graphs[0],
        student=graphs[1],
        facts=facts,
        images=np.load(folder / "images.npy"),
        labels=np.load(labels) if labels.exists() else None,
    )


def hand_back(folder: Path, weights: dict[str, Array]) -> None:
    """In the child: the trained weights, whole or not at all."""
    unfinished = folder / "unfinished.npz"
    np.savez(unfinished, **weights)  # type: ignore[arg-type]  # see _hand_over
    unfinished.rename(folder / "trained.npz")


def _graph(facts: dict[str, Any], arrays: Any) -> Graph:
    """The child's view of a graph."""
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
