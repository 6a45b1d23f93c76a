"""`keras-effnet explain`: which part of this photograph made the network say that?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from keras_effnet.commands.flags import add_json, add_labels, add_size, add_weights
from keras_effnet.commands.models import NETWORKS, choose_network, read_labels
from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.framing import Framing, framing_of
from keras_effnet.pictures.labels import known_labels
from keras_effnet.system.files import check_new, check_writable, staged
from keras_effnet.system.quiet import check_backend

NAME = "explain"
HELP = "draw which regions of a photograph speak for a class"
EXAMPLES = """\
  keras-effnet explain cat.jpg
  keras-effnet explain cat.jpg --class "Egyptian cat" --method grad-cam --out why.png
  keras-effnet explain rose.jpg --model runs/flowers"""
FEW_CLASSES = 12  # that a message lists
MARGIN, LINE = 8, 22  # of the picture, in pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="a photograph")
    parser.add_argument(
        "--model",
        metavar="VARIANT|FILE",
        help="a variant (default: the one that --weights FILE is of, else lite0), a Keras file, or the folder of "
        "a training run",
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
    parser.add_argument(
        "--output", metavar="NAME", help="output to explain, by name or number, where a model has several"
    )
    parser.add_argument("--layer", metavar="NAME", help="layer for grad-cam (default: the last feature map)")
    add_labels(parser)
    add_size(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing picture")
    add_json(parser)


def check(arguments: argparse.Namespace) -> None:
    if arguments.out is None:
        # not beside the photograph: in a class folder the next training would take it for one
        arguments.out = f"{Path(arguments.image).stem}_cam.png"
    if Path(arguments.out).suffix.lower() != ".png":
        raise InvalidInputError(f"Expected --out as a .png file. Received: {arguments.out!r}.")
    check_new(Path(arguments.out), overwrite=arguments.force)
    check_writable(Path(arguments.out))
    Framing().read(arguments.image, 32)
    if arguments.labels is not None:
        read_labels(arguments.labels)
    arguments.choice = choose_network(arguments, NETWORKS)
    if arguments.wanted is not None and (labels := arguments.choice.labels_told(arguments)) is not None:
        _class_index(arguments.wanted, labels)
    check_backend()


def run(arguments: argparse.Namespace) -> int:
    choice, out = arguments.choice, Path(arguments.out)
    model = choice.model(arguments)
    from keras_effnet.explain import colorize, explain, overlay
    from keras_effnet.explain.score_path import ScorePath

    output = int(arguments.output) if (arguments.output or "").isdecimal() else arguments.output
    path = ScorePath(model, output=output)
    size = choice.side_for(model, path.size, arguments.size)
    pixels = framing_of(model).read(arguments.image, size)
    known = known_labels(model) if len(model.outputs) == 1 else None
    labels = choice.labels_for(arguments.labels, path.classes, carried=path.labels, known=known)
    wanted = None if arguments.wanted is None else _class_index(arguments.wanted, labels)
    found = explain(model, pixels, wanted, method=arguments.method, layer=arguments.layer, output=output)
    label = labels[found.class_index]
    title = f"{label} · {found.output:.1%}" if 0 <= found.output <= 1 else f"{label} · {found.output:.2f}"
    panels = (pixels, colorize(found.heat), overlay(pixels, found.heat))
    picture = _picture(panels, f"{title} · {arguments.method}")
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


def _class_index(wanted: str, labels: tuple[str, ...]) -> int:
    """A number, or a label in any case."""
    if wanted.isdecimal() and int(wanted) < len(labels):
        return int(wanted)
    lowered = [label.lower() for label in labels]
    if wanted.lower() in lowered:
        return lowered.index(wanted.lower())
    if near := get_close_matches(wanted.lower(), lowered, n=5):
        advice = f"Closest: {', '.join(labels[lowered.index(label)] for label in near)}."
    elif len(labels) <= FEW_CLASSES:
        advice = f"The classes: {', '.join(labels)}."
    else:
        advice = f"The first classes: {', '.join(labels[:3])}."
    raise InvalidInputError(
        f"Expected --class as a label or a number 0–{len(labels) - 1}. Received: {wanted!r}. {advice}"
    )


def _picture(panels: Sequence[Any], title: str) -> Any:
    """Photograph, map and overlay side by side below a line of text."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = panels[0].shape[:2]
    sheet = Image.new("RGB", (3 * width + 4 * MARGIN, height + LINE + 2 * MARGIN), (255, 255, 255))
    for index, panel in enumerate(panels):
        sheet.paste(Image.fromarray(panel), (MARGIN + index * (width + MARGIN), LINE + MARGIN))
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(sheet).text((MARGIN, MARGIN // 2), title, fill=(20, 20, 20), font=font)
    return sheet
