"""`evaluate(models, data)`: how good models and exported files are on photographs whose class is known."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, require_installed
from keras_effnet.evaluation.comparison import Difference, difference
from keras_effnet.evaluation.matching import places_of
from keras_effnet.evaluation.measures import EXTRA, Judged, judge, measure
from keras_effnet.network.resizing import at_size
from keras_effnet.pictures.labels import classes_of, known_labels, numbered_labels
from keras_effnet.pictures.listing import Listing, read_judged
from keras_effnet.system.files import shown
from keras_effnet.system.progress import Progress

from ..formats import KERAS, format_of
from ..kinds import CLASSES, EMBEDDING, LOGITS, MAP, SIGMOIDS
from ..runners import Runner, load, runner_of
from ..scoring import Scores, asked_of, workers_for
from .report import write_page
from .result import Result, worst

_ONE_CLASS = (CLASSES.name, LOGITS.name, "sigmoid")


@dataclass(frozen=True, kw_only=True)
class Candidate:
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


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What models and files did with the same photographs; iterate for one `Result` each.

    Attributes:
        data: where the photographs are.
        listing: the photographs.
        results: in the order of the models.
        unreadable: (file, reason) of photographs that could not be read, and count for nobody.
    """

    data: str
    listing: Listing = field(repr=False)
    results: tuple[Result, ...]
    unreadable: tuple[tuple[str, str], ...] = ()

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    @property
    def split(self) -> str:
        """The split that the photographs are of; `all` where they are of several or none."""
        return self.listing.split_called()

    def differences(self) -> list[tuple[Result, Difference]]:
        """How each of the others differs from the first one, on the photographs that both answered for."""
        first, *others = self.results
        return [(other, difference(*_on_same(first, other))) for other in others]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON takes it."""
        return {
            "data": shown(self.data),
            "split": self.split,
            "images": len(self.listing.files) - len(self.unreadable),
            "classes": int(np.count_nonzero(self.listing.counts())),
            "unreadable": [{"file": shown(file), "reason": shown(why)} for file, why in self.unreadable],
            "results": [result.row() | {"worst": worst(result, self.listing)} for result in self.results],
            "differences": [
                {"first": shown(self.results[0].name), "second": shown(other.name)} | asdict(found)
                for other, found in self.differences()
            ],
        }

    def to_json(self) -> str:
        """`as_dict` as text."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as one self-contained HTML file.

        Raises:
            MissingExtraError: the extra `evaluate` is not installed.
        """
        return write_page(Path(path), self.as_dict(), self.listing, self.results)


def evaluate(
    models: Any,
    data: str | os.PathLike[str] | Listing,
    *,
    split: str | None = None,
    sizes: Sequence[int] = (),
    labels: Sequence[str] | None = None,
    output: str | None = None,
    workers: int | None = None,
    quiet: bool = True,
) -> Evaluation:
    """Judge models and exported files by the same photographs, each read as `load_image` reads it for them.

        found = keras_effnet.evaluate(["lite0_float32.onnx", "lite0_int8.tflite"], "photographs")
        print([result.top1 for result in found], found.differences())
        found.write("report.html")

    Args:
        models: a Keras model, a file that `export.load` opens, a runner, or a list of these.
        data: a folder with a folder per class, a CSV file or another source of `pictures.listing`; or a listing.
        split: `"train"`, `"validation"`, `"test"` or `"all"`; None for the test split, else the validation split,
            and all photographs where there is neither.
        sizes: sides of the pictures in pixels, each of which Keras models are judged at. Default: their own.
        labels: class names in the order of the outputs, where a model has none or others are wanted.
        output: name of the output that is meant, where there are several.
        workers: as of `export.score`.
        quiet: no progress bar.

    Raises:
        InvalidInputError: data or a model that cannot be used; a class that a model lacks; an output without one
            best class; `sizes` with a file that has one of its own; no photograph that can be read.
        MissingExtraError: the extra `evaluate`, or what runs a file or reads the data, is not installed.
    """
    check_extras()
    listed = list(models) if isinstance(models, list | tuple) else [models]
    if not listed:
        raise InvalidInputError("Expected at least one model or file. Received: none.")
    listing = data if isinstance(data, Listing) else read_judged(data, split=split)
    return evaluate_candidates(
        (candidate for model in listed for candidate in candidates_of(model, sizes, labels)),
        listing,
        data=str(listing.root) if isinstance(data, Listing) else os.fspath(data),
        output=output,
        workers=workers,
        quiet=quiet,
    )


def check_extras() -> None:
    """Make sure that the figures can be computed, before anything else is.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    require_installed("sklearn", EXTRA)


def candidates_of(model: Any, sizes: Sequence[int], labels: Sequence[str] | None) -> Iterator[Candidate]:
    """A model, at each of the sizes; made when it is asked for."""
    if isinstance(model, str | os.PathLike):
        name = Path(model).name
        model = _network(Path(model)) if format_of(Path(model)) == KERAS else load(model)
    else:
        name = getattr(model, "name", "")
    if isinstance(model, Runner):
        if sizes and None not in model.size:
            raise InvalidInputError(
                f"Expected sizes= with Keras models, which can be built for each. Received: {str(model.path)!r}, "
                f"whose pictures have {model.size[0]} pixels. Export one file for each size."
            )
        for size in sizes or (None,):
            yield Candidate(name=_at(name or model.path.name, size), runner=model, labels=labels, size=size)
        return
    for size in sizes or (None,):
        sized = model if size is None else at_size(model, size)
        yield Candidate(
            name=_at(name, size),
            runner=runner_of(sized, Path(name)),
            labels=labels or known_labels(model) or numbered_labels(classes_of(model)),
            size=size,
        )


def _network(path: Path) -> Any:
    """The model of a Keras file; nothing in it is executed."""
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _at(name: str, size: int | None) -> str:
    return name if size is None else f"{name} at {size} px"


def evaluate_candidates(
    candidates: Iterable[Candidate],
    listing: Listing,
    *,
    data: str,
    output: str | None = None,
    workers: int | None = None,
    quiet: bool = True,
) -> Evaluation:
    """As `evaluate`, of candidates, one after the other: only one is in memory at a time."""
    results, unreadable = [], dict[int, str]()
    progress = Progress(quiet=quiet)
    for candidate in candidates:
        with progress.bar(candidate.name, len(listing.files)) as advance:
            result, errors = _result(candidate, listing, output, workers, advance)
        results.append(result)
        unreadable |= errors
    return Evaluation(
        data=data,
        listing=listing,
        results=tuple(results),
        unreadable=tuple((listing.files[place], unreadable[place]) for place in sorted(unreadable)),
    )


def _result(
    candidate: Candidate,
    listing: Listing,
    output: str | None,
    workers: int | None,
    advance: Callable[[int], Any],
) -> tuple[Result, dict[int, str]]:
    """What one did, and why photographs could not be read, by their places."""
    runner = candidate.runner
    question, shape = asked_of(runner, top=None, output=output, labels=candidate.labels, size=candidate.size)
    kind = _kind_of(runner, question.output)
    places = places_of(listing.classes, shape.labels, repr(candidate.name))
    truth = places[listing.labels]
    sources = [listing.source(index) for index in range(len(listing.files))]
    scores = Scores(
        runner=runner,
        question=question,
        shape=shape,
        photographs=sources,
        workers=workers_for(runner, len(sources), workers, "processes"),
    )
    parts, errors = dict[int, tuple[npt.NDArray[np.int64], Judged]](), dict[int, str]()
    begun = time.perf_counter()
    for start, answers in scores.answers():
        errors |= {start + place: why for place, why in answers.errors.items()}
        answered = np.array([start + place for place in range(answers.count) if place not in answers.errors])
        if len(answered):
            values = _softmax(answers.values) if kind == LOGITS.name else answers.values
            parts[start] = answered, judge(values, truth[answered])
        advance(answers.count)
    seconds = time.perf_counter() - begun
    if not parts:
        raise InvalidInputError(next(iter(errors.values())))
    ordered = [parts[start] for start in sorted(parts)]
    judged = Judged.joined([part for _, part in ordered])
    return Result(
        name=candidate.name,
        format=runner.format,
        recipe=runner.recipe,
        size=question.size,
        labels=tuple(shape.labels),
        framing=question.framing,
        places=np.concatenate([answered for answered, _ in ordered]),
        judged=judged,
        figures=measure(judged, shape.labels),
        seconds=seconds,
    ), errors


def _kind_of(runner: Runner, output: str) -> str:
    """The kind of the output that is judged.

    Raises:
        InvalidInputError: one that does not give each photograph one class.
    """
    kinds = {told.name: told.kind for told in runner.outputs}
    kind = kinds.get(output, CLASSES.name)
    if kind not in _ONE_CLASS:
        what = {EMBEDDING.name: "an embedding", MAP.name: "a map", SIGMOIDS.name: "several labels at once"}[
            kind
        ]
        raise InvalidInputError(
            f"Expected a model that gives each photograph one class. Received: {str(runner.path)!r}, which gives {what}. "
            "Name another output: output=… (--output)."
        )
    return kind


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _on_same(first: Result, second: Result) -> tuple[Judged, Judged]:
    """What both said of the photographs that both answered for."""
    _, one, other = np.intersect1d(first.places, second.places, assume_unique=True, return_indices=True)
    return first.judged.only(one), second.judged.only(other)
