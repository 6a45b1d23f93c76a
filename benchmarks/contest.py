"""Runs child processes: contestants that take turns, and jobs that run once.

Every contestant lives in a process of its own, which waits on a pipe while it is not its turn. Two
runtimes in one process disturb each other: their thread pools spin while they wait for work.

This module imports nothing but the standard library: on Linux a child's peak memory is never below
that of the process which started it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).parent
PAUSE = 0.01  # seconds between turns, for the last one's threads to fall asleep
SHORT_RUN = 0.25  # seconds; shorter runs are preceded by one that is not timed, to fill the caches
TURN = 0.2  # seconds that a turn of short runs lasts, about
MAX_REPEATS = 10

Times = dict[str, list[float]]
CPU = ", CPU"  # behind a name: its CPU seconds


class ChildError(RuntimeError):
    """A child process failed; the message ends with what it said last."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def child_environment() -> dict[str, str]:
    """The environment of every child: CPU only, TensorFlow as Keras' backend, no chatter."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
    return {**os.environ, **quiet}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A script of this folder and what it is given.

    Attributes:
        script: file name.
        arguments: its command line.
        python: the interpreter.
    """

    script: str
    arguments: tuple[str, ...]
    python: str = sys.executable

    @property
    def command(self) -> list[str]:
        return [self.python, str(HERE / self.script), *self.arguments]


def run_once(job: Job) -> dict[str, Any]:
    """Run a job in a fresh process; its last line of output is a JSON object.

    Raises:
        ChildError: it failed.
    """
    done = subprocess.run(job.command, env=child_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildError(_last_words(done.stderr, done.returncode))
    reply: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return reply


def run_timed(command: Sequence[str]) -> float:
    """Wall time of a whole process, in seconds.

    Raises:
        ChildError: it failed.
    """
    start = time.perf_counter()
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise ChildError(_last_words(done.stderr, done.returncode))
    return seconds


def _last_words(errors: str, code: int) -> str:
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    return f"exit status {code}: {lines[-1] if lines else 'no message'}"


class Contestant:
    """A long-lived child that answers `warm-ups repeats` with the seconds, wall and CPU, of each repeat."""

    def __init__(self, job: Job) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the child
        self._process = subprocess.Popen(
            job.command,
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
        )

    def wait_until_ready(self) -> float:
        """Seconds that one warm run takes. Raises `ChildError` when the child died."""
        return self._read()[-1][0]

    def turn(self, warm_ups: int, repeats: int) -> list[tuple[float, float]]:
        """Run, and return the seconds of each timed run, wall and CPU."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{warm_ups} {repeats}\n")
        except BrokenPipeError:
            raise self._died() from None
        return self._read()

    def close(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _read(self) -> list[tuple[float, float]]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        return [(wall, cpu) for wall, cpu in json.loads(line)]

    def _died(self) -> ChildError:
        self._errors.seek(0)
        return ChildError(_last_words(self._errors.read(), self._process.wait()))


class Arena:
    """Contestants by name. As a context manager it ends them all."""

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self.failures: dict[str, str] = {}
        self._jobs = jobs
        self._contestants: dict[str, Contestant] = {}
        self._estimates: dict[str, float] = {}

    def __enter__(self) -> Arena:
        for name, job in self._jobs.items():  # one after the other: starting needs all cores
            contestant = Contestant(job)
            try:
                self._estimates[name] = contestant.wait_until_ready()
                self._contestants[name] = contestant
            except ChildError as error:
                contestant.close()
                self.failures[name] = str(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for contestant in self._contestants.values():
            contestant.close()

    def play(self, rounds: int) -> Times:
        """Let everyone take turns, A B C A B C; the median seconds of each turn, by name.

        CPU seconds stand under the name with `CPU` behind it.
        """
        fastest = min(self._estimates.values(), default=TURN)
        repeats = max(1, min(MAX_REPEATS, int(TURN / fastest)))
        warm_ups = 1 if fastest < SHORT_RUN else 0
        times: Times = {name + kind: [] for name in self._contestants for kind in ("", CPU)}
        for _ in range(rounds):
            for name, contestant in self._contestants.items():
                wall, cpu = zip(*contestant.turn(warm_ups, repeats), strict=True)
                times[name].append(statistics.median(wall))
                times[name + CPU].append(statistics.median(cpu))
                time.sleep(PAUSE)
        return times
