"""What one worker does: photographs in, answers out. Plain values, which any process of any machine can be sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.decoding import Part, UnreadablePictureError, describe
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.labels import both_sides
from keras_effnet.pictures.prefetching import READING_THREADS
from keras_effnet.pictures.thresholds import accepted, best_first

from ..onnx_pictures import checked
from ..runners import Runner

BATCH = 8  # pictures at a time; more are not faster on a CPU
RUNS_AHEAD = 1  # that are read before they are asked about

Photograph = str | Part  # what can be sent to any process


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of each photograph.

    Attributes:
        framing, size: how photographs are read, and the side of the square in pixels.
        output: name of the output that is meant.
        columns: how many values it has, a single sigmoid's two sides counted.
        top: how many of the best are wanted; None for all values, in the order of the columns.
        thresholds: how probable a class must be to be accepted; accepted ones are better than others.
        inside: whether the artefact reads photographs itself, see `Runner.read`.
    """

    framing: Framing
    size: int
    output: str
    columns: int
    top: int | None
    thresholds: tuple[float, ...] = ()
    inside: bool = field(default=False, repr=False)


@dataclass(kw_only=True)
class Answers:
    """What is on some photographs, in their order.

    Attributes:
        count: photographs that were given.
        errors: why one cannot be read, by its place.
        remarks: what is to be said of one that was read, by its place.
        values: float32 `[readable, top or columns]`, best first where `top` was asked for.
        classes: int32 of the same shape: which columns they are; empty for all.
    """

    count: int
    errors: dict[int, str] = field(default_factory=dict)
    remarks: dict[int, str] = field(default_factory=dict)
    values: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int32]

    def rows(self) -> Iterator[tuple[str | None, Any, Any]]:
        """For each photograph its error, values and classes; None for what it does not have."""
        readable = iter(range(len(self.values)))
        for place in range(self.count):
            if place in self.errors:
                yield self.errors[place], None, None
            else:
                row = next(readable)
                yield None, self.values[row], self.classes[row] if len(self.classes) else None


def nothing(question: Question, errors: Sequence[str] = ()) -> Answers:
    """The answers for photographs of which none could be read."""
    width = question.columns if question.top is None else min(question.top, question.columns)
    return Answers(
        count=len(errors),
        errors=dict(enumerate(errors)),
        values=np.empty((0, width), np.float32),
        classes=np.empty((0, width), np.int32),
    )


def joined(parts: Sequence[Answers]) -> Answers:
    """The answers for several runs of photographs as those for one."""
    starts = np.cumsum([0, *(part.count for part in parts)])
    shifted = list(zip(starts.tolist(), parts, strict=False))
    return Answers(
        count=int(starts[-1]),
        errors={start + place: text for start, part in shifted for place, text in part.errors.items()},
        remarks={start + place: text for start, part in shifted for place, text in part.remarks.items()},
        values=np.concatenate([part.values for part in parts]),
        classes=np.concatenate([part.classes for part in parts]),
    )


@dataclass(frozen=True, kw_only=True)
class ReadPhotograph:
    """A photograph's square, uint8 `[size, size, C]`, or why there is none; and what is to be said of one there is.

    Of an artefact that reads photographs itself it has the file's `content` instead, and what messages call it, and
    then what the artefact makes of it, `[1, columns]`.
    """

    pixels: npt.NDArray[np.uint8] | None = None
    content: tuple[bytes, str] | None = None
    values: npt.NDArray[np.float32] | None = None
    error: str | None = None
    remark: str | None = None


def read(question: Question, photograph: Photograph) -> ReadPhotograph:
    """Read a photograph; one that cannot be read costs only itself."""
    try:
        if question.inside:
            content, remarks = checked(photograph, question.framing, question.size)
            return ReadPhotograph(
                content=(content, describe(photograph)), remark="; it ".join(remarks) or None
            )
        decoded = question.framing.decode(photograph, question.size)
        pixels = question.framing.square(decoded.picture, question.size)
    except InvalidInputError as error:
        return ReadPhotograph(error=str(error))
    return ReadPhotograph(pixels=pixels, remark="; it ".join(decoded.remarks) or None)


def answer(question: Question, runner: Runner, photographs: Iterable[Photograph]) -> Answers:
    """Read photographs and ask the network, a few at a time."""
    return answered(question, runner, (read(question, photograph) for photograph in photographs))


def answered(question: Question, runner: Runner, readings: Iterable[ReadPhotograph]) -> Answers:
    """Ask the network of photographs that were read, a few at a time."""
    coming = iter(readings)
    made = []
    while batch := list(islice(coming, BATCH)):
        made.append(_answered(question, runner, batch))
    return joined(made or [nothing(question)])


def answers_ahead(
    question: Question, runner: Runner, runs: Iterable[tuple[int, Sequence[Photograph]]]
) -> Generator[tuple[int, Answers], None, None]:
    """The answers for each run, in this process: threads read the photographs of the next one meanwhile."""
    coming: deque[tuple[int, list[Future[ReadPhotograph]]]] = deque()
    readers = ThreadPoolExecutor(READING_THREADS, "reading")
    try:
        for start, photographs in runs:
            coming.append((start, [readers.submit(read, question, each) for each in photographs]))
            if len(coming) > RUNS_AHEAD:
                yield _taken(question, runner, coming.popleft())
        while coming:
            yield _taken(question, runner, coming.popleft())
    finally:
        readers.shutdown(cancel_futures=True)


def _taken(
    question: Question, runner: Runner, run: tuple[int, list[Future[ReadPhotograph]]]
) -> tuple[int, Answers]:
    start, readings = run
    return start, answered(question, runner, (reading.result() for reading in readings))


def _answered(question: Question, runner: Runner, readings: Sequence[ReadPhotograph]) -> Answers:
    made = nothing(question)
    made.count = len(readings)
    if question.inside:
        readings = [_read_inside(question, runner, reading) for reading in readings]
    made.errors = {place: each.error for place, each in enumerate(readings) if each.error is not None}
    made.remarks = {place: each.remark for place, each in enumerate(readings) if each.remark is not None}
    pixels = [each.pixels for each in readings if each.pixels is not None]
    inside = [each.values for each in readings if each.values is not None]
    if not (pixels or inside):
        return made
    made_of = np.concatenate(inside) if inside else runner.answers(np.stack(pixels))[question.output]
    values = both_sides(np.asarray(made_of, np.float32), question.columns)
    if question.top is not None:
        order = best_first(values, accepted(values, question.thresholds))
        made.classes = order[:, : question.top].astype(np.int32)
        values = np.take_along_axis(values, made.classes, axis=1)
    made.values = values
    return made


def _read_inside(question: Question, runner: Runner, reading: ReadPhotograph) -> ReadPhotograph:
    """What the artefact makes of a photograph's file, which its own decoder may refuse."""
    if reading.content is None:
        return reading
    content, name = reading.content
    try:
        values = runner.answers_to_files([content])[question.output]
    except UnreadablePictureError as error:  # which knows the bytes alone
        return ReadPhotograph(error=f"Expected {name}. Received one that {error.reason}. Save it again.")
    return ReadPhotograph(values=values, remark=reading.remark)
