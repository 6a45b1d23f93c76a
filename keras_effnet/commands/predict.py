"""`keras-effnet predict`: what is on these photographs?"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.commands.flags import (
    add_json,
    add_labels,
    add_quiet,
    add_size,
    add_weights,
    whole_number,
)
from keras_effnet.commands.models import (
    ALL,
    KERAS,
    VARIANT,
    Choice,
    choose_network,
    read_labels,
    side_of,
)
from keras_effnet.errors import InvalidInputError, counted
from keras_effnet.export import load
from keras_effnet.export.kinds import EMBEDDING, MAP
from keras_effnet.export.outputs import outputs_of
from keras_effnet.pictures.folders import list_images
from keras_effnet.pictures.framing import Framing, framing_of
from keras_effnet.pictures.labels import both_sides, classes_of, known_labels, labels_of, numbered_labels
from keras_effnet.system.files import check_new, check_writable, staged
from keras_effnet.system.progress import Progress
from keras_effnet.system.quiet import check_backend

NAME = "predict"
HELP = "classify photographs with a variant, a Keras file or an exported file"
EXAMPLES = """\
  keras-effnet predict cat.jpg dog.png
  keras-effnet predict holiday/ --model b0_int8.tflite --top 1 --out holiday.csv
  keras-effnet predict cat.jpg --model runs/flowers --json

A picture that cannot be read costs only itself: it is named on the error output, has an "error" in JSON and
CSV, and makes the exit code 1 instead of 0. Where none can be read, nothing is loaded and the code is 2."""
BATCH = 8  # pictures at a time; more are not faster on a CPU
OUTPUTS = (".csv", ".jsonl")
COLUMNS = ("file", "rank", "class_index", "label", "probability", "error")

Result = dict[str, Any]  # "file", and "predictions" or "error"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE|DIR", help="photographs, and folders of them (with all below)"
    )
    parser.add_argument(
        "--model",
        metavar="VARIANT|FILE",
        help="a variant (default: the one that --weights FILE is of, else lite0), a Keras file, the folder of a "
        "training run, or an exported file",
    )
    add_weights(parser)
    parser.add_argument("--top", type=whole_number(1), default=5, help="how many classes (default: 5)")
    add_labels(parser)
    add_size(parser)
    parser.add_argument(
        "--out", metavar="FILE.csv|.jsonl", help="write a row for each guess (CSV) or picture (JSON lines)"
    )
    parser.add_argument("--force", action="store_true", help="replace an --out that exists")
    add_quiet(parser)
    add_json(parser)


def check(arguments: argparse.Namespace) -> None:
    if arguments.out is not None:
        if Path(arguments.out).suffix.lower() not in OUTPUTS:
            raise InvalidInputError(
                f"Expected --out as a file that ends in {' or '.join(OUTPUTS)}. Received: {arguments.out!r}."
            )
        out = Path(arguments.out).expanduser()
        check_new(out, overwrite=arguments.force)
        check_writable(out)
    if arguments.labels is not None:
        read_labels(arguments.labels)
    arguments.choice = choose_network(arguments, ALL)
    if arguments.choice.format in (VARIANT, KERAS):
        check_backend()
    arguments.paths = list(dict.fromkeys(_paths(arguments.images)))
    _check_readable(arguments.paths)


def run(arguments: argparse.Namespace) -> int:
    classifier = _classifier(arguments.choice, arguments)
    results = _results(classifier, arguments)
    if arguments.out is not None:
        failed = _write(results, Path(arguments.out).expanduser(), force=arguments.force)
        print(f"{counted(len(arguments.paths) - failed, 'photograph')}: {arguments.out}")
    elif arguments.json:
        listed = list(results)
        print(json.dumps(listed, indent=2, ensure_ascii=False))
        failed = sum("error" in result for result in listed)
    else:
        failed = sum(map(_show, results))
    if failed:
        pictures = counted(len(arguments.paths), "picture")
        print(f"keras-effnet: {failed} of {pictures} could not be read", file=sys.stderr)
    return 1 if failed else 0


@dataclass(frozen=True)
class _Classifier:
    """What is asked, and how photographs are read for it.

    Attributes:
        scores: from uint8 `[N, size, size, C]` to float `[N, classes]`.
        size: side of the pictures in pixels.
        framing: how they are read.
        labels: names of the classes.
    """

    scores: Callable[[Any], Any]
    size: int
    framing: Framing
    labels: tuple[str, ...]


def _classifier(choice: Choice, arguments: argparse.Namespace) -> _Classifier:
    if choice.format in (VARIANT, KERAS):
        model = choice.model(arguments)
        _check_classifies(choice, [(output.name, output.kind) for output in outputs_of(model)])
        size = choice.side_for(model, model.input_shape[1:3], arguments.size)
        classes, carried = classes_of(model), labels_of(model)
        labels = choice.labels_for(arguments.labels, classes, carried=carried, known=known_labels(model))
        return _Classifier(lambda pixels: model.predict(pixels, verbose=0), size, framing_of(model), labels)
    runner = load(str(choice.path))
    told = {output.name: output.kind for output in runner.info.outputs} if runner.info else {}
    _check_classifies(choice, [(name, told.get(name, "")) for name in runner.names])
    size = side_of(choice.text, runner.size, arguments.size, runner.info.variant if runner.info else None)
    classes = len(runner.labels) or int(
        runner(np.zeros((1, size, size, runner.channels), np.uint8)).shape[-1]
    )
    given = arguments.labels and read_labels(arguments.labels, classes)
    return _Classifier(runner, size, runner.framing, given or runner.labels or numbered_labels(classes))


def _check_classifies(choice: Choice, outputs: Sequence[tuple[str, str]]) -> None:
    """Make sure that there is one output, and that it says something of classes."""
    if len(outputs) > 1:
        received = f"{choice.text!r} with {len(outputs)}: {', '.join(name for name, _ in outputs)}"
    elif outputs[0][1] in (EMBEDDING.name, MAP.name):
        received = f"{choice.text!r}, which gives an {outputs[0][1]}".replace("an map", "a map")
    else:
        return
    raise InvalidInputError(
        f"Expected a model with one output of classes. Received: {received}. In Python, "
        "keras_effnet.export.load(path)(pixels) gives what it says, several outputs by name."
    )


def _paths(named: Sequence[str]) -> Iterator[Path]:
    """The files that are named, and the pictures in the folders that are."""
    for name in named:
        path = Path(name).expanduser()
        if path.is_dir():
            yield from list_images(path)
        else:
            yield path


def _check_readable(paths: Sequence[Path]) -> None:
    """Make sure that there is a picture at all; where none can be read, the reason of the first one is raised."""
    first = None
    for path in paths:
        try:
            Framing().read(path, 32)
        except InvalidInputError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise first


def _results(classifier: _Classifier, arguments: argparse.Namespace) -> Iterator[Result]:
    """What is on each picture, in their order; or why it cannot be read, which is also told."""
    shown = arguments.json or arguments.out is not None  # else the guesses themselves appear as they come
    progress = Progress(quiet=arguments.quiet or not shown)
    with progress.bar("classifying", len(arguments.paths)) as advance:
        for start in range(0, len(arguments.paths), BATCH):
            pixels, results = [], []
            for path in arguments.paths[start : start + BATCH]:
                result: Result = {"file": str(path)}
                try:
                    pixels.append(classifier.framing.read(path, classifier.size))
                except InvalidInputError as error:
                    print(f"keras-effnet: {error}", file=sys.stderr)
                    result["error"] = str(error)
                results.append(result)
            answers = np.asarray(classifier.scores(np.stack(pixels))) if pixels else np.empty((0, 1))
            scores = iter(both_sides(answers, len(classifier.labels)))
            for result in results:
                if "error" not in result:
                    result["predictions"] = _guesses(next(scores), classifier.labels, arguments.top)
                yield result
                advance(1)


def _guesses(scores: Any, labels: Sequence[str], top: int) -> list[dict[str, Any]]:
    best = np.argsort(scores)[::-1][:top]
    return [
        {"class_index": int(index), "label": labels[index], "probability": float(scores[index])}
        for index in best
    ]


def _show(result: Result) -> bool:
    """Print a picture's guesses; whether there are none."""
    if "error" in result:
        return True
    print(result["file"])
    for guess in result["predictions"]:
        filled = "█" * round(guess["probability"] * 20)
        print(f"  {guess['probability']:7.2%}  {filled:<20}  {guess['label']}")
    return False


def _write(results: Iterable[Result], out: Path, *, force: bool) -> int:
    """Write the results as they come to a file that appears whole; how many are errors."""
    failed = 0
    with staged(out, overwrite=force) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS)
        if out.suffix.lower() == ".csv":
            rows.writeheader()
        for result in results:
            failed += "error" in result
            if out.suffix.lower() == ".jsonl":
                file.write(json.dumps(result, ensure_ascii=False) + "\n")
                continue
            if "error" in result:
                rows.writerow(result)
            for rank, guess in enumerate(result.get("predictions", ()), start=1):
                rows.writerow({"file": result["file"], "rank": rank} | guess)
    return failed
