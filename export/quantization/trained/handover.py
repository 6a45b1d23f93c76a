"""Handing a training task to a child process and taking the weights back, in files.

tfmot turns the process that imports it over to `tf_keras`; the user's process stays on Keras 3. The
folder belongs to the parent and goes with it, whatever happens to the child.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import ExportError

from ..graph import Graph
from ..ranges import Array
from ..weighted import Weighted


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a child trains.

    Attributes:
        teacher, student: float weights of both graphs.
        facts: further figures.
        images: uint8 `[N, H, W, C]`.
        labels: class indices `[N]`, or None.
    """

    teacher: Graph
    student: Graph
    facts: dict[str, Any]
    images: Array
    labels: Array | None = None


def train(task: Task, module: str, *, title: str) -> Graph:
    """The student with trained kernels and biases; `run(folder)` of `module` is called in the child.

    Raises:
        ExportError: the child failed; what it printed stands above.
    """
    if islands := task.student.islands:
        raise ExportError(
            f"Expected layers that {title} is known for. Received: {islands[0].what}. Use the recipe int8."
        )
    if task.labels is not None and len(task.student.outputs) > 1:
        raise ExportError(
            f"Expected a network of one output for {title} with labels. Received: {len(task.student.outputs)} outputs. "
            "Leave the labels out: every output then learns from the float network."
        )
    with tempfile.TemporaryDirectory(prefix="keras_effnet_train_") as folder:
        with (Path(folder) / "task.pickle").open("wb") as file:
            pickle.dump(task, file)
        _run(Path(folder), module, title)
        with np.load(Path(folder) / "trained.npz") as arrays:
            graph = task.student
            return graph.updated(*(_trained(step, arrays) for step in graph.weighted))


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


def _trained(step: Weighted, arrays: Any) -> Weighted:
    kernel, bias = arrays[f"{step.name}:kernel"], arrays[f"{step.name}:bias"]
    if kernel.shape != step.kernel.shape:
        raise ExportError(
            f"Expected the trained {step.name!r} to keep its shape. Received: {list(kernel.shape)}."
        )
    return replace(step, kernel=kernel, bias=bias)


def read(folder: Path) -> Task:
    """In the child: what the parent handed over."""
    with (folder / "task.pickle").open("rb") as file:  # written by the parent, in a folder of its own
        task = pickle.load(file)
    assert isinstance(task, Task)
    return task


def hand_back(folder: Path, weights: dict[str, Array]) -> None:
    """In the child: the trained weights, whole or not at all."""
    unfinished = folder / "unfinished.npz"
    np.savez(unfinished, **weights)  # type: ignore[arg-type]  # stubs: one of the names is a bool
    unfinished.rename(folder / "trained.npz")
