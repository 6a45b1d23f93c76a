"""`keras-effnet predict`: what is on these photographs?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from keras_effnet.commands.flags import (
    add_json,
    add_labels,
    add_quiet,
    add_size,
    add_weights,
    check_any,
    whole_number,
)
from keras_effnet.commands.models import (
    ALL,
    KERAS,
    VARIANT,
    Choice,
    choose_network,
    read_labels,
)
from keras_effnet.commands.printing import INTERRUPTED, TERMINATED
from keras_effnet.commands.runners import runner_for
from keras_effnet.errors import InvalidInputError, counted, require_installed
from keras_effnet.export.scoring import ENGINES, Scores, asked_of, check_out, workers_for
from keras_effnet.export.scoring.tables import Row
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import photographs_in
from keras_effnet.pictures.thresholds import NONE_OF_THESE
from keras_effnet.system.files import check_new, check_writable
from keras_effnet.system.progress import Progress
from keras_effnet.system.quiet import check_backend
from keras_effnet.system.signals import Terminated, terminable

NAME = "predict"
HELP = "classify photographs with a variant, a Keras file or an exported file"
EXAMPLES = """\
  keras-effnet predict cat.jpg dog.png
  keras-effnet predict holiday/ --model b0_int8.tflite --top 1 --out holiday.csv
  keras-effnet predict list.csv --model b0_float32.onnx --all --out scores.parquet
  keras-effnet predict cat.jpg --model runs/flowers --json

A picture that cannot be read costs only itself: it is named on the error output, has an "error" in JSON and
in --out, and makes the exit code 1 instead of 0. Where none can be read, nothing is loaded and the code is 2.
A network with thresholds answers "none of these" where no class reaches its own.
With --out, a command that was interrupted or killed goes on where it stopped when it is repeated."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE|DIR|CSV",
        help="photographs, folders of them (with all below), CSV files with a column 'file', tfds:NAME, hf:NAME",
    )
    parser.add_argument(
        "--model",
        metavar="VARIANT|FILE",
        help="a variant (default: the one that --weights FILE is of, else lite0), a Keras file, the folder of a "
        "training run, or an exported file",
    )
    add_weights(parser)
    parser.add_argument("--top", type=whole_number(1), default=5, help="how many classes (default: 5)")
    parser.add_argument(
        "--all", action="store_true", help="all values instead: each class's probability, or an embedding"
    )
    parser.add_argument("--output", metavar="NAME", help="the output that is meant, where there are several")
    add_labels(parser)
    add_size(parser)
    parser.add_argument(
        "--out",
        metavar="FILE.parquet|.csv|.jsonl",
        help="write a row for each picture, in their order (CSV: for each guess); Parquet needs the extra 'score'",
    )
    parser.add_argument("--force", action="store_true", help="replace an --out that exists")
    _add_engine(parser)
    add_quiet(parser)
    add_json(parser)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=whole_number(0),
        metavar="N",
        help="processes that read and compute; 0 for this one alone (default: as many as cores for TFLite and "
        "ONNX files; Keras files and SavedModels compute in this process)",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="who works: processes of this machine (default), or ray: the cluster of RAY_ADDRESS, whose nodes see "
        "the same files (extra 'ray')",
    )


def check(arguments: argparse.Namespace) -> None:
    if arguments.out is not None:
        out = Path(arguments.out).expanduser()
        check_out(out)
        check_new(out, overwrite=arguments.force)
        check_writable(out)
    if arguments.engine == "ray":
        require_installed("ray", "ray")
    if arguments.out is None and arguments.all and not arguments.json:
        raise InvalidInputError("Expected --out FILE or --json for all values. Received: --all alone.")
    if arguments.labels is not None:
        read_labels(arguments.labels)
    arguments.choice = choose_network(arguments, ALL)
    if arguments.choice.format in (VARIANT, KERAS):
        check_backend()
    arguments.paths = photographs_in(arguments.images)
    # a picture that can be read at all
    check_any(lambda path: Framing().read(path, 32, silent=True), arguments.paths)


def run(arguments: argparse.Namespace) -> int:
    scores = _scores(arguments.choice, arguments)
    if arguments.out is not None:
        try:
            with terminable():
                failed = _write(scores, Path(arguments.out).expanduser(), force=arguments.force)
        except KeyboardInterrupt as stop:
            print("keras-effnet: interrupted; the same command goes on where it stopped", file=sys.stderr)
            return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
        print(f"{counted(len(scores) - failed, 'photograph')}: {arguments.out}")
    elif arguments.json:
        listed = list(_told(scores, quiet=arguments.quiet))
        print(json.dumps(listed, indent=2, ensure_ascii=False))
        failed = sum("error" in row for row in listed)
    else:
        failed = sum(map(_show, _told(scores, quiet=True)))  # the guesses themselves appear as they come
    if failed:
        pictures = counted(len(scores), "picture")
        print(f"keras-effnet: {failed} of {pictures} could not be read", file=sys.stderr)
    return 1 if failed else 0


def _scores(choice: Choice, arguments: argparse.Namespace) -> Scores:
    """What is asked, of whom."""
    runner, labels, size = runner_for(choice, arguments, arguments.size)
    top = None if arguments.all else arguments.top
    question, shape = asked_of(runner, top=top, output=arguments.output, labels=labels, size=size)
    return Scores(
        runner=runner,
        question=question,
        shape=shape,
        photographs=arguments.paths,
        workers=workers_for(runner, len(arguments.paths), arguments.workers, arguments.engine),
        engine=arguments.engine,
        quiet=arguments.quiet,
        digest=None if choice.path else f"{choice.name} {arguments.weights} {arguments.preprocessing}",
    )


def _told(scores: Scores, *, quiet: bool) -> Iterator[Row]:
    """The rows as they come, with a bar; why a picture cannot be read is told at once."""
    with Progress(quiet=quiet).bar("scoring", len(scores)) as advance:
        for row in scores:
            if "error" in row:
                print(f"keras-effnet: {row['error']}", file=sys.stderr)
            yield row
            advance(1)


def _show(row: Row) -> bool:
    """Print a picture's guesses; whether there are none."""
    if "error" in row:
        return True
    print(row["file"])
    if row.get("none_of_these"):
        print(f"  {NONE_OF_THESE}")
    for guess in row["predictions"]:
        filled = "█" * round(guess["probability"] * 20)
        below = "" if guess.get("accepted", True) else "  (below its threshold)"
        print(f"  {guess['probability']:7.2%}  {filled:<20}  {guess['label']}{below}")
    return False


def _write(scores: Scores, out: Path, *, force: bool) -> int:
    """Write all rows, and list the first pictures that could not be read; how many there are."""
    written = scores.write(out, overwrite=force)
    for error in written.errors:
        print(f"keras-effnet: {error}", file=sys.stderr)
    if more := written.failed - len(written.errors):
        print(f"keras-effnet: and {more:,} more, which are in {str(out)!r}", file=sys.stderr)
    return written.failed
