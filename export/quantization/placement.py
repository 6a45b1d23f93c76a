"""Where the integers of an ONNX file begin: fixed, or measured on the machine that exports.

ONNX Runtime's CPU kernels have no cheap form of an equalized swish, compute a plain one in two passes where
the float one is one, and a squeeze-and-excite product on one thread. So the large maps of the first stages,
which have few weights, are often faster in float; how many of them depends on the processor. Arithmetic takes
its time whatever the numbers are: files with made-up ranges say which is fastest before the walk begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError, require
from keras_effnet.system.quiet import quiet_native
from keras_effnet.system.stopwatch import medians

from .equalization import absorb_preprocessing
from .graph import Graph, Quantized
from .layerwise import steps_before
from .ranges import Array, Range
from .runtimes import OnnxRuntime
from .to_onnx import write_quantized
from .weighted import Weighted

ALL = "all"  # computes in integers
CANDIDATES = ("block3", "block4", "block5", "block6")
BATCHES = (1, 16)
# of pictures larger than B0's, fewer: their maps are as large as those of many small ones, and each runtime keeps
# the memory of its largest batch while all of them take turns
BATCH_PIXELS = 16 * 224 * 224
WORTH = (
    0.1  # of the time; less does not pay for the accuracy that integers in early stages cost (docs/onnx.md)
)
ROUNDS, SECONDS = 15, 6.0  # per batch size: so many turns, fewer if they would take longer, but three
SOME_RANGE = Range(low=-4.0, high=4.0)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the integers begin.

    Attributes:
        first_integer: what the name of the first integer step begins with; empty: all compute in integers.
        ratios: by place, `all` for the beginning: time as a share of float32's, for one picture and for a
            batch; empty when nothing was measured.
    """

    first_integer: str
    ratios: dict[str, tuple[float, ...]]

    @property
    def place(self) -> str:
        """In words."""
        return self.first_integer or ALL


def place(graph: Graph, images: Array, runtime: OnnxRuntime, first_integer: str | None) -> Placement:
    """Decide where the integers of a network begin.

    Args:
        graph: the float network.
        images: calibration photographs, float32 `[N, H, W, C]`.
        runtime: what the file is for.
        first_integer: what was asked for; None for the runtime's own choice.

    Raises:
        InvalidInputError: no step begins with what was asked for.
    """
    if first_integer is not None:
        if not first_integer or not any(name.startswith(first_integer) for name in graph.steps):
            names = ", ".join(step.name for step in graph.weighted[:4])
            raise InvalidInputError(
                f"Expected first_integer as the beginning of a layer's name. Received: {first_integer!r}. "
                f"Pass for example block5; the first layers with weights are {names}."
            )
        return Placement(first_integer=first_integer, ratios={})
    if runtime.first_integer is not None or not graph.slow_in_onnxruntime:
        return Placement(first_integer=runtime.first_integer or "", ratios={})
    known = [name for name in CANDIDATES if any(step.startswith(name) for step in graph.steps)]
    if not known:
        return Placement(first_integer="", ratios={})
    ratios = measured(absorb_preprocessing(graph), images, runtime, (ALL, *known))
    return Placement(first_integer=fastest(ratios), ratios=ratios)


def fastest(ratios: dict[str, tuple[float, ...]]) -> str:
    """The latest place that is as fast as the fastest, or nearly so, over all batch sizes."""
    means = {name: float(np.exp(np.mean(np.log(values)))) for name, values in ratios.items()}
    best = min(means.values())
    chosen = [name for name, mean in means.items() if mean <= best * (1 + WORTH)][-1]
    return "" if chosen == ALL else chosen


def measured(
    graph: Graph, images: Array, runtime: OnnxRuntime, places: tuple[str, ...]
) -> dict[str, tuple[float, ...]]:
    """The time of a file in which integers begin at each place, as a share of float32's.

    Returns:
        By place, in order: for each of `BATCHES`.
    """
    ranges = {key: SOME_RANGE for step in graph for key in (step.name, *_inner_keys(step))}
    whole = Quantized(graph=graph, ranges=ranges)
    networks = [whole.lift(*graph.steps)]
    networks += [whole.lift(*steps_before(graph, "" if name == ALL else name)) for name in places]
    height, width, channels = images.shape[1:]
    runs = [_session(write_quantized(network, (height, width, channels), runtime)) for network in networks]
    most = max(1, BATCH_PIXELS // (height * width))
    columns = []
    for batch in BATCHES:
        pixels = np.resize(images, (min(batch, most), height, width, channels)).transpose(0, 3, 1, 2)
        given = np.ascontiguousarray(pixels, np.float32)
        calls = [partial(run, given) for run in runs]
        times = medians(calls, rounds=ROUNDS, warm_up=1, seconds=SECONDS)
        columns.append([each / times[0] for each in times[1:]])
    return dict(zip(places, zip(*columns, strict=True), strict=True))


def _inner_keys(step: Any) -> list[str]:
    return [step.key(tensor) for tensor in step.activation.tensors] if isinstance(step, Weighted) else []


def _session(proto: Any) -> Callable[[Array], Any]:
    onnxruntime = require("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # the others wait their turn
    with quiet_native():
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})
