"""Many workers at once: who gets which photographs, and what happens when one dies.

A worker that dies costs nothing: its photographs go to another one, and if that dies too, one by one, so that a
picture that kills whoever reads it costs only itself.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from keras_effnet.errors import EffNetError, ExportError
from keras_effnet.pictures.decoding import describe
from keras_effnet.system.resources import thread_settings

from .work import Answers, Photograph, Question, joined, nothing

AHEAD = 4  # runs of photographs for each worker that are under way or wait to be asked for
POLL_S = 1.0  # between two looks for room
NO_ROOM_S = 120.0  # without any worker, until that is an error
KILLED = "the process that read it died, twice"

Run = tuple[int, Sequence[Photograph]]  # place of the first photograph, and the photographs


class DiedError(Exception):
    """A worker is gone; it says how, in a few words."""


class NoRoomError(Exception):
    """There is no place for another worker now."""


class Worker(Protocol):
    """Whoever answers for photographs, one run of them at a time."""

    def answer(self, photographs: Sequence[Photograph]) -> Answers:
        """Answer.

        Raises:
            DiedError: it is gone, and can be closed.
        """

    def close(self) -> None:
        """Let go of it, whatever it does at the moment."""


class LocalProcess:
    """A process of this machine with one thread.

    Raises:
        ExportError: it ended before it began.
        EffNetError: the file cannot be opened.
    """

    def __init__(self, file: str, question: Question) -> None:
        path = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ | thread_settings(1) | {"PYTHONPATH": path},
        )
        try:
            refused = self._ask((file, question))
        except DiedError as died:
            self.close()
            raise ExportError(
                f"Expected a process that scores photographs with {file!r}. Received: one that {died} before it "
                "began. If memory is short, take fewer workers."
            ) from died
        if isinstance(refused, EffNetError):
            self.close()
            raise refused

    def answer(self, photographs: Sequence[Photograph]) -> Answers:
        """Answer; raises as `Worker.answer` does, and an ExportError where the runtime fails."""
        found = self._ask(photographs)
        if isinstance(found, EffNetError):
            raise found
        assert isinstance(found, Answers)
        return found

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not sent yet has nobody to read it
                    stream.close()

    def _ask(self, what: object) -> Any:
        asking, answering = self.process.stdin, self.process.stdout
        assert asking is not None and answering is not None
        try:
            pickle.dump(what, asking, pickle.HIGHEST_PROTOCOL)
            asking.flush()
            return pickle.load(answering)
        except (OSError, EOFError, pickle.UnpicklingError, ValueError) as error:
            code = self.process.wait()
            raise DiedError(
                f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            ) from error


class Crew:
    """Workers that share the runs of photographs among them.

    Args:
        make: starts a worker.
        count: how many at once.
        question: what they are asked.
    """

    def __init__(self, make: Callable[[], Worker], count: int, question: Question) -> None:
        self.make, self.count, self.question = make, count, question
        self.idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self.alive: set[Worker] = set()
        self.over = False

    def answers(self, runs: Iterable[Run], *, ordered: bool) -> Generator[tuple[int, Answers], None, None]:
        """The answers for each run, as they come or in the order of the runs.

        Raises:
            ExportError: workers do not begin, or die at every photograph of a run.
        """
        coming: deque[Future[tuple[int, Answers]]] = deque()
        threads = ThreadPoolExecutor(self.count, "scoring")
        try:
            for run in runs:
                coming.append(threads.submit(self._answer, run))
                if len(coming) >= AHEAD * self.count:
                    yield _next(coming, ordered).result()
            while coming:
                yield _next(coming, ordered).result()
        finally:
            self.over = True
            for worker in list(self.alive):
                worker.close()
            threads.shutdown(cancel_futures=True)

    def _answer(self, run: Run) -> tuple[int, Answers]:
        start, photographs = run
        for _ in range(2):
            try:
                return start, self._once(photographs)
            except DiedError as died:
                last = died
        if len(photographs) == 1:
            return start, nothing(self.question, [self._killed(photographs[0])])
        each = [self._answer((0, [photograph]))[1] for photograph in photographs]
        if all(len(found.errors) and KILLED in found.errors[0] for found in each):
            raise ExportError(
                f"Expected workers that answer. Received: {2 * len(each)} that died one after the other, the last "
                f"one {last}. Try one photograph with keras-effnet predict; if memory is short, take fewer workers."
            )
        return start, joined(each)

    def _killed(self, photograph: Photograph) -> str:
        return f"Expected {describe(photograph)}. It cannot be used ({KILLED})."

    def _once(self, photographs: Sequence[Photograph]) -> Answers:
        worker = self._worker()
        self.alive.add(worker)
        try:
            if self.over:
                raise ExportError("The scoring was stopped.")
            found = worker.answer(photographs)
        except BaseException:
            self.alive.discard(worker)
            worker.close()
            if self.over:
                raise ExportError("The scoring was stopped.") from None
            raise
        self.idle.put(worker)
        return found

    def _worker(self) -> Worker:
        """One that is idle, or else a new one; where there is no room, whichever comes first."""
        wait_s, alone_s = 0.0, 0.0
        while not self.over:
            try:
                return self.idle.get(timeout=wait_s) if wait_s else self.idle.get_nowait()
            except queue.Empty:
                pass
            try:
                return self.make()
            except NoRoomError:
                alone_s = 0.0 if self.alive else alone_s + wait_s
                wait_s = POLL_S
            if alone_s > NO_ROOM_S:
                raise ExportError(
                    f"Expected room for at least one worker. Received: none for {NO_ROOM_S:.0f} s. "
                    "Free a core of the cluster; the same command then goes on."
                )
        raise ExportError("The scoring was stopped.")


def _next(coming: deque[Future[Any]], ordered: bool) -> Future[Any]:
    """The one to take next: the first, or whichever is ready."""
    if not ordered:
        ready = next(iter(wait(coming, return_when=FIRST_COMPLETED).done))
        coming.remove(ready)
        return ready
    return coming.popleft()
