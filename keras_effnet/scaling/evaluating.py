"""One evaluation of one network: the score, or an error that names what failed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from keras_effnet.errors import EffNetError
from keras_effnet.scaling.grid import Network

Evaluate = Callable[[float, float, int], float]
"""(depth, width, resolution in pixels) → score, higher is better."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came of a network.

    Attributes:
        network: its key.
        score: higher is better.
        seconds: how long it took.
    """

    network: str
    score: float
    seconds: float


@dataclass(frozen=True)
class Job:
    """Evaluates a network; picklable where `evaluate` is, so that other processes can."""

    evaluate: Evaluate

    def __call__(self, network: Network) -> Evaluation:
        """Evaluate.

        Raises:
            EffNetError: `evaluate` failed, or returned something else than a finite number.
        """
        asked = f"evaluate({network.depth}, {network.width}, {network.resolution})"
        start = time.perf_counter()
        try:
            score = float(self.evaluate(network.depth, network.width, network.resolution))
        except Exception as error:
            raise EffNetError(
                f"Expected {asked} to return a score. Received: {type(error).__name__}: {error}. "
                "Mend that and run the search again: what is finished is kept."
            ) from error
        if not math.isfinite(score):
            raise EffNetError(
                f"Expected {asked} to return a finite score. Received: {score}. "
                "Mend that and run the search again: what is finished is kept."
            )
        return Evaluation(network=network.key, score=score, seconds=round(time.perf_counter() - start, 3))
