"""`keras-effnet export`: variants to verified artefacts with a report."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_effnet.commands.options import (
    EVALUATION_LIMIT,
    add_json,
    add_quiet,
    add_weights,
    folder_name,
    read_directory,
    share,
    whole_number,
)
from keras_effnet.commands.table import table
from keras_effnet.system import memory

if TYPE_CHECKING:
    from keras_effnet.export.pipeline import Artefact
    from keras_effnet.export.recipes import Recipe
    from keras_effnet.network.variants import Variant
    from keras_effnet.pictures.framing import Framing

NAME = "export"
HELP = "export variants or Keras files to SavedModel, TFLite and ONNX, each file verified against the Keras model"
ENOUGH_TO_SPLIT = 8  # photographs; fewer are all used for calibration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "variants",
        nargs="+",
        metavar="VARIANT|FILE.keras",
        help="b0 … b7, lite0 … lite4, 'all' for B0-B7, or a saved Keras classifier",
    )
    add_weights(parser)
    parser.add_argument(
        "--to",
        nargs="+",
        default=["saved_model", "tflite:float32", "onnx:float32"],
        metavar="TARGET",
        help="saved_model, tflite:{float32,float16,weight_int8,int8,int16x8,int8_qat,int8_pruned,int8_clustered}, onnx:{float32,float16,int8}",
    )
    parser.add_argument("--calibration", metavar="DIR", help="photographs to choose integer ranges from")
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="photographs to verify on (default: every second one of --calibration, else eight built-in ones)",
    )
    parser.add_argument(
        "--max-images",
        type=whole_number(1),
        default=EVALUATION_LIMIT,
        metavar="N",
        help=f"photographs to read from a folder at most (default: {EVALUATION_LIMIT})",
    )
    parser.add_argument(
        "--layout", choices=["nchw", "nhwc"], default="nchw", help="input layout of ONNX files"
    )
    parser.add_argument(
        "--onnx-batching",
        choices=["whole", "each"],
        default="whole",
        help="compute a batch at once (GPUs) or one picture after the other (faster on CPUs)",
    )
    parser.add_argument(
        "--min-agreement",
        type=share,
        metavar="SHARE",
        help="int8: top-1 agreement, 0-1, to reach by leaving the worst tensors in float",
    )
    parser.add_argument(
        "--input-type", choices=["uint8", "int8"], default="uint8", help="of integer TFLite files"
    )
    parser.add_argument(
        "--output-type", choices=["int8", "float32"], default="int8", help="of integer TFLite files"
    )
    parser.add_argument(
        "--out",
        required=True,
        type=folder_name,
        metavar="DIR",
        help="folder for the artefacts and the report",
    )
    parser.add_argument("--force", action="store_true", help="replace artefacts that exist")
    parser.add_argument("--keep-failed", action="store_true", help="keep files that failed verification")
    parser.add_argument("--no-html", action="store_true", help="write report.json only")
    add_quiet(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from keras_effnet.export.pipeline import check_paths, final_path
    from keras_effnet.export.recipes import check_installed, parse_target
    from keras_effnet.export.report import require_html, write_reports
    from keras_effnet.export.tflite import check_options
    from keras_effnet.system.quiet import import_keras

    out = Path(arguments.out).expanduser()
    givens = _givens(arguments)
    recipes = list(dict.fromkeys(parse_target(target) for target in arguments.to))
    check_paths(
        [final_path(out, given.name, recipe) for given in givens for recipe in recipes],
        overwrite=arguments.force,
    )
    _check_calibration(recipes, arguments)
    for recipe in recipes:
        check_options(recipe, arguments.min_agreement, arguments.input_type, arguments.output_type)
    check_installed(recipes)
    if not arguments.no_html:
        require_html()
    import_keras()
    artefacts: list[Artefact] = []
    bar = _progress(len(givens) * (len(recipes) + 3), quiet=arguments.quiet or arguments.json)
    with bar:
        for given in givens:
            done = _export(given, recipes, arguments, out, bar)
            artefacts += done
            # after each of them, so that a stopped run still has a report of what it finished
            report = write_reports(done, out, html=not arguments.no_html)
    _show(artefacts, out, report, arguments)
    return 0 if all(artefact.ok for artefact in artefacts) else 1


@dataclass(frozen=True)
class _Given:
    """What to export, before anything is built.

    Attributes:
        name: first part of the file names.
        source: a variant, or the `.keras` file of a classifier.
    """

    name: str
    source: Variant | Path

    @classmethod
    def of(cls, text: str) -> _Given:
        from keras_effnet.commands.models import KERAS_SUFFIX, check_keras_file
        from keras_effnet.network.variants import get_variant

        path = Path(text).expanduser()
        if path.suffix != KERAS_SUFFIX:
            variant = get_variant(text)
            return cls(variant.name, variant)
        check_keras_file(path)
        return cls(path.stem, path)

    def model(self, arguments: argparse.Namespace) -> Any:
        """Build or read it; its input is square and of known size."""
        from keras_effnet.commands.models import build, load_keras
        from keras_effnet.errors import InvalidInputError

        if not isinstance(self.source, Path):
            return build(self.source, arguments)
        model = load_keras(self.source)
        shape = model.input_shape
        if not isinstance(shape, tuple) or len(shape) != 4 or not shape[1] or shape[1] != shape[2]:
            raise InvalidInputError(
                f"Expected a model with one square input of known size in {str(self.source)!r}. Received: input "
                f"{shape}. Build it with input_shape=(224, 224, 3), or export it in Python with size=."
            )
        return model


def _givens(arguments: argparse.Namespace) -> list[_Given]:
    from keras_effnet.commands.models import refuse_weights
    from keras_effnet.errors import InvalidInputError
    from keras_effnet.network.variants import B_SERIES

    names = arguments.variants
    wanted = [name for given in names for name in (B_SERIES if given.lower() == "all" else (given,))]
    givens = list(dict.fromkeys(_Given.of(name) for name in wanted))
    for given in givens:
        if isinstance(given.source, Path):
            refuse_weights(arguments, given.source)
        alike = sum(other.name == given.name for other in givens)
        if alike > 1:
            raise InvalidInputError(
                f"Expected different names, since artefacts are named after them. Received: {alike} models "
                f"called {given.name!r}. Rename a file, or export them one by one."
            )
    return givens


def _check_calibration(recipes: list[Recipe], arguments: argparse.Namespace) -> None:
    """Before the first minute of work: is everything there that the recipes need?"""
    from keras_effnet.errors import InvalidInputError
    from keras_effnet.pictures.folders import list_images

    for directory in (arguments.calibration, arguments.images):
        if directory is not None:
            list_images(Path(directory).expanduser())
    needing = [recipe.target for recipe in recipes if recipe.integer]
    if needing and arguments.calibration is None:
        raise InvalidInputError(
            f"Expected --calibration DIR for {', '.join(needing)}. Received: none. Pass a folder with about a "
            "hundred photographs like those the model will see; labels are not needed."
        )


def _export(
    given: _Given, recipes: list[Recipe], arguments: argparse.Namespace, out: Path, bar: Any
) -> list[Artefact]:
    import keras

    from keras_effnet.export.pipeline import Job, export_job
    from keras_effnet.pictures.framing import framing_of

    def step(name: str) -> None:
        bar.set_description(name)
        bar.update(1)

    step(f"{given.name}: building")
    model = given.model(arguments)
    calibration, images = _photographs(model.input_shape[1], framing_of(model), arguments)
    job = Job(
        model=model,
        name=given.name,
        recipes=recipes,
        out=out,
        images=images,
        calibration=calibration,
        layout=arguments.layout,
        batching=arguments.onnx_batching,
        min_agreement=arguments.min_agreement,
        input_type=arguments.input_type,
        output_type=arguments.output_type,
        overwrite=arguments.force,
        keep_failed=arguments.keep_failed,
    )
    artefacts = export_job(job, step)
    del model, job
    keras.backend.clear_session()  # eight variants in one process would otherwise add up
    memory.release()
    return artefacts


def _photographs(size: int, framing: Framing, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """What to calibrate with and what to verify on; never the same pictures if there are enough."""
    from keras_effnet.pictures.folders import sample_paths

    calibration = images = None
    if arguments.calibration is not None:
        calibration = read_directory(
            Path(arguments.calibration).expanduser(), size, framing, limit=arguments.max_images
        )
    if arguments.images is not None:
        images = read_directory(
            Path(arguments.images).expanduser(), size, framing, limit=arguments.max_images
        )
    elif calibration is not None and len(calibration) >= ENOUGH_TO_SPLIT:
        calibration, images = calibration[::2], calibration[1::2]
    else:
        images = framing.read_all(sample_paths(), size)
    return calibration, images


def _progress(total: int, *, quiet: bool) -> Any:
    from tqdm import tqdm

    # disable=None: silent where the error output is no terminal
    return tqdm(total=total, unit="step", disable=True if quiet else None, leave=False, file=sys.stderr)


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
            f"{artefact.top1_agreement:.1%}",
            "exact" if artefact.sqnr_db is None else f"{artefact.sqnr_db:.0f} dB",
            f"{artefact.max_abs_error:.1e}",
            "✓" if artefact.ok else "✗",
        ]
        for artefact in artefacts
    ]
    print(
        table(
            ["artefact", "size", "one picture", "top-1 agreement", "SQNR", "largest error", "verified"], rows
        )
    )
    for artefact in artefacts:
        if not artefact.ok:
            fate = "kept, as you asked" if artefact.kept else "not kept (--keep-failed keeps it)"
            print(f"{artefact.file}: {' '.join(artefact.failures)} The file was {fate}.", file=sys.stderr)
        if artefact.held_out_agreement is not None:
            steps = ", ".join(artefact.lifted) or "none"
            print(
                f"{artefact.file}: {artefact.held_out_agreement:.1%} of the calibration photographs held out; "
                f"in float: {steps}"
            )
    pictures = {artefact.images for artefact in artefacts}
    print(f"verified on {', '.join(map(str, sorted(pictures)))} photographs")
    print(f"report: {out / ('report.json' if arguments.no_html else 'report.html')}")
