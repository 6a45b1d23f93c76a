"""`keras-effnet predict`: what is on these photographs?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_effnet.commands.options import add_json, add_weights, whole_number

if TYPE_CHECKING:
    from keras_effnet.pictures.framing import Framing

NAME = "predict"
HELP = "classify photographs with a variant or an exported file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="photographs")
    parser.add_argument(
        "--model",
        default="lite0",
        metavar="VARIANT|FILE",
        help="a variant (default: lite0) or an exported artefact",
    )
    add_weights(parser)
    parser.add_argument("--top", type=whole_number(1), default=5, help="how many classes (default: 5)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    import numpy as np

    classify, size, framing, labels = _classifier(arguments)
    pixels = framing.read_all(arguments.images, size)
    scores = np.asarray(classify(pixels))
    results = []
    for path, row in zip(arguments.images, scores, strict=True):
        best = np.argsort(row)[::-1][: arguments.top]
        results.append(
            {
                "file": path,
                "predictions": [
                    {"class_index": int(index), "label": labels[index], "probability": float(row[index])}
                    for index in best
                ],
            }
        )
    _show(results, as_json=arguments.json)
    return 0


def _classifier(arguments: argparse.Namespace) -> tuple[Any, int, Framing, tuple[str, ...]]:
    """A callable from pixels to probabilities, its input size, how photographs are read for it, and its labels."""
    from keras_effnet.commands.models import build, refuse_weights
    from keras_effnet.network.variants import get_variant
    from keras_effnet.pictures.labels import numbered_labels
    from keras_effnet.system.quiet import import_keras

    if Path(arguments.model).exists():
        from keras_effnet.errors import InvalidInputError
        from keras_effnet.export import load

        refuse_weights(arguments, arguments.model)
        runner = load(arguments.model)
        size = runner.size[0]
        if size is None or size != runner.size[1]:
            raise InvalidInputError(
                f"Expected an artefact with a square input of known size. Received: {runner.size}."
            )
        labels = runner.labels or numbered_labels(_classes(runner))
        return runner, size, runner.framing, labels
    variant = get_variant(arguments.model)
    import_keras()
    from keras_effnet.pictures.framing import framing_of

    model = build(variant, arguments)

    def classify(pixels: Any) -> Any:
        return model.predict(pixels, batch_size=8, verbose=0)

    return classify, variant.resolution, framing_of(model), numbered_labels(model.output_shape[-1])


def _classes(runner: Any) -> int:
    """How many an artefact has that carries no labels."""
    from keras_effnet.pictures.reading import sample_images

    return int(runner(sample_images(runner.size[0])[:1]).shape[-1])


def _show(results: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
        return
    for result in results:
        print(result["file"])
        for guess in result["predictions"]:
            bar = "█" * round(guess["probability"] * 20)
            print(f"  {guess['probability']:7.2%}  {bar:<20}  {guess['label']}")
