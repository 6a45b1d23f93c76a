"""`keras-effnet benchmark`: how long do these artefacts take on this machine?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from keras_effnet.commands.flags import add_json, add_size, whole_number
from keras_effnet.commands.models import ARTEFACTS, KERAS, choose
from keras_effnet.commands.printing import table
from keras_effnet.errors import InvalidInputError
from keras_effnet.export import load
from keras_effnet.export.timing import example_pixels, median_latencies_ms
from keras_effnet.system.files import size_of
from keras_effnet.system.quiet import check_backend, import_keras
from keras_effnet.system.resources import cores

NAME = "benchmark"
HELP = "time exported files against each other, taking turns"
EXAMPLES = """\
  keras-effnet benchmark b0_float32.tflite b0_int8.tflite --threads 4
  keras-effnet benchmark b0_float32.onnx b0_saved_model --batch 8"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "artefacts", nargs="+", metavar="ARTEFACT", help="files or SavedModel folders; the first is 1.00"
    )
    parser.add_argument("--batch", type=whole_number(1), default=1, help="pictures per call (default: 1)")
    parser.add_argument("--rounds", type=whole_number(1), default=30, help="timed rounds (default: 30)")
    parser.add_argument("--threads", type=whole_number(1), default=cores(), help="default: all cores")
    add_size(parser)
    add_json(parser)


def check(arguments: argparse.Namespace) -> None:
    arguments.choices = [choose(text, ARTEFACTS, flag="ARTEFACT") for text in arguments.artefacts]
    if any(choice.format == KERAS for choice in arguments.choices):
        check_backend()


def run(arguments: argparse.Namespace) -> int:
    if any(choice.format == KERAS for choice in arguments.choices):
        import_keras()
    runners = [load(str(choice.path), threads=arguments.threads) for choice in arguments.choices]
    examples = [example_pixels(runner, arguments.batch, size=arguments.size) for runner in runners]
    shapes = {images.shape[1:] for images in examples}
    if len(shapes) > 1:
        raise InvalidInputError(
            f"Expected artefacts with the same input. Received: {sorted(map(str, shapes))}. "
            "Time networks of different resolutions separately."
        )
    medians = median_latencies_ms(runners, examples[0], rounds=arguments.rounds)
    entries = [
        {
            "file": choice.text,
            "bytes": size_of(choice.path),
            "batch": arguments.batch,
            "threads": arguments.threads,
            "median_ms": median,
            "ratio": median / medians[0],
        }
        for choice, median in zip(arguments.choices, medians, strict=True)
    ]
    if arguments.json:
        print(json.dumps(entries, indent=2))
        return 0
    rows = [
        [
            Path(e["file"]).name,
            f"{e['bytes'] / 1e6:.1f} MB",
            f"{e['median_ms']:.2f} ms",
            f"{e['ratio']:.2f}",
        ]
        for e in entries
    ]
    print(table(["artefact", "size", f"median, batch {arguments.batch}", "ratio"], rows))
    return 0
