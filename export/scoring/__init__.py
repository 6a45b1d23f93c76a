"""Many photographs: `score(file, photographs)` asks an artefact about all of them, with every core."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError, require_installed, unknown_name, warn
from keras_effnet.pictures.labels import check_lines, numbered_labels
from keras_effnet.pictures.listing import photographs_in
from keras_effnet.system.files import check_new, staged
from keras_effnet.system.progress import Progress
from keras_effnet.system.resources import cores

from ..formats import KERAS, SAVED_MODEL
from ..kinds import CLASSES, EMBEDDING, MAP, SIGMOID
from ..runners import Runner, load
from .parts import Parts, Plan, digest_of, opened
from .tables import WRITERS, Row, Shape, Writer, row_of, table_of
from .work import Answers, Photograph, Question, answers_ahead
from .workers import Crew, LocalProcess, Run, Worker

SHOWN = 20  # errors that are listed; all are in the file
RUN = 32  # photographs that a worker gets at once, and that a part holds
ENGINES = ("processes", "ray")
_ALONE = (KERAS, SAVED_MODEL)  # TensorFlow has threads of its own, takes seconds to load and much memory

__all__ = ["ENGINES", "Scores", "score"]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a file holds that was written.

    Attributes:
        photographs: rows.
        failed: how many of them could not be read.
        errors: why, of the first ones.
    """

    photographs: int
    failed: int
    errors: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What an artefact says of photographs. Nothing is computed before it is asked for.

    Iterate to get a dictionary for each photograph, with `file` and either `predictions` (`class_index`, `label`
    and `probability` of the best), or all values by the name of what they are, or `error`. Of a network with
    thresholds each guess says whether it is `accepted`, and a row whether `none_of_these` is; see
    `pictures.thresholds`.

    Attributes:
        photographs: their files.
        workers: processes at once; 0 for this one alone.
        engine: `processes` or `ray`.
        ordered: whether the rows come in the order of the photographs; else as they are ready.
        quiet: no progress bar where a file is written.
        digest: what tells the model from others when a file is gone on with; None for the content of its file.
    """

    runner: Runner = field(repr=False)
    question: Question = field(repr=False)
    shape: Shape = field(repr=False)
    photographs: Sequence[Photograph] = field(repr=False)
    workers: int
    engine: str = "processes"
    ordered: bool = True
    quiet: bool = False
    digest: str | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.photographs)

    def __iter__(self) -> Iterator[Row]:
        for start, answers in self._answers(self._runs(), ordered=self.ordered):
            yield from self._rows(start, answers)

    def answers(self) -> Iterator[tuple[int, Answers]]:
        """The answers as arrays, a run of photographs at a time, as they are ready: the first one's place, and they."""
        yield from self._answers(self._runs(), ordered=False)

    def table(self) -> Any:
        """All rows as a `pyarrow.Table` in memory, in the order of the photographs.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        answered = sorted(self._answers(self._runs(), ordered=False), key=lambda found: found[0])
        return table_of([row for found in answered for row in self._rows(*found)], self.shape)

    def write(self, out: str | os.PathLike[str], *, overwrite: bool = False) -> Written:
        """Write a row for each photograph, in their order, to a file that appears whole.

        What was answered is kept in a folder `<out>.parts` until then, so that the same call goes on after
        a crash: no photograph is asked about again whose answer was kept, and none is left out.

        Args:
            out: a file that ends in `.parquet`, `.csv` or `.jsonl`.
            overwrite: replace it, if it exists.

        Returns:
            How many photographs there are, and how many could not be read.

        Raises:
            InvalidInputError: another ending; the file exists; another process writes it; what was begun
                there is of other photographs, another model or other options.
            ExportError: the disk is full or failed, or the workers cannot work.
        """
        final = Path(out)
        check_out(final)
        check_new(final, overwrite=overwrite)
        plan = Plan.of(self.photographs, self._digest(), self.shape.labels, self.question, RUN)
        with opened(final, plan) as parts:
            done = sum(min(RUN, len(self) - start) for start in parts.done)
            with Progress(quiet=self.quiet).bar("scoring", len(self), done=done) as advance:
                for start, answers in self._answers(self._runs(parts.done), ordered=False):
                    parts.record(start, answers)
                    advance(answers.count)
            with staged(final, overwrite=overwrite) as temporary:
                return self._write(parts, temporary, WRITERS[final.suffix.lower()])

    def _write(self, parts: Parts, path: Path, writer: Writer) -> Written:
        failed, errors = 0, []

        def rows() -> Iterator[Row]:
            nonlocal failed
            for start, answers in parts.in_order():
                for row in self._rows(start, answers):
                    if "error" in row:
                        failed += 1
                        errors.extend([row["error"]] if failed <= SHOWN else [])
                    yield row

        writer(rows(), path, self.shape)
        return Written(photographs=len(self), failed=failed, errors=tuple(errors))

    def _digest(self) -> str:
        return digest_of(self.runner.path) if self.digest is None else self.digest

    def _runs(self, done: Iterable[int] = ()) -> Iterator[Run]:
        for start in range(0, len(self.photographs), RUN):
            if start not in done:
                yield start, self.photographs[start : start + RUN]

    def _rows(self, start: int, answers: Answers) -> Iterator[Row]:
        for place, row in enumerate(answers.rows()):
            yield row_of(str(self.photographs[start + place]), *row, self.shape)

    def _answers(self, runs: Iterator[Run], *, ordered: bool) -> Iterator[tuple[int, Answers]]:
        """The answers for each run; what is to be said of its photographs is said."""
        answered: Generator[tuple[int, Answers], None, None]
        if self.workers:
            answered = Crew(self._maker(), self.workers, self.question).answers(runs, ordered=ordered)
        else:
            answered = answers_ahead(self.question, self.runner, runs)
        with closing(answered):
            for start, answers in answered:
                for place, remark in answers.remarks.items():
                    photograph = str(self.photographs[start + place])
                    warn(f"Expected a picture at {photograph!r} without a fault. It {remark}.")
                yield start, answers

    def _maker(self) -> Callable[[], Worker]:
        """What starts a worker."""
        path = self.runner.path
        if self.engine == "processes":
            return partial(LocalProcess, str(path), self.question)
        from .cluster import Actor, connected, contents_of

        return partial(Actor, connected().put(contents_of(path)), path.name, self.question)


def score(
    file: str | os.PathLike[str] | Runner,
    photographs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    top: int | None = 5,
    output: str | None = None,
    labels: Sequence[str] | None = None,
    size: int | None = None,
    workers: int | None = None,
    engine: str = "processes",
    ordered: bool = True,
    quiet: bool = True,
) -> Scores:
    """Ask an artefact about many photographs, each read as `load_image` reads it.

        for row in export.score("lite0.tflite", "photographs"): ...
        export.score("lite0.tflite", "list.csv").write("scores.parquet")    # goes on where it was interrupted
        table = export.score("embedding.onnx", paths, top=None).table()     # all values

    Workers are processes that read and compute, each with one thread. One that dies is replaced, and a picture
    that cannot be read costs only itself.

    Args:
        file: what `load` opens, or a runner; its class names and its way to read photographs are used.
        photographs: a folder, a CSV file with the column `file`, a picture, or an iterable of these.
        top: how many of the best classes; None for all values: probabilities, logits or an embedding.
        output: name of the output that is meant, where there are several.
        labels: class names, where the file has none or others are wanted.
        size: side of the pictures in pixels, where the file leaves it open.
        workers: processes; 0 for this one. Default: as many as cores, for TFLite and ONNX files and more
            photographs than one gets at once; Keras files and SavedModels compute in this process.
        engine: `"processes"` of this machine, or `"ray"`: actors of the cluster that this program is
            connected to, which see the same files.
        ordered: whether rows come in the order of the photographs. Files that are written have it always.
        quiet: no progress bar.

    Raises:
        InvalidInputError: a file that cannot be used; no photograph; an output without classes, and no
            `top=None`; labels that do not fit.
        MissingExtraError: what runs the file is not installed.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    named = [photographs] if isinstance(photographs, str | os.PathLike) else photographs
    files = photographs_in(named)
    if not files:
        raise InvalidInputError("Expected at least one photograph. Received: none.")
    runner = file if isinstance(file, Runner) else load(file)
    question, shape = asked_of(runner, top=top, output=output, labels=labels, size=size)
    return Scores(
        runner=runner,
        question=question,
        shape=shape,
        photographs=files,
        workers=workers_for(runner, len(files), workers, engine),
        engine=engine,
        ordered=ordered,
        quiet=quiet,
    )


def check_out(out: Path) -> None:
    """Make sure that a file of this name can be written, before anything is computed.

    Raises:
        InvalidInputError: its ending is of no kind that is written.
        MissingExtraError: what writes it is not installed.
    """
    if out.suffix.lower() not in WRITERS:
        *most, last = WRITERS
        raise InvalidInputError(
            f"Expected --out as a file that ends in {', '.join(most)} or {last}. Received: {str(out)!r}."
        )
    if out.suffix.lower() == ".parquet":
        require_installed("pyarrow", "score")


def asked_of(
    runner: Runner,
    *,
    top: int | None,
    output: str | None = None,
    labels: Sequence[str] | None = None,
    size: int | None = None,
) -> tuple[Question, Shape]:
    """The question to each photograph, and what the rows of its answers hold; arguments as of `score`."""
    name, kind, told, thresholds = _output(runner, output)
    if kind is MAP or (top is not None and kind is EMBEDDING):
        advice = " Pass top=None (--all) for its values." if kind is EMBEDDING else ""
        raise InvalidInputError(
            f"Expected a model with one output of classes. Received: {str(runner.path)!r}, which gives "
            f"{'an embedding' if kind is EMBEDDING else 'a map'}.{advice}"
        )
    side = _side(runner, size)
    made = runner.answers(np.zeros((1, side, side, runner.channels), np.uint8))[name]
    columns = int(made.shape[-1])
    said = tuple(labels or told)
    if columns == 1 and (len(said) == 2 or kind is SIGMOID):
        columns = 2
    names = tuple(map(str, range(columns))) if kind is EMBEDDING else said or numbered_labels(columns)
    if len(check_lines(names)) != columns:
        raise InvalidInputError(
            f"Expected {columns} class names, one for each column. Received: {len(names)}."
        )
    question = Question(
        framing=runner.framing,
        size=side,
        output=name,
        columns=columns,
        top=top,
        thresholds=thresholds,
        inside=runner.read is not None,
    )
    values = "probabilities" if kind.is_probability else kind.name
    return question, Shape(values=values if top is None else None, labels=names, thresholds=thresholds)


def _output(runner: Runner, wanted: str | None) -> tuple[str, Any, Sequence[str], tuple[float, ...]]:
    """Name, kind, class names and thresholds of the output that is meant."""
    if wanted is not None and wanted not in runner.names:
        raise unknown_name("output", wanted, runner.names)
    if wanted is None and len(runner.names) > 1:
        raise InvalidInputError(
            f"Expected a model with one output of classes. Received: {str(runner.path)!r} with "
            f"{len(runner.names)}: {', '.join(runner.names)}. Name the one that is meant: output=… (--output)."
        )
    name = wanted or runner.names[0]
    told = {output.name: output for output in runner.outputs}
    if name not in told:
        return name, CLASSES, runner.labels, ()
    labels = told[name].labels if len(runner.names) > 1 else runner.labels
    return name, told[name].meaning, labels, told[name].thresholds


def _side(runner: Runner, size: int | None) -> int:
    height, width = runner.size
    fixed = height or width
    if (height is not None and width is not None and height != width) or (size and fixed not in (None, size)):
        raise InvalidInputError(
            f"Expected a file with a square input{f' of {size} pixels' if size else ''}. Received: "
            f"{str(runner.path)!r} with {height} × {width} pixels."
        )
    if not (fixed or size):
        raise InvalidInputError(
            f"Expected size= for {str(runner.path)!r}, which takes pictures of any size. Received: none."
        )
    return int(fixed or size or 0)


def workers_for(runner: Runner, photographs: int, wanted: int | None, engine: str) -> int:
    """How many processes are worth it, or as many as are wanted.

    Raises:
        InvalidInputError: processes for a model that is in no file which they could open; no cluster for Ray.
    """
    runs = -(-photographs // RUN)
    if (wanted or engine != "processes") and not runner.path.exists():
        raise InvalidInputError(
            f"Expected a file that other processes can open. Received: {str(runner.path)!r}, which is in memory "
            "alone. Export it first: keras-effnet export."
        )
    if engine == "ray":
        from .cluster import cluster_cores

        return max(1, min(runs, cluster_cores(), wanted or runs))
    if wanted is not None:
        return min(wanted, runs)
    if runs < 2 or runner.format in _ALONE:
        return 0
    return min(runs, cores())
