"""How long artefacts take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.system.stopwatch import medians

from .model_facts import facts_of
from .options import Options
from .runners import Runner, load
from .targets import parse_target, write_artefact

ROUNDS = 30
WARM_UP = 3
SECONDS = 20.0  # of all turns of an export's files together; eight of B7 would take two and a half minutes


def latency(
    target: str = "tflite:float32", *, size: int | None = None, threads: int = 1, rounds: int = ROUNDS
) -> Callable[[Any], float]:
    """A function from a Keras model to the median milliseconds of its exported file: what
    `fit(max_latency_ms=…)` measures when asked.

    Args:
        target: `saved_model`, or one that needs no calibration, such as `tflite:float32`.
        size: side of the input in pixels, for models that leave it open.
        threads: threads that the runtime may use (TFLite and ONNX).
        rounds: timed calls with one picture each, after a warm-up.

    Raises:
        InvalidInputError: no such target, or one that needs photographs to calibrate.
    """
    chosen = parse_target(target)
    if chosen.integer:
        raise InvalidInputError(
            f"Expected a target that needs no calibration. Received: {target!r}. "
            "Measure another one, or pass a function of your own that exports with your photographs."
        )

    def measure(model: Any) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{chosen.suffix}"
            write_artefact(chosen, facts_of(model, size), path, Options())
            runner = load(path, threads=threads)
            return median_latencies_ms([runner], example_pixels(runner), rounds=rounds)[0]

    return measure


def median_latencies_ms(
    runners: Sequence[Runner],
    images: npt.NDArray[Any],
    *,
    rounds: int = ROUNDS,
    seconds: float = float("inf"),
) -> list[float]:
    """Median time of one call with `images`, in milliseconds, for each artefact; each is timed `rounds` times, in turn.

    After so many seconds no further turn begins, once each was timed three times.
    """
    calls = [partial(runner, images) for runner in runners]
    found = medians(calls, rounds=rounds, warm_up=WARM_UP, seconds=seconds)
    return [each * 1e3 for each in found]


def example_pixels(runner: Runner, batch: int = 1, *, size: int | None = None) -> npt.NDArray[np.uint8]:
    """Pictures to time an artefact with, uint8 `[batch, H, W, C]`: any will do, the arithmetic is the same.

    Raises:
        InvalidInputError: an artefact that takes any size and no `size`, or one of another size.
    """
    height, width = (side or size for side in runner.size)
    if height is None or width is None:
        raise InvalidInputError(
            f"Expected a size for {str(runner.path)!r}, which takes pictures of any. Received: none. "
            "Pass size= (--size), for example 224."
        )
    if size is not None and (height, width) != (size, size):
        raise InvalidInputError(
            f"Expected no size for {str(runner.path)!r}, which takes {height} × {width} pixels. Received: {size}. "
            "Leave it out."
        )
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, runner.channels), np.uint8)
