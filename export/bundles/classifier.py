"""What a page or an app must know about a TFLite classifier, read from the file: its ends, its crop, its names."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError, require, warn
from keras_effnet.network.variants import get_variant
from keras_effnet.pictures.labels import numbered_labels

from ..formats import TFLITE, format_of
from ..model_facts import NO_PREPROCESSING
from ..runners import Runner, load

ENDS = ("float32", "uint8")  # what LiteRT.js, MediaPipe Tasks and Kotlin's unsigned bytes take


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A TFLite file with one output that decides something.

    Attributes:
        path: the file.
        name: of the model.
        recipe: how its numbers are stored; empty where the file does not say.
        side, channels: of its square input, in pixels.
        input, output: types of its ends, one of `ENDS`.
        scale, zero_point: real number of an output = (value - zero_point) · scale.
        kind: of its output: `classes`, `sigmoid`, `sigmoids` or `logits`.
        interpolation, margin: how photographs are read for it, see `Framing`.
        labels: names of its classes; of a single sigmoid two.
        thresholds: how probable a class must be to be accepted: one for all or one for each; none accept all.
    """

    path: Path
    name: str
    recipe: str
    side: int
    channels: int
    input: str
    output: str
    scale: float
    zero_point: int
    kind: str
    interpolation: str
    margin: int
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]

    def told(self) -> dict[str, Any]:
        """For `model.json`, which the bundle's own code reads."""
        return {
            "name": self.name,
            "recipe": self.recipe,
            "input": self.input,
            "output": {
                "type": self.output,
                "scale": self.scale,
                "zeroPoint": self.zero_point,
                "kind": self.kind,
                "thresholds": list(self.thresholds),
            },
            "framing": {
                "side": self.side,
                "margin": self.margin,
                "interpolation": self.interpolation,
                "channels": self.channels,
            },
        }

    def write_into(self, folder: Path, **more: Any) -> None:
        """The network, its names, and what is told of it and `more`: `model.tflite`, `labels.txt`, `model.json`."""
        shutil.copyfile(self.path, folder / "model.tflite")
        (folder / "labels.txt").write_text("\n".join(self.labels) + "\n", encoding="utf-8")
        told = json.dumps(self.told() | more, indent=1) + "\n"
        (folder / "model.json").write_text(told, encoding="utf-8")


def check_single(files: list[Path]) -> None:
    """Make sure that one TFLite file was given, by its first bytes.

    Raises:
        InvalidInputError: several, or another format.
    """
    if len(files) != 1:
        raise InvalidInputError(
            f"Expected one TFLite file. Received: {len(files)}. Bundle each into a folder of its own."
        )
    if format_of(files[0]) != TFLITE:
        raise InvalidInputError(
            f"Expected a TFLite file. Received: {str(files[0])!r}, which is none. "
            "Make one with keras-effnet export --to tflite:float32."
        )


def read_classifier(path: Path) -> Classifier:
    """Open a file and collect what a client must know of it.

    Raises:
        InvalidInputError: several outputs, an embedding or a map, an input that is not square, types that the
            clients do not take, or a damaged file.
        MissingExtraError: LiteRT is not installed.
    """
    runner = load(path)
    height, width = runner.size
    if height is None or height != width:
        raise InvalidInputError(
            f"Expected a file with one square input. Received: {str(path)!r} with {height} × {width} pixels. "
            "Export the model at a square size."
        )
    kind = _kind(runner)
    given, made = _ends(path)
    columns = int(made["shape"][-1])
    return Classifier(
        path=path,
        name=_name(runner),
        recipe=runner.info.recipe if runner.info else "",
        side=height,
        channels=runner.channels,
        input=given["dtype"].__name__,
        output=made["dtype"].__name__,
        scale=float(made["quantization"][0]) or 1.0,
        zero_point=int(made["quantization"][1]),
        kind=kind,
        interpolation=runner.framing.interpolation,
        margin=runner.framing.margin,
        labels=runner.labels or numbered_labels(2 if kind == "sigmoid" else columns),
        thresholds=runner.outputs[0].thresholds,
    )


def integrity_of(path: Path) -> str:
    """The hash of a file as browsers check it (SRI)."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha384").digest()
    return f"sha384-{base64.b64encode(digest).decode()}"


def _name(runner: Runner) -> str:
    """What people call the model: the published variant's title, else its own name or the file's."""
    if runner.info is None:
        return runner.path.stem
    return get_variant(runner.info.variant).title if runner.info.variant else runner.info.name


def _kind(runner: Runner) -> str:
    """The kind of the only output, which must decide something."""
    if len(runner.names) > 1 or not runner.outputs[0].meaning.decides:
        told = ", ".join(runner.names) if len(runner.names) > 1 else runner.outputs[0].meaning.words
        raise InvalidInputError(
            f"Expected a classifier with one output. Received: {str(runner.path)!r} with {told}. "
            "Export a model that ends in its classes."
        )
    if runner.info is None:
        warn(
            f"Expected a file that says what it does to pixels. Received: {str(runner.path)!r}, which does not. It will "
            "get RGB pixels 0-255 of the reference's crop; export it with keras-effnet to be sure."
        )
    elif runner.info.preprocessing == NO_PREPROCESSING:
        raise InvalidInputError(
            f"Expected a file that takes RGB pixels 0-255. Received: {str(runner.path)!r}, whose preprocessing is "
            "outside of it. Put a Rescaling layer in front of the model and export it again."
        )
    return runner.outputs[0].kind


def _ends(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What LiteRT says of the input and the output."""
    interpreter = require("ai_edge_litert.interpreter", "tflite").Interpreter(str(path))
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    for flag, end in (("--input-type", given), ("--output-type", made)):
        found = end["dtype"].__name__
        if found not in ENDS:
            raise InvalidInputError(
                f"Expected ends of type {' or '.join(ENDS)}. Received: {str(path)!r} with {found}, which clients "
                f"refuse or read wrongly. Export it with {flag} uint8."
            )
    return given, made
