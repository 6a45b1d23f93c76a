"""`evaluate(models, data)`: how good models and exported files are on photographs whose class is known."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError, require_installed
from keras_effnet.evaluation.comparison import Answered, PairedDifference, difference
from keras_effnet.evaluation.measures import EXTRA
from keras_effnet.network.resizing import at_size
from keras_effnet.pictures.labels import classes_of, known_labels, numbered_labels
from keras_effnet.pictures.listing import Listing, read_judged
from keras_effnet.pictures.strangers import check_strange, strangers_in
from keras_effnet.system.files import shown
from keras_effnet.system.progress import Progress

from ..formats import KERAS, format_of
from ..runners import Runner, load, network_of, runner_of
from .asking import Asking, Contender
from .report import write_page
from .result import Result, SeveralResult


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What models and files did with the same photographs; iterate for one `Result` or `SeveralResult` each.

    Attributes:
        data: where the photographs are.
        listing: the photographs.
        strangers: photographs of none of the classes, if there were any to refuse.
        results: in the order of the models.
        unreadable: (file, reason) of photographs that could not be read, and count for nobody.
        unreadable_strangers: the same of strangers.
    """

    data: str
    listing: Listing = field(repr=False)
    strangers: Listing | None = field(default=None, repr=False)
    results: tuple[Result | SeveralResult, ...]
    unreadable: tuple[tuple[str, str], ...] = ()
    unreadable_strangers: tuple[tuple[str, str], ...] = ()

    def __iter__(self) -> Iterator[Result | SeveralResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    @property
    def split(self) -> str:
        """The split that the photographs are of; `all` where they are of several or none."""
        return self.listing.split_called()

    @property
    def gives_several(self) -> bool:
        """Whether the models give photographs several labels."""
        return isinstance(self.results[0], SeveralResult)

    def differences(self) -> list[tuple[Result | SeveralResult, PairedDifference]]:
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
            "strangers": None
            if self.strangers is None
            else len(self.strangers.files) - len(self.unreadable_strangers),
            "unreadable": [
                {"file": shown(file), "reason": shown(why)}
                for file, why in (*self.unreadable, *self.unreadable_strangers)
            ],
            "results": [result.row() | {"worst": result.worst(self.listing)} for result in self.results],
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
    strangers: str | os.PathLike[str] | None = None,
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
        strangers: a folder of photographs of none of the classes, which models with thresholds are to refuse.
        sizes: sides of the pictures in pixels, each of which Keras models are judged at. Default: their own.
        labels: class names in the order of the outputs, where a model has none or others are wanted.
        output: name of the output that is meant, where there are several.
        workers: as of `export.score`.
        quiet: no progress bar.

    Raises:
        InvalidInputError: data or a model that cannot be used; a class that a model lacks; an output without
            classes; `sizes` with a file that has one of its own; strangers, and a model without thresholds; models
            that give one class beside others that give several; no photograph that can be read.
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
        strangers=None if strangers is None else strangers_in(strangers, listing.classes),
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


def candidates_of(model: Any, sizes: Sequence[int], labels: Sequence[str] | None) -> Iterator[Contender]:
    """A model, at each of the sizes; made when it is asked for."""
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        name = path.name
        model = network_of(path) if path.exists() and format_of(path) == KERAS else load(path)
    else:
        name = getattr(model, "name", "")
    if isinstance(model, Runner):
        if sizes and None not in model.size:
            raise InvalidInputError(
                f"Expected sizes= with Keras models, which can be built for each. Received: {str(model.path)!r}, "
                f"whose pictures have {model.size[0]} pixels. Export one file for each size."
            )
        for size in sizes or (None,):
            yield Contender(name=_at(name or model.path.name, size), runner=model, labels=labels, size=size)
        return
    for size in sizes or (None,):
        sized = model if size is None else at_size(model, size)
        yield Contender(
            name=_at(name, size),
            runner=runner_of(sized, Path(name)),
            labels=labels or known_labels(model) or numbered_labels(classes_of(model)),
            size=size,
        )


def _at(name: str, size: int | None) -> str:
    return name if size is None else f"{name} at {size} px"


def evaluate_candidates(
    candidates: Iterable[Contender],
    listing: Listing,
    *,
    data: str,
    strangers: Listing | None = None,
    output: str | None = None,
    workers: int | None = None,
    quiet: bool = True,
) -> Evaluation:
    """As `evaluate`, of candidates, one after the other: only one is in memory at a time."""
    if strangers is not None:
        check_strange(strangers, listing)
    results: list[Result | SeveralResult] = []
    unreadable, strange = dict[int, str](), dict[int, str]()
    progress = Progress(quiet=quiet)
    photographs = len(listing.files) + (0 if strangers is None else len(strangers.files))
    for candidate in candidates:
        asking = Asking(candidate, output, workers)
        if results and asking.gives_several != isinstance(results[0], SeveralResult):
            raise InvalidInputError(
                f"Expected models that all give one class, or all several labels. Received: {results[0].name!r} and "
                f"{candidate.name!r}. Evaluate each in a call of its own."
            )
        with progress.bar(candidate.name, photographs) as advance:
            results.append(asking.result(listing, strangers, advance))
        unreadable |= asking.errors
        strange |= asking.strange_errors
    return Evaluation(
        data=data,
        listing=listing,
        strangers=strangers,
        results=tuple(results),
        unreadable=_named(listing, unreadable),
        unreadable_strangers=() if strangers is None else _named(strangers, strange),
    )


def _named(listing: Listing, errors: dict[int, str]) -> tuple[tuple[str, str], ...]:
    return tuple((listing.files[place], errors[place]) for place in sorted(errors))


def _on_same(first: Result | SeveralResult, second: Result | SeveralResult) -> tuple[Answered, Answered]:
    """What both said of the photographs that both answered for."""
    _, one, other = np.intersect1d(first.places, second.places, assume_unique=True, return_indices=True)
    return first.judged.only(one), second.judged.only(other)
