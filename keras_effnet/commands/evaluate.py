"""`keras-effnet evaluate`: how good is this model, or this file, on photographs whose class is known?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from keras_effnet.commands.flags import (
    add_json,
    add_labels,
    add_quiet,
    add_weights,
    folder_path,
    whole_number,
)
from keras_effnet.commands.models import (
    ALL,
    NETWORKS,
    Choice,
    check_weights,
    choose,
    read_labels,
)
from keras_effnet.commands.printing import table
from keras_effnet.commands.runners import runner_for, runner_of_network
from keras_effnet.errors import InvalidInputError, counted
from keras_effnet.export.evaluation import Evaluation, check_extras, evaluate_candidates
from keras_effnet.export.evaluation.asking import Contender
from keras_effnet.network.resizing import at_size
from keras_effnet.pictures.folders import list_images
from keras_effnet.pictures.listing import find_data, read_judged
from keras_effnet.pictures.sources.rows import ALL as EVERY
from keras_effnet.pictures.sources.rows import SPLITS
from keras_effnet.pictures.strangers import strangers_in
from keras_effnet.reports import page
from keras_effnet.system.files import check_new, check_writable
from keras_effnet.system.quiet import check_backend

NAME = "evaluate"
HELP = "accuracy of models and exported files on photographs whose class is known"
EXAMPLES = """\
  keras-effnet evaluate lite0 photographs                       # a folder for each class, or a CSV file
  keras-effnet evaluate out/lite0_float32.onnx out/lite0_int8.tflite photographs --out report.html
  keras-effnet evaluate lite0 imagenet/val --size 192 224 256 288
  keras-effnet evaluate runs/flowers tfds:oxford_flowers102:test --json
  keras-effnet evaluate runs/clothes clothes --none others      # how many of others/ are refused
  keras-effnet evaluate runs/scenes scenes/list.csv             # several labels: dog|beach in the CSV file

Files side by side are judged by the same photographs: the difference of each from the first one comes with its 95 %
interval and the exact McNemar test. Of a folder with train/, validation/ and test/ the test photographs are used,
those for validation where there are none. Classes are matched by name, WordNet id (n01443537) or number from 0. A
photograph that cannot be read counts for nobody and makes the exit code 1. Files with thresholds are told apart by what
they accept too, and by how many of --none they refuse; a model of several labels is judged by all of them."""


# columns of the table, and which figures they are
_OF_ONE = {"top-1": "top1", "top-5": "top5", "mean per class": "mean_per_class"}
_OF_SEVERAL = {
    "mean average precision": "mean_average_precision",
    "all labels right": "exact",
    "right decisions": "accuracy",
}
_OF_THRESHOLDS = [("accepted", "coverage"), ("right of these", "precision"), ("strangers refused", "refused")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL|FILE",
        help="variants, Keras files, folders of training runs, exported files",
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="folder with a folder for each class, CSV file (file,label), or another source",
    )
    add_weights(parser)
    parser.add_argument(
        "--split",
        choices=(*SPLITS, EVERY),
        help="photographs to judge by, where they are split (default: test, else validation, else all)",
    )
    parser.add_argument(
        "--none",
        dest="strangers",
        type=folder_path,
        metavar="DIR",
        help='photographs of none of the classes, which the thresholds of the files are to refuse ("none of these")',
    )
    parser.add_argument(
        "--size",
        dest="sizes",
        nargs="+",
        type=whole_number(32),
        default=[],
        metavar="N",
        help="sides of the pictures in pixels; variants and Keras files are judged at each",
    )
    parser.add_argument("--output", metavar="NAME", help="the output that is meant, where there are several")
    add_labels(parser)
    parser.add_argument(
        "--out", metavar="FILE.html", help="write the report as one page, with pictures of mistakes"
    )
    parser.add_argument("--force", action="store_true", help="replace an --out that exists")
    parser.add_argument(
        "--workers", type=whole_number(0), metavar="N", help="processes that read and compute, as for predict"
    )
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(size=None)  # of commands with one


def check(arguments: argparse.Namespace) -> None:
    if arguments.out is not None:
        out = Path(arguments.out).expanduser()
        if out.suffix.lower() not in (".html", ".htm"):
            raise InvalidInputError(
                f"Expected --out as a file that ends in .html. Received: {arguments.out!r}."
            )
        page.check_extras("evaluate")
        check_new(out, overwrite=arguments.force)
        check_writable(out)
    check_extras()
    if arguments.labels is not None:
        read_labels(arguments.labels)
    arguments.choices = [choose(text, ALL, flag="MODEL|FILE") for text in arguments.models]
    networks = [choice for choice in arguments.choices if choice.format in NETWORKS]
    _check_weights(arguments)
    if len(arguments.sizes) > 1 and len(networks) < len(arguments.choices):
        file = next(choice for choice in arguments.choices if choice.format not in NETWORKS)
        raise InvalidInputError(
            f"Expected several sizes with variants and Keras files, which can be built for each. Received: "
            f"{file.text!r} with --size {' '.join(map(str, arguments.sizes))}. Export one file for each size."
        )
    if networks:
        check_backend()
    find_data(arguments.data)
    if arguments.strangers is not None:
        list_images(arguments.strangers)


def _check_weights(arguments: argparse.Namespace) -> None:
    """`--weights` are those of the variants; files have their own."""
    variants = [choice for choice in arguments.choices if choice.variant is not None]
    for choice in variants or arguments.choices:
        check_weights(choice, arguments)


def run(arguments: argparse.Namespace) -> int:
    listing = read_judged(arguments.data, split=arguments.split)
    evaluation = evaluate_candidates(
        _candidates(arguments),
        listing,
        data=arguments.data,
        strangers=arguments.strangers and strangers_in(arguments.strangers, listing.classes),
        output=arguments.output,
        workers=arguments.workers,
        quiet=arguments.quiet,
    )
    if arguments.json:
        print(evaluation.to_json())
    else:
        _show(evaluation)
    if arguments.out is not None:
        written = evaluation.write(Path(arguments.out).expanduser())
        print(f"report: {written}", file=sys.stderr if arguments.json else sys.stdout)
    unreadable = (*evaluation.unreadable, *evaluation.unreadable_strangers)
    for _, reason in unreadable:
        print(f"keras-effnet: {reason}", file=sys.stderr)
    if unreadable:
        strangers = evaluation.strangers.files if evaluation.strangers else ()
        pictures = counted(len(listing.files) + len(strangers), "picture")
        print(f"keras-effnet: {len(unreadable)} of {pictures} could not be read", file=sys.stderr)
    return 1 if unreadable else 0


def _candidates(arguments: argparse.Namespace) -> Iterator[Contender]:
    """What is evaluated, made one after the other."""
    for choice in arguments.choices:
        if choice.format in NETWORKS:
            yield from _networks(choice, arguments)
            continue
        runner, labels, size = runner_for(choice, arguments, next(iter(arguments.sizes), None))
        yield Contender(name=choice.text, runner=runner, labels=labels, size=size)


def _networks(choice: Choice, arguments: argparse.Namespace) -> Iterator[Contender]:
    """A variant, built for each size with the crop that its weights have there; or the model of a Keras file."""
    model = None
    for size in arguments.sizes or (None,):
        if model is None or choice.variant is not None:
            model = choice.model(arguments, input_shape=size and (size, size, 3))
        sized = model if size is None else at_size(model, size)
        runner, labels, side = runner_of_network(choice, sized, arguments, size)
        name = choice.text if size is None else f"{choice.text} at {size} px"
        yield Contender(name=name, runner=runner, labels=labels, size=side)


def _show(evaluation: Evaluation) -> None:
    """The figures as a table, and below it what two files differ by."""
    header, cells = (_OF_SEVERAL if evaluation.gives_several else _OF_ONE), []
    thresholds = any(result.thresholds for result in evaluation)
    columns = _OF_THRESHOLDS[: (3 if evaluation.strangers else 2) if thresholds else 0]
    for result in evaluation:
        row = result.row()
        told = [_percent(row[name]) for name in header.values()]
        worth = [_percent((row["accepted"] or {}).get(name)) for _, name in columns]
        cells.append([result.name, str(result.size), *told, f"{row['calibration_error']:.3f}", *worth])
    print(table(["file", "pixels", *header, "calibration error", *(title for title, _ in columns)], cells))
    split = "" if evaluation.split == EVERY else f"{evaluation.split} "
    read = len(evaluation.listing.files) - len(evaluation.unreadable)
    strangers = ""
    if evaluation.strangers is not None:
        count = len(evaluation.strangers.files) - len(evaluation.unreadable_strangers)
        strangers = f", and {counted(count, 'stranger')} of {evaluation.strangers.root}"
    print(f"on {counted(read, f'{split}photograph')} of {evaluation.data}{strangers}")
    first = evaluation.results[0].name
    for other, found in evaluation.differences():
        print(
            f"{other.name} less {first}: {found.difference:+.1%} (95 % interval {found.low:+.1%} to {found.high:+.1%}, "
            f"p = {found.p_value:.2g}); the same {'labels' if evaluation.gives_several else 'class'} for {found.same_guess:.1%}"
        )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
