"""`keras-effnet verify`: does this artefact still agree with the Keras model?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_effnet.commands.options import (
    EVALUATION_LIMIT,
    add_json,
    add_weights,
    read_directory,
    whole_number,
)

if TYPE_CHECKING:
    from keras_effnet.export.runners import Runner

NAME = "verify"
HELP = "compare exported files with the Keras model on photographs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artefacts", nargs="+", metavar="ARTEFACT", help="files or SavedModel folders")
    parser.add_argument(
        "--model", metavar="VARIANT|FILE.keras", help="default: the variant that the artefact names"
    )
    add_weights(parser)
    parser.add_argument("--images", metavar="DIR", help="photographs (default: eight built-in ones)")
    parser.add_argument("--max-images", type=whole_number(1), default=EVALUATION_LIMIT, metavar="N")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from keras_effnet.export import load, verify
    from keras_effnet.pictures.folders import sample_paths
    from keras_effnet.pictures.framing import framing_of
    from keras_effnet.system.quiet import import_keras

    import_keras()
    reports = []
    for path in arguments.artefacts:
        runner = load(path)
        model = _model(arguments, runner)
        size, framing = model.input_shape[1] or 224, framing_of(model)
        if arguments.images:
            folder = Path(arguments.images).expanduser()
            images = read_directory(folder, size, framing, limit=arguments.max_images)
        else:
            images = framing.read_all(sample_paths(), size)
        reports.append(verify(model, path, images, raise_on_failure=False))
    if arguments.json:
        print("[" + ", ".join(report.to_json() for report in reports) + "]")
    else:
        for report in reports:
            print(
                f"{'✓' if report.ok else '✗'} {report.file} ({report.recipe}): top-1 agreement "
                f"{report.top1_agreement:.1%} of {report.images}, SQNR {report.sqnr_db:.0f} dB, "
                f"largest error {report.max_abs_error:.1e}. {' '.join(report.failures)}".rstrip()
            )
    return 0 if all(report.ok for report in reports) else 1


def _model(arguments: argparse.Namespace, runner: Runner) -> Any:
    """The Keras model to compare with, at the size of the artefact."""
    from keras_effnet.commands.models import KERAS_SUFFIX, build, load_keras, refuse_weights
    from keras_effnet.errors import InvalidInputError
    from keras_effnet.network.variants import get_variant

    wanted = arguments.model or (runner.info.variant if runner.info else None)
    if wanted is None:
        raise InvalidInputError(
            "Expected --model VARIANT for an artefact that does not name its variant. Received: none. "
            "Pass the variant or the .keras file that it was exported from."
        )
    if Path(wanted).suffix == KERAS_SUFFIX:
        refuse_weights(arguments, wanted)
        return load_keras(wanted)
    height, width = runner.size
    shape = (height, width, runner.channels) if height and width else None
    return build(get_variant(wanted), arguments, input_shape=shape)
