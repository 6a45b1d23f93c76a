"""`keras-effnet verify`: does this artefact still agree with the Keras model?"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from keras_effnet.commands.flags import (
    add_images,
    add_json,
    add_kinds,
    add_size,
    add_weights,
    check_directory,
    kinds_of,
    read_photographs,
    weights_of,
)
from keras_effnet.commands.models import (
    ARTEFACTS,
    NETWORKS,
    Choice,
    check_weights,
    choose,
    classes_in,
    side_of,
)
from keras_effnet.errors import InvalidInputError, counted
from keras_effnet.export import Report, load, verify
from keras_effnet.export.closeness import Closeness, shown_by
from keras_effnet.export.formats import ONNX, TFLITE
from keras_effnet.export.runners import Runner
from keras_effnet.export.targets import compares_values
from keras_effnet.export.verification import near_ties_of
from keras_effnet.pictures.framing import framing_of
from keras_effnet.system.quiet import check_backend, import_keras
from keras_effnet.weights.sources import check_source

NAME = "verify"
HELP = "compare exported files with the Keras model on photographs"
EXAMPLES = """\
  keras-effnet verify out/b0_float32.onnx out/b0_saved_model
  keras-effnet verify flowers_int8.tflite --model runs/flowers --images photographs/ --max-images 500

Exit code 0 says that on these photographs every figure was within its tolerance, and no more; 1 that one was
not. For float files eight photographs are enough: the numbers themselves are compared. Whether an integer file
picks the same class in 95 % of all photographs only many can show: with 8 that all agree it may still be 69 %
on others, with 59 that all agree, or 100 of which 99 do, it is 95 % (with 95 % confidence). With fewer
than 59, another class is no failure where it is a near-tie: the model itself finds it at least three quarters as
probable as its own. Sigmoids are judged by their yes or no, embeddings and maps by cosine, SQNR of each photograph and
nearest neighbours; --kind says what an output is where its layers do not show it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artefacts", nargs="+", metavar="ARTEFACT", help="files or SavedModel folders")
    parser.add_argument(
        "--model",
        metavar="VARIANT|FILE",
        help="variant, Keras file, SavedModel of Keras 2 or folder of a training run (default: the variant that the artefact names)",
    )
    add_weights(parser)
    add_images(parser, "eight built-in ones, enough for float files only")
    add_kinds(parser)
    add_size(parser)
    add_json(parser)


def check(arguments: argparse.Namespace) -> None:
    kinds_of(arguments)
    artefacts = [choose(text, ARTEFACTS, flag="ARTEFACT") for text in arguments.artefacts]
    arguments.choice = None
    if arguments.model is not None:
        arguments.choice = choose(arguments.model, NETWORKS)
        check_weights(arguments.choice, arguments)
    elif (weights := weights_of(arguments)) is not None:
        check_source(weights, None)  # of the variant that the artefact names, which only opening it tells
    if arguments.images is not None:
        check_directory(arguments.images, limit=arguments.max_images)
    arguments.opened = {}
    for artefact in artefacts if arguments.choice is None else ():
        if artefact.format in (TFLITE, ONNX):  # a SavedModel takes TensorFlow to be opened
            arguments.opened[artefact.text] = load(str(artefact.path))
            _network(arguments, artefact, arguments.opened[artefact.text])
    check_backend()


def run(arguments: argparse.Namespace) -> int:
    import_keras()
    reports = []
    for text in arguments.artefacts:
        artefact = choose(text, ARTEFACTS, flag="ARTEFACT")
        runner = arguments.opened.pop(text, None) or load(str(artefact.path))
        model = _model(arguments, artefact, runner)
        variant = runner.info.variant if runner.info else None
        size = side_of(text, _sides(runner, model), arguments.size, variant)
        images, files = read_photographs(
            arguments.images, size, framing_of(model), limit=arguments.max_images
        )
        kinds = kinds_of(arguments)
        reports.append(
            verify(model, str(artefact.path), images, kinds=kinds, photographs=files, raise_on_failure=False)
        )
    show(reports, as_json=arguments.json)
    return 0 if all(report.ok for report in reports) else 1


def _model(arguments: argparse.Namespace, artefact: Choice, runner: Runner) -> Any:
    """The Keras model to compare with, at the size of the artefact."""
    height, width = runner.size
    shape = (height, width, runner.channels) if height and width else None
    return _network(arguments, artefact, runner).model(arguments, input_shape=shape)


def _network(arguments: argparse.Namespace, artefact: Choice, runner: Runner) -> Choice:
    """What the artefact was made from: `--model`, or the variant that it names."""
    given: Choice | None = arguments.choice
    if given is not None:
        return given
    if runner.info is None or runner.info.variant is None:
        raise InvalidInputError(
            f"Expected --model for {artefact.text!r}, which does not name its variant. Received: none. "
            "Pass the variant, the Keras file or the folder of the training that it was exported from."
        )
    choice = choose(runner.info.variant, NETWORKS)
    check_weights(choice, arguments)
    wanted = classes_in(weights_of(arguments))
    if runner.labels and len(runner.labels) != wanted:
        raise InvalidInputError(
            f"Expected --model FILE for {artefact.text!r}, which has {len(runner.labels)} classes. Received: none, "
            f"and weights of {wanted}. Pass the Keras file or the folder of the training that it was exported from, or "
            "--weights FILE."
        )
    return choice


def _sides(runner: Runner, model: Any) -> tuple[int | None, int | None]:
    """(H, W) of the artefact, or of its model where the artefact takes any."""
    height, width = (one or other for one, other in zip(runner.size, model.input_shape[1:3], strict=True))
    return height, width


def show(reports: list[Report], *, as_json: bool) -> None:
    shown = [shown_by(report.outputs) for report in reports]
    if as_json:
        rows = [
            json.loads(report.to_json()) | {"shown_agreement": share}
            for report, share in zip(reports, shown, strict=True)
        ]
        print(json.dumps(rows, indent=2))
        return
    for report, share in zip(reports, shown, strict=True):
        print(
            f"{'✓' if report.ok else '✗'} {report.file} ({report.recipe}): {agreed(report)}{decibels(report.sqnr_db)}, "
            f"largest error {report.max_abs_error:.1e}. {' '.join(report.failures)}".rstrip()
        )
        for line in spread(report):
            print(f"  {line}")
        if share is not None and not compares_values(report.recipe):
            print(
                f"  For others like them, {_cases(report)} show an agreement of at least {share:.0%} "
                "(95 % confidence); --images DIR with more photographs shows more."
            )


def _cases(report: Report) -> str:
    """What the agreement of the worst output rests on: `8 of 8`."""
    worst = min(
        (each for each in report.outputs if each.agreement is not None),
        key=lambda each: each.agreement or 0.0,
    )
    return f"{math.floor((worst.agreement or 0.0) * worst.judged_by + 1e-6)} of {worst.judged_by}"


def agreed(report: Report) -> str:
    """On how many photographs an artefact decides as its model does; empty where nothing is decided."""
    if report.agreement is None:
        return ""
    what = "same class" if report.top1_agreement is not None else "same decision"
    agreeing = round(report.agreement * report.images)
    return (
        f"{what} in {agreeing} of {counted(report.images, 'photograph')} "
        f"({report.agreement:.1%}{near_ties_of(report)}), "
    )


def decibels(value: float) -> str:
    return "exact" if math.isinf(value) else f"SQNR {value:.0f} dB"


def _decided(output: Closeness) -> str:
    return "" if output.agreement is None else f"{output.agreement:.1%} the same decision, "


def spread(report: Report) -> list[str]:
    """How an artefact does over the photographs, a line for each output that says more than a best class."""
    lines = [
        f"photographs' files, read inside: {_decided(each)}largest difference {each.max_abs_error:.1e}, SQNR of a "
        f"photograph: median {each.median_sqnr_db:.0f} dB, worst {each.worst_sqnr_db:.0f}"
        for each in report.reading
    ]
    if compares_values(report.recipe):
        return lines
    for output in report.outputs:
        if output.agreement is not None and len(report.outputs) == 1:
            continue
        decided = _decided(output)
        near = (
            ""
            if output.same_neighbour is None
            else f"nearest neighbour {output.same_neighbour:.1%} the same, "
        )
        lines.append(
            f"{output.name}, {output.kind}: {decided}{near}SQNR of a photograph: median "
            f"{output.median_sqnr_db:.0f} dB, 5th percentile {output.low_sqnr_db:.0f}, worst {output.worst_sqnr_db:.0f}"
        )
    return lines
