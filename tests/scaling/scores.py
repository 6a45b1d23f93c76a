"""Scores for the search's tests: in a module of their own, so that other processes can import them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def smooth(depth: float, width: float, resolution: int) -> float:
    """Highest at depth 1.2, width 1.1, and 256 px."""
    return 1 - (depth - 1.2) ** 2 - (width - 1.1) ** 2 - ((resolution - 256) / 224) ** 2


@dataclass(frozen=True)
class Logged:
    """`smooth`, and a line in a log for every call."""

    log: Path
    seconds: float = 0.0

    def settings(self) -> dict[str, Any]:
        return {"score": "smooth"}

    def root(self) -> Path:
        return self.log.parent

    def __call__(self, depth: float, width: float, resolution: int) -> float:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{depth} {width} {resolution} {os.getpid()}\n")
        time.sleep(self.seconds)
        return smooth(depth, width, resolution)


def threads(depth: float, width: float, resolution: int) -> float:
    """How many threads TensorFlow may start for one operator in this process."""
    return float(os.environ["TF_NUM_INTRAOP_THREADS"])


def other(depth: float, width: float, resolution: int) -> float:
    return -smooth(depth, width, resolution)


@dataclass(frozen=True)
class FailsOnce:
    """`smooth`; one call fails when some are done, in whichever process it is."""

    folder: Path

    def __call__(self, depth: float, width: float, resolution: int) -> float:
        calls = self.folder / "calls"
        with calls.open("a", encoding="utf-8") as file:
            file.write("one\n")
        if len(calls.read_text(encoding="utf-8").splitlines()) > 4:
            try:
                (self.folder / "failed").touch(exist_ok=False)
            except FileExistsError:
                return smooth(depth, width, resolution)
            raise RuntimeError("out of memory")
        return smooth(depth, width, resolution)
