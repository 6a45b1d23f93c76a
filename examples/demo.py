"""`make run`: a trained network classifies two photographs and leaves in three formats, verified.

Needs the extras `tflite`, `onnx`, `lite-weights` and `demo`. Everything here are commands that you
can type yourself; each is printed before it runs.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from keras_effnet.cli import main as run_command
from keras_effnet.errors import require

TARGETS = ("saved_model", "tflite:float32", "tflite:float16", "tflite:int8", "onnx:float32")
# views of one picture resemble each other: what chooses the integer ranges may not judge the result
CALIBRATION_SOURCES = (
    "astronaut.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "gravel.png",
)
VERIFICATION_SOURCES = ("chelsea.png", "coffee.png", "camera.png")
CROP_SHARES = (0.95, 0.85, 0.75)


def main(argv: list[str] | None = None) -> int:
    """Run the demonstration; returns the exit code of the last command."""
    parser = argparse.ArgumentParser(prog="python examples/demo.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", default="build/run", help="folder for everything that is made (default: build/run)"
    )
    out = Path(parser.parse_args(argv).out)
    photographs = Path(str(require("skimage", "demo").__file__)).parent / "data"
    pictures = [str(photographs / name) for name in ("chelsea.png", "coffee.png")]
    if code := _run(["predict", *pictures, "--model", "lite0", "--top", "3"]):
        return code
    calibration = _crops(photographs, CALIBRATION_SOURCES, out / "calibration_crops")
    others = _crops(photographs, VERIFICATION_SOURCES, out / "verification_crops")
    command = [
        "export",
        "lite0",
        "--to",
        *TARGETS,
        "--calibration",
        str(calibration),
        "--images",
        str(others),
    ]
    if code := _run([*command, "--out", str(out), "--force"]):
        return code
    return _run(["predict", *pictures, "--model", str(out / "lite0_int8.tflite"), "--top", "1"])


def _run(arguments: list[str]) -> int:
    print(f"\n$ keras-effnet {shlex.join(arguments)}", flush=True)
    return run_command(arguments)


def _crops(source: Path, names: Sequence[str], folder: Path) -> Path:
    """Many different views of a few photographs, as a stand-in for a folder of real ones."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with Image.open(source / name) as opened:
            picture = opened.convert("RGB")
        for share in CROP_SHARES:
            side = round(min(picture.size) * share)
            right, bottom = picture.width - side, picture.height - side
            corners = ((0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2))
            for index, (left, top) in enumerate(corners):
                crop = picture.crop((left, top, left + side, top + side))
                crop.save(folder / f"{Path(name).stem}_{share}_{index}.png")
    return folder


if __name__ == "__main__":
    sys.exit(main())
