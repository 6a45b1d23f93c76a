"""How long calls take, measured fairly on a noisy machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

FEWEST_ROUNDS = 3


def medians(
    calls: Sequence[Callable[[], object]], *, rounds: int, warm_up: int, seconds: float = float("inf")
) -> list[float]:
    """Median seconds of each call. They take turns, so a machine that slows down slows all of them.

    Args:
        calls: what to time.
        rounds: timed calls of each.
        warm_up: calls of each before those.
        seconds: when all turns together have taken so long, no further one begins, once each call was timed
            three times.
    """
    times: list[list[float]] = [[] for _ in calls]
    began = time.perf_counter()
    for turn in range(warm_up + rounds):
        if turn >= warm_up + FEWEST_ROUNDS and time.perf_counter() - began > seconds:
            break
        for call, spent in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if turn >= warm_up:
                spent.append(time.perf_counter() - start)
    return [statistics.median(spent) for spent in times]
