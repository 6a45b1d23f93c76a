"""`keras-effnet export`: variants to verified artefacts with a report."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_effnet.commands.flags import (
    add_images,
    add_json,
    add_kinds,
    add_labels,
    add_quiet,
    add_size,
    add_weights,
    check_directory,
    expanded_path,
    folder_path,
    kinds_of,
    read_photographs,
    share,
)
from keras_effnet.commands.models import NETWORKS, Choice, check_weights, choose, read_labels
from keras_effnet.commands.printing import table
from keras_effnet.commands.verify import spread
from keras_effnet.errors import InvalidInputError, counted
from keras_effnet.export.closeness import shown_by
from keras_effnet.export.formats import ONNX, SAVED_MODEL, TFLITE
from keras_effnet.export.options import (
    BATCHINGS,
    INPUT_TYPES,
    JPEG_OPSET,
    LAYOUTS,
    NEWEST_OPSET,
    OLDEST_OPSET,
    ONNX_INPUTS,
    ONNX_RUNTIMES,
    OPSET,
    OUTPUT_TYPES,
    Options,
)
from keras_effnet.export.pipeline import Artefact, Job, check_paths, export_job, final_path
from keras_effnet.export.report import require_html, write_reports
from keras_effnet.export.targets import (
    INTEGER,
    TARGETS,
    check_installed,
    check_options,
    compares_values,
    parse_target,
)
from keras_effnet.export.verification import near_ties_of
from keras_effnet.network.variants import B_SERIES
from keras_effnet.pictures.framing import Framing, framing_of
from keras_effnet.system.progress import Progress
from keras_effnet.system.quiet import check_backend, import_keras
from keras_effnet.system.resources import release

NAME = "export"
HELP = "export variants or Keras files to SavedModel, TFLite and ONNX, each file verified against the Keras model"
EXAMPLES = """\
  keras-effnet export b0 --out out
  keras-effnet export lite0 --to tflite:int8 onnx:int8 --calibration photographs/ --out out
  keras-effnet export runs/flowers --to tflite:int8 --calibration photographs/ --images others/ --out out"""
ENOUGH_TO_SPLIT = 8  # photographs; fewer are all used for calibration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "variants",
        nargs="+",
        metavar="VARIANT|FILE",
        help="b0 … b7, lite0 … lite4, 'all' for B0-B7, a Keras file, a SavedModel of Keras 2, or the folder of a training run",
    )
    add_weights(parser)
    parser.add_argument(
        "--to",
        nargs="+",
        default=["saved_model", "tflite:float32", "onnx:float32"],
        metavar="TARGET",
        help=f"{SAVED_MODEL}, {_recipes_of(TFLITE)}, {_recipes_of(ONNX)}",
    )
    parser.add_argument(
        "--calibration", type=expanded_path, metavar="DIR", help="photographs to choose integer ranges from"
    )
    add_images(parser, "every second one of --calibration, else eight built-in ones")
    add_labels(parser)
    add_kinds(parser)
    add_size(parser)
    _add_onnx(parser)
    _add_integers(parser)
    parser.add_argument(
        "--out",
        required=True,
        type=folder_path,
        metavar="DIR",
        help="folder for the artefacts and the report",
    )
    parser.add_argument("--force", action="store_true", help="replace artefacts that exist")
    parser.add_argument("--keep-failed", action="store_true", help="keep files that failed verification")
    parser.add_argument("--no-html", action="store_true", help="write report.json only")
    add_quiet(parser)
    add_json(parser)


def _recipes_of(format_: str) -> str:
    """The targets of a format: `onnx:{float32,int8}`."""
    return f"{format_}:{{{','.join(row.recipe for row in TARGETS.values() if row.format == format_)}}}"


def _add_onnx(parser: argparse.ArgumentParser) -> None:
    """How ONNX files are written."""
    parser.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help="input layout of ONNX files")
    parser.add_argument(
        "--onnx-batching",
        choices=BATCHINGS,
        default=BATCHINGS[0],
        help="compute a batch at once (GPUs) or one picture after the other (faster on CPUs)",
    )
    parser.add_argument(
        "--onnx-runtime",
        choices=ONNX_RUNTIMES,
        default=ONNX_RUNTIMES[0],
        help="what opens the int8 file (default: onnxruntime)",
    )
    parser.add_argument(
        "--onnx-first-integer",
        metavar="LAYER",
        help="onnx:int8: beginning of the name of the first layer in integers, such as block5, or stem for all "
        "(default: the fastest on this machine)",
    )
    parser.add_argument(
        "--onnx-opset",
        type=int,
        metavar="N",
        help=f"version of the operators, {OLDEST_OPSET} to {NEWEST_OPSET} (default: {OPSET}; {JPEG_OPSET} for a JPEG)",
    )
    parser.add_argument(
        "--onnx-input",
        choices=ONNX_INPUTS,
        default=ONNX_INPUTS[0],
        help="what ONNX files take: pixels, or the bytes of one JPEG or PNG (extra 'onnx-jpeg')",
    )
    parser.add_argument("--onnx-input-name", metavar="NAME", help="of ONNX files (default: image)")
    parser.add_argument("--onnx-output-name", metavar="NAME", help="of ONNX files (default: probabilities)")


def _add_integers(parser: argparse.ArgumentParser) -> None:
    """How integer files are written."""
    parser.add_argument(
        "--min-agreement",
        type=share,
        metavar="SHARE",
        help="int8: agreement of the best class (of sigmoids: yes or no), 0-1, to reach by leaving the worst tensors in float",
    )
    parser.add_argument(
        "--input-type", choices=INPUT_TYPES, default=INPUT_TYPES[0], help="of integer TFLite files"
    )
    parser.add_argument(
        "--output-type",
        choices=OUTPUT_TYPES,
        default=OUTPUT_TYPES[0],
        help="of integer TFLite files; few clients open int8 (default: uint8)",
    )


def check(arguments: argparse.Namespace) -> None:
    check_backend(("tensorflow",))
    out = arguments.out
    arguments.choices = _choices(arguments)
    arguments.targets = list(dict.fromkeys(parse_target(target) for target in arguments.to))
    check_paths(
        [
            final_path(out, choice.name, target)
            for choice in arguments.choices
            for target in arguments.targets
        ],
        overwrite=arguments.force,
    )
    _check_photographs(arguments)
    if arguments.labels is not None:
        read_labels(arguments.labels)
    kinds_of(arguments)
    check_options(arguments.targets, _options(arguments))
    check_installed(arguments.targets)
    if not arguments.no_html:
        require_html()


def run(arguments: argparse.Namespace) -> int:
    out = arguments.out
    artefacts: list[Artefact] = []
    total = len(arguments.choices) * (len(arguments.targets) + 3)
    with Progress(quiet=arguments.quiet or arguments.json).steps(total) as step:
        for choice in arguments.choices:
            done = _export(choice, arguments, out, step)
            artefacts += done
            # after each of them, so that a stopped run still has a report of what it finished
            report = write_reports(done, out, html=not arguments.no_html)
    _show(artefacts, out, report, arguments)
    return 0 if all(artefact.ok for artefact in artefacts) else 1


def _choices(arguments: argparse.Namespace) -> list[Choice]:
    """The models to export, each once; their names must differ, since the files are named after them."""
    wanted = [
        name for given in arguments.variants for name in (B_SERIES if given.lower() == "all" else (given,))
    ]
    choices = {
        (choice.variant, choice.path): choice
        for choice in (choose(name, NETWORKS, flag="MODEL") for name in wanted)
    }
    names = [choice.name for choice in choices.values()]
    for choice in choices.values():
        check_weights(choice, arguments)
        if (alike := names.count(choice.name)) > 1:
            raise InvalidInputError(
                f"Expected different names, since artefacts are named after them. Received: {alike} models "
                f"called {choice.name!r}. Rename a file, or export them one by one."
            )
    return list(choices.values())


def _check_photographs(arguments: argparse.Namespace) -> None:
    """Is everything there that the targets need?"""
    for directory in (arguments.calibration, arguments.images):
        if directory is not None:
            check_directory(directory, limit=arguments.max_images)
    needing = [target.name for target in arguments.targets if target.integer]
    if needing and arguments.calibration is None:
        raise InvalidInputError(
            f"Expected --calibration DIR for {', '.join(needing)}. Received: none. Pass a folder with about a "
            "hundred photographs like those the model will see; labels are not needed."
        )


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        layout=arguments.layout,
        batching=arguments.onnx_batching,
        min_agreement=arguments.min_agreement,
        input_type=arguments.input_type,
        output_type=arguments.output_type,
        runtime=arguments.onnx_runtime,
        first_integer=arguments.onnx_first_integer,
        opset=arguments.onnx_opset,
        input=arguments.onnx_input,
        input_name=arguments.onnx_input_name,
        output_name=arguments.onnx_output_name,
    )


def _export(
    choice: Choice, arguments: argparse.Namespace, out: Path, step: Callable[[str], None]
) -> list[Artefact]:
    import_keras(("tensorflow",))
    import keras

    step(f"{choice.name}: building")
    model = choice.model(arguments)
    size = choice.side_for(model, model.input_shape[1:3], arguments.size)
    calibration, images, files = _photographs(size, framing_of(model), arguments)
    job = Job(
        model=model,
        name=choice.name,
        targets=arguments.targets,
        out=out,
        images=images,
        photographs=files,
        calibration=calibration,
        # of several outputs the exporter finds the one that they fit
        labels=arguments.labels
        and read_labels(arguments.labels, model.output_shape[-1] if len(model.outputs) == 1 else None),
        kinds=kinds_of(arguments),
        size=size if None in model.input_shape[1:3] else None,
        options=_options(arguments),
        overwrite=arguments.force,
        keep_failed=arguments.keep_failed,
    )
    artefacts = export_job(job, step)
    del model, job
    keras.backend.clear_session()  # eight variants in one process would otherwise add up
    release()
    return artefacts


def _photographs(size: int, framing: Framing, arguments: argparse.Namespace) -> tuple[Any, Any, list[Path]]:
    """What to calibrate with, what to verify on, and the files of the latter; never the same pictures if there are enough."""
    limit = arguments.max_images
    if arguments.calibration is None:
        return None, *read_photographs(arguments.images, size, framing, limit=limit)
    calibration, files = read_photographs(arguments.calibration, size, framing, limit=limit)
    if arguments.images is None and len(calibration) >= ENOUGH_TO_SPLIT:
        return calibration[::2], calibration[1::2], files[1::2]
    return calibration, *read_photographs(arguments.images, size, framing, limit=limit)


def _show(
    artefacts: list[Artefact], out: Path, report: dict[str, Any], arguments: argparse.Namespace
) -> None:
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    rows = [
        [
            artefact.file,
            f"{artefact.bytes / 1e6:.1f} MB",
            f"{artefact.latency_ms:.1f} ms",
            "–" if artefact.agreement is None else f"{artefact.agreement:.1%}",
            "exact" if math.isinf(artefact.sqnr_db) else f"{artefact.sqnr_db:.0f} dB",
            f"{artefact.max_abs_error:.1e}",
            "✓" if artefact.ok else "✗",
        ]
        for artefact in artefacts
    ]
    print(table(["artefact", "size", "one picture", "agreement", "SQNR", "largest error", "verified"], rows))
    for artefact in artefacts:
        if not artefact.ok:
            fate = "kept, as you asked" if artefact.kept else "not kept (--keep-failed keeps it)"
            print(f"{artefact.file}: {' '.join(artefact.failures)} The file was {fate}.", file=sys.stderr)
        if artefact.held_out_agreement is not None:
            steps = ", ".join(artefact.lifted) or "nothing"
            print(
                f"{artefact.file}: {artefact.held_out_agreement:.1%} the same decision on the photographs that were "
                f"kept back from calibration; left in float for it: {steps}"
            )
        if artefact.first_integer_ratios:
            tried = ", ".join(
                f"{place} {' and '.join(f'{ratio:.2f}' for ratio in ratios)}"
                for place, ratios in artefact.first_integer_ratios.items()
            )
            print(
                f"{artefact.file}: in integers from {artefact.first_integer} on; one picture and a batch, as a share "
                f"of float: {tried}"
            )
        if artefact.near_ties:
            print(f"{artefact.file}: {artefact.agreement:.1%} the same class{near_ties_of(artefact)}")
        for line in spread(artefact):
            print(f"{artefact.file}: {line}")
    *fewer, most = sorted({artefact.images for artefact in artefacts})
    print(f"verified on {', '.join([*map(str, fewer), counted(most, 'photograph')])}")
    judged = [
        share
        for artefact in artefacts
        if not compares_values(artefact.recipe) and (share := shown_by(artefact.outputs)) is not None
    ]
    if judged:
        shown = min(judged)
        print(
            f"so few show an agreement of integer files of at least {shown:.0%} on others like them (95 % "
            "confidence); more --images show more"
            if shown < (INTEGER.top1_agreement or 0)
            else f"which shows an agreement of integer files of at least {shown:.0%} (95 % confidence)"
        )
    print(f"report: {out / ('report.json' if arguments.no_html else 'report.html')}")
