"""`keras-effnet explain`: which part of this photograph made the network say that?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_effnet.commands.options import add_json, add_weights, whole_number

if TYPE_CHECKING:
    from keras_effnet.explain import Explanation

NAME = "explain"
HELP = "draw which regions of a photograph speak for a class"
MARGIN, LINE = 8, 22  # of the picture, in pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="a photograph")
    parser.add_argument(
        "--model",
        default="lite0",
        metavar="VARIANT|FILE.keras",
        help="a variant (default: lite0) or a saved Keras classifier",
    )
    add_weights(parser)
    parser.add_argument(
        "--out",
        metavar="FILE.png",
        help="picture to write: photograph, map, overlay (default: IMAGE_cam.png in the current folder)",
    )
    parser.add_argument(
        "--method",
        choices=("cam", "grad-cam"),
        default="cam",
        help="class activation map (default, exact) or Grad-CAM (any head, any layer)",
    )
    parser.add_argument("--class", dest="wanted", metavar="N|LABEL", help="class (default: the best one)")
    parser.add_argument("--layer", metavar="NAME", help="layer for grad-cam (default: the last feature map)")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="class names, one on each line (default: those in the model, labels.txt beside it, ImageNet's for 1,000)",
    )
    parser.add_argument(
        "--size", type=whole_number(32), metavar="N", help="side of the input, where the model leaves it open"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing picture")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from keras_effnet.pictures.framing import framing_of
    from keras_effnet.system.files import staged

    # not beside the photograph: in a class folder the next training would take it for one
    given = arguments.out or f"{Path(arguments.image).stem}_cam.png"
    out = _check_out(given, force=arguments.force)
    model, variant = _model(arguments)
    size = _side(model, variant, arguments.size)
    pixels = framing_of(model).read(arguments.image, size)
    labels = _labels(model, arguments)
    wanted = None if arguments.wanted is None else _class_index(arguments.wanted, labels)
    from keras_effnet.explain import explain

    found = explain(model, pixels, wanted, method=arguments.method, layer=arguments.layer)
    label = labels[found.class_index]
    title = f"{label} · {found.output:.1%}" if 0 <= found.output <= 1 else f"{label} · {found.output:.2f}"
    picture = _picture(pixels, found, f"{title} · {arguments.method}")
    with staged(out, overwrite=arguments.force) as temporary:
        picture.save(temporary, format="PNG")
    if arguments.json:
        facts = {
            "file": arguments.image,
            "class_index": found.class_index,
            "label": label,
            "output": found.output,
            "score": found.score,
            "method": arguments.method,
            "picture": str(out),
        }
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print(f"{arguments.image}: {title}\n{out}")
    return 0


def _check_out(out: str, *, force: bool) -> Path:
    """Tell before the work, not after it, that the picture cannot be written."""
    from keras_effnet.errors import InvalidInputError

    path = Path(out)
    if path.suffix.lower() != ".png":
        raise InvalidInputError(f"Expected --out as a .png file. Received: {out!r}.")
    if path.exists() and not force:
        raise InvalidInputError(
            f"Expected --out to be a path that does not exist yet. Received: {out!r}, which exists. "
            "Choose another name, or pass --force to replace it."
        )
    return path


def _model(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The Keras model, and the published variant it is, or None."""
    from keras_effnet.commands.models import KERAS_SUFFIX, build, load_keras, refuse_weights
    from keras_effnet.errors import InvalidInputError
    from keras_effnet.network.variants import get_variant, identify
    from keras_effnet.system.quiet import import_keras

    path = Path(arguments.model)
    if not path.exists() and path.suffix != KERAS_SUFFIX:
        variant = get_variant(arguments.model)
        import_keras()
        return build(variant, arguments), variant
    if not path.is_file() or path.suffix != KERAS_SUFFIX:
        raise InvalidInputError(
            f"Expected --model as a variant or a .keras file. Received: {arguments.model!r}. Exported "
            "files have no feature maps to look at: pass the model they were made from."
        )
    refuse_weights(arguments, path)
    import_keras()
    model = load_keras(path)
    return model, identify(model)


def _side(model: Any, variant: Any, given: int | None) -> int:
    from keras_effnet.errors import InvalidInputError

    height, width = model.input_shape[1:3]
    if height != width:
        raise InvalidInputError(f"Expected a model with square pictures. Received: {height} × {width}.")
    if given is not None and height not in (None, given):
        raise InvalidInputError(f"Expected --size {height}, which this model needs. Received: {given}.")
    side = height or given or (variant.resolution if variant is not None else None)
    if side is None:
        raise InvalidInputError("Expected --size N for a model that takes any size. Received: none.")
    return int(side)


def _labels(model: Any, arguments: argparse.Namespace) -> tuple[str, ...]:
    from keras_effnet.commands.models import KERAS_SUFFIX
    from keras_effnet.errors import InvalidInputError
    from keras_effnet.pictures.class_names import labels_of
    from keras_effnet.pictures.labels import numbered_labels

    classes = int(model.output_shape[-1])
    carried = labels_of(model)
    if carried is not None and arguments.labels is None:
        return carried
    beside = Path(arguments.model).parent / "labels.txt"
    saved = Path(arguments.model).suffix == KERAS_SUFFIX and beside.is_file()
    given = arguments.labels or (str(beside) if saved else None)
    if given is None:
        return numbered_labels(classes)
    try:
        lines = Path(given).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"Expected class names in {given!r}. It cannot be read ({error}).") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != classes:
        raise InvalidInputError(
            f"Expected {classes} class names in {given!r}, one for each output. Received: {len(names)}."
        )
    return names


def _class_index(wanted: str, labels: tuple[str, ...]) -> int:
    """A number, or a label in any case."""
    from keras_effnet.errors import unknown_name

    if wanted.isdecimal() and int(wanted) < len(labels):
        return int(wanted)
    lowered = [label.lower() for label in labels]
    if wanted.lower() not in lowered:
        from difflib import get_close_matches

        shown = get_close_matches(wanted.lower(), lowered, n=5) or [*lowered[:3], "…"]
        raise unknown_name(f"--class (a label or 0–{len(labels) - 1})", wanted, shown)
    return lowered.index(wanted.lower())


def _picture(pixels: Any, found: Explanation, title: str) -> Any:
    """Photograph, map and overlay side by side below a line of text."""
    from PIL import Image, ImageDraw, ImageFont

    from keras_effnet.explain import colorize, overlay

    panels = (pixels, colorize(found.heat), overlay(pixels, found.heat))
    height, width = pixels.shape[:2]
    sheet = Image.new("RGB", (3 * width + 4 * MARGIN, height + LINE + 2 * MARGIN), (255, 255, 255))
    for index, panel in enumerate(panels):
        sheet.paste(Image.fromarray(panel), (MARGIN + index * (width + MARGIN), LINE + MARGIN))
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(sheet).text((MARGIN, MARGIN // 2), title, fill=(20, 20, 20), font=font)
    return sheet
