"""How long artefacts take, measured fairly on a noisy machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.export.runners import Runner

ROUNDS = 30
WARM_UP = 3


def median_latencies_ms(
    runners: Sequence[Runner], images: npt.NDArray[Any], *, rounds: int = ROUNDS
) -> list[float]:
    """Median time of one call, for each artefact.

    The artefacts take turns, so a machine that slows down slows all of them.

    Args:
        runners: open artefacts.
        images: what to call them with, `[N, H, W, C]`.
        rounds: how often each is timed, after a warm-up.

    Returns:
        Milliseconds per call, in the order of `runners`.
    """
    times: list[list[float]] = [[] for _ in runners]
    for turn in range(WARM_UP + rounds):
        for runner, spent in zip(runners, times, strict=True):
            start = time.perf_counter()
            runner(images)
            if turn >= WARM_UP:
                spent.append((time.perf_counter() - start) * 1e3)
    return [float(np.median(spent)) for spent in times]
