"""One model or file is asked about labelled photographs, and about strangers, and is judged by what it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.evaluation.confidence import softmax, told_of, worth_of
from keras_effnet.evaluation.matching import places_of
from keras_effnet.evaluation.measures import Judged, calibration_error, judge, measure
from keras_effnet.evaluation.several import HALF, Marked, measure_several
from keras_effnet.pictures.labels import both_sides
from keras_effnet.pictures.listing import Listing
from keras_effnet.pictures.thresholds import accepted

from ..kinds import CLASSES, EMBEDDING, LOGITS, MAP, SIGMOID, SIGMOIDS
from ..runners import Runner
from ..scoring import Scores, asked_of, workers_for
from ..scoring.tables import Shape
from ..scoring.work import Question
from .result import Result, SeveralResult

_JUDGED = (CLASSES.name, LOGITS.name, SIGMOID.name, SIGMOIDS.name)

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model or file to evaluate.

    Attributes:
        name: what reports call it.
        runner: what answers.
        labels: class names, where it has none of its own or others are wanted.
        size: side of the pictures in pixels, where it leaves it open.
    """

    name: str
    runner: Runner
    labels: Sequence[str] | None = None
    size: int | None = None


class Asking:
    """A candidate, and what is asked of it.

    Attributes:
        errors: why photographs could not be read, by their places in the listing; filled as they are asked about.
        strange_errors: the same of the strangers.
    """

    def __init__(self, candidate: Contender, output: str | None, workers: int | None) -> None:
        """Find out what the candidate gives.

        Raises:
            InvalidInputError: something by which no photograph has a class or labels.
        """
        self._candidate, self._workers = candidate, workers
        asked = asked_of(
            candidate.runner, top=None, output=output, labels=candidate.labels, size=candidate.size
        )
        self._question: Question = asked[0]
        self._shape: Shape = asked[1]
        self._kind = _kind_of(candidate.runner, self._question.output)
        self.errors, self.strange_errors = dict[int, str](), dict[int, str]()

    @property
    def gives_several(self) -> bool:
        """Whether a photograph may have several labels."""
        return self._kind == SIGMOIDS.name

    def result(
        self, listing: Listing, strangers: Listing | None, advance: Callable[[int], Any]
    ) -> Result | SeveralResult:
        """What the candidate did.

        Args:
            listing: photographs whose class or labels are known.
            strangers: photographs of none of its classes, which its thresholds are to refuse.
            advance: is told how many photographs were asked about, as they are.

        Raises:
            InvalidInputError: a class that it lacks; strangers, and no thresholds; no photograph that can be read.
        """
        candidate, question, thresholds = self._candidate, self._question, self._shape.thresholds
        if strangers is not None and not thresholds:
            raise InvalidInputError(
                f"Expected a model with thresholds, to refuse photographs of none of its classes. Received: "
                f"{candidate.name!r}, which accepts all. Train it with --none or --wanted-precision, or give it some "
                "with transfer.with_thresholds."
            )
        given = listing if self.gives_several else listing.with_one_label()
        names = self._shape.labels
        classes = places_of(given.classes, names, repr(candidate.name))
        begun = time.perf_counter()
        if self.gives_several:
            truth = np.zeros((len(given.files), len(names)), bool)
            truth[:, classes] = given.targets(np.arange(len(given.files))) > 0
            places, marked = self._marked(given, truth, advance)
        else:
            places, judged, told = self._judged(given, classes[given.labels], advance)
        strange = None if strangers is None else self._accepted(strangers, advance)
        common: dict[str, Any] = {
            "name": candidate.name,
            "format": candidate.runner.format,
            "recipe": candidate.runner.recipe,
            "size": question.size,
            "labels": tuple(names),
            "framing": question.framing,
            "places": places,
            "thresholds": tuple(thresholds),
            "seconds": time.perf_counter() - begun,
        }
        if self.gives_several:
            return SeveralResult(judged=marked, figures=self._figures_of_several(marked, strange), **common)
        return Result(judged=judged, figures=self._figures(judged, told, strange), **common)

    def _judged(
        self, listing: Listing, truth: npt.NDArray[np.int32], advance: Callable[[int], Any]
    ) -> tuple[npt.NDArray[np.int64], Judged, npt.NDArray[np.int32]]:
        """Which photographs have an answer; the answers; and the class that each is told to be of, −1 for none."""
        parts = [
            (places, judge(values, truth[places]), told_of(values, self._shape.thresholds))
            for places, values in self._answers(listing, self.errors, advance)
        ]
        every, judged, told = zip(*_in_order(parts, self.errors), strict=True)
        return np.concatenate(every), Judged.joined(judged), np.concatenate(told)

    def _marked(
        self, listing: Listing, truth: npt.NDArray[np.bool_], advance: Callable[[int], Any]
    ) -> tuple[npt.NDArray[np.int64], Marked]:
        """Which photographs have an answer, and the answers."""
        parts = [
            (places, Marked(labels=truth[places], guesses=self._yes(values), probabilities=values))
            for places, values in self._answers(listing, self.errors, advance)
        ]
        every, marked = zip(*_in_order(parts, self.errors), strict=True)
        return np.concatenate(every), Marked.joined(marked)

    def _accepted(self, strangers: Listing, advance: Callable[[int], Any]) -> npt.NDArray[np.bool_]:
        """What is accepted of strangers: each label, or in one column whether there is any."""
        found = [
            (places, self._yes(values))
            for places, values in self._answers(strangers, self.strange_errors, advance)
        ]
        taken = np.concatenate([yes for _, yes in _in_order(found, self.strange_errors)])
        return taken if self.gives_several else np.asarray(taken.any(axis=1, keepdims=True))

    def _yes(self, values: Values) -> npt.NDArray[np.bool_]:
        return accepted(values, self._shape.thresholds or (HALF,))

    def _answers(
        self, listing: Listing, errors: dict[int, str], advance: Callable[[int], Any]
    ) -> Iterator[tuple[npt.NDArray[np.int64], Values]]:
        """Places of some photographs and their probabilities `[n, classes]`, as they are ready."""
        runner, sources = self._candidate.runner, listing.sources()
        scores = Scores(
            runner=runner,
            question=self._question,
            shape=self._shape,
            photographs=sources,
            workers=workers_for(runner, len(sources), self._workers, "processes"),
        )
        for start, answers in scores.answers():
            errors |= {start + place: why for place, why in answers.errors.items()}
            places = [start + place for place in range(answers.count) if place not in answers.errors]
            if places:
                values = answers.values
                yield np.array(places), softmax(values) if self._kind == LOGITS.name else values
            advance(answers.count)

    def _figures(
        self, judged: Judged, told: npt.NDArray[np.int32], strange: npt.NDArray[np.bool_] | None
    ) -> dict[str, Any]:
        worth = None
        if self._shape.thresholds:
            worth = worth_of((told >= 0)[:, None], (told == judged.labels)[:, None], strange)
        return measure(judged, self._shape.labels) | {"accepted": worth}

    def _figures_of_several(self, marked: Marked, strange: npt.NDArray[np.bool_] | None) -> dict[str, Any]:
        worth = None
        if self._shape.thresholds:
            worth = worth_of(marked.guesses, marked.guesses & marked.labels, strange)
        figures = measure_several(
            marked.probabilities, marked.labels, self._shape.labels, self._shape.thresholds
        )
        sides = both_sides(marked.probabilities.reshape(-1, 1), 2)
        return figures | {
            "calibration_error": calibration_error(marked.labels.ravel(), sides),
            "accepted": worth,
        }


def _in_order(parts: list[Any], errors: dict[int, str]) -> list[Any]:
    """Parts that begin with the places of photographs, in their order.

    Raises:
        InvalidInputError: there is none, since no photograph could be read.
    """
    if not parts:
        raise InvalidInputError(next(iter(errors.values())))
    return sorted(parts, key=lambda part: int(part[0][0]))


def _kind_of(runner: Runner, output: str) -> str:
    """The kind of the output that is judged."""
    kinds = {told.name: told.kind for told in runner.outputs}
    kind = kinds.get(output, CLASSES.name)
    if kind not in _JUDGED:
        what = {EMBEDDING.name: "an embedding", MAP.name: "a map"}[kind]
        raise InvalidInputError(
            f"Expected a model that gives photographs classes. Received: {str(runner.path)!r}, which gives {what}. "
            "Name another output: output=… (--output)."
        )
    return kind
