"""What one worker does: photographs in, answers out. Plain values, which any process of any machine can be sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.labels import both_sides
from keras_effnet.pictures.thresholds import accepted

from ..runners import Runner

BATCH = 8  # pictures at a time; more are not faster on a CPU


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of each photograph.

    Attributes:
        framing, size: how photographs are read, and the side of the square in pixels.
        output: name of the output that is meant.
        columns: how many values it has, a single sigmoid's two sides counted.
        top: how many of the best are wanted; None for all values, in the order of the columns.
        thresholds: how probable a class must be to be accepted; accepted ones are better than others.
    """

    framing: Framing
    size: int
    output: str
    columns: int
    top: int | None
    thresholds: tuple[float, ...] = ()


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


def answer(question: Question, runner: Runner, files: Sequence[str]) -> Answers:
    """Read photographs and ask the network, a few at a time; what cannot be read costs only itself."""
    return joined(
        [_answer(question, runner, files[start : start + BATCH]) for start in range(0, len(files), BATCH)]
        or [nothing(question)]
    )


def _answer(question: Question, runner: Runner, files: Sequence[str]) -> Answers:
    made = nothing(question)
    made.count = len(files)
    pixels = []
    for place, file in enumerate(files):
        try:
            decoded = question.framing.decode(file, question.size)
            pixels.append(question.framing.square(decoded.picture, question.size))
        except InvalidInputError as error:
            made.errors[place] = str(error)
        else:
            if decoded.remarks:
                made.remarks[place] = "; it ".join(decoded.remarks)
    if not pixels:
        return made
    made_of = runner.answers(np.stack(pixels))[question.output]
    values = both_sides(np.asarray(made_of, np.float32), question.columns)
    if question.top is not None:
        order = np.lexsort((values, accepted(values, question.thresholds)))  # by the last of these first
        made.classes = order[:, ::-1][:, : question.top].astype(np.int32)
        values = np.take_along_axis(values, made.classes, axis=1)
    made.values = values
    return made
