"""What one worker does: photographs in, answers out. Plain values, which any process of any machine can be sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.decoding import UnreadablePictureError, describe
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.labels import both_sides

from ..onnx_pictures import checked
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
    """

    framing: Framing
    size: int
    output: str
    columns: int
    top: int | None


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
    pictures = []
    for place, file in enumerate(files):
        try:
            picture, remarks = _given(question, runner, file)
        except InvalidInputError as error:
            made.errors[place] = str(error)
        else:
            pictures.append(picture)
            if remarks:
                made.remarks[place] = "; it ".join(remarks)
    if not pictures:
        return made
    if runner.read is None:
        made_of = runner.answers(np.stack(pictures))[question.output]
    else:
        made_of = np.concatenate(pictures)
    values = both_sides(np.asarray(made_of, np.float32), question.columns)
    if question.top is not None:
        made.classes = np.argsort(values, axis=1)[:, ::-1][:, : question.top].astype(np.int32)
        values = np.take_along_axis(values, made.classes, axis=1)
    made.values = values
    return made


def _given(question: Question, runner: Runner, file: str) -> tuple[Any, Sequence[str]]:
    """The pixels of a photograph, or what an artefact that reads it itself makes of it; and what to remark on it."""
    if runner.read is not None:
        content, remarks = checked(file, question.framing, question.size)
        try:
            return runner.answers_to_files([content])[question.output], remarks
        except UnreadablePictureError as error:  # which knows the bytes alone
            raise UnreadablePictureError(
                f"Expected {describe(file)}. Received one that {error.reason}. Save it again.", error.reason
            ) from error
    decoded = question.framing.decode(file, question.size)
    return question.framing.square(decoded.picture, question.size), decoded.remarks
