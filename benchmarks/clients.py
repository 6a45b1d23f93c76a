"""Does a TFLite file open in the clients that people use, and say there what it says here?

    python -m venv build/clients
    build/clients/bin/pip install mediapipe ethos-u-vela
    python benchmarks/clients.py FILE.tflite … --photos DIR --clients build/clients/bin/python

MediaPipe Tasks classifies photographs that are cropped to the input's size; its labels and scores are compared
with those of `keras_effnet.export.load`. Arm's `vela` says how many operators run on an Ethos-U NPU. OpenVINO
is asked where this Python has it. MediaPipe and vela get a
Python of their own: their wheels need 400 MB.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NPU = "ethos-u55-256"


def main() -> None:
    if sys.argv[1] == "child":
        print(json.dumps(mediapipe_scores(sys.argv[2], Path(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument(
        "--clients", default=sys.executable, help="Python that has mediapipe and ethos-u-vela"
    )
    arguments = parser.parse_args()
    photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix in (".jpg", ".png"))
    print(
        "| file | MediaPipe Tasks: same label | largest difference of a score | vela: on the NPU | OpenVINO |"
    )
    print("|---|---|---|---|---|")
    for file in arguments.files:
        with tempfile.TemporaryDirectory() as folder:
            cells = row(file, photos[: arguments.limit], arguments.clients, Path(folder))
        print(f"| {file.name} | " + " | ".join(cells) + " |", flush=True)


def row(file: Path, photos: list[Path], clients: str, folder: Path) -> list[str]:
    """The cells of one file."""
    from PIL import Image

    from keras_effnet.export import load

    runner = load(file)
    pictures = np.stack([runner.framing.read(photo, int(runner.size[0] or 0)) for photo in photos])
    for index, picture in enumerate(pictures):
        Image.fromarray(picture.squeeze()).save(folder / f"{index:04}.png")
    scores = runner(pictures)
    return [
        *in_mediapipe(file, folder, clients, scores, runner.labels),
        in_vela(file, folder, clients),
        in_openvino(file, pictures, scores),
    ]


def in_mediapipe(
    file: Path, folder: Path, clients: str, scores: npt.NDArray[Any], labels: tuple[str, ...]
) -> list[str]:
    command = [clients, __file__, "child", str(file), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [refusal(done.stderr), ""]
    found = json.loads(done.stdout.splitlines()[-1])
    same = np.mean([labels[row.argmax()] == theirs[0][0] for row, theirs in zip(scores, found, strict=True)])
    difference = max(
        abs(row[index] - score)
        for row, theirs in zip(scores, found, strict=True)
        for _, index, score in theirs
    )
    return [f"{same:.3f}", f"{difference:.1e}"]


def mediapipe_scores(file: str, folder: Path) -> list[list[tuple[str, int, float]]]:
    """(label, index, score) of each picture, best first. Runs in the clients' Python."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=file))
    with vision.ImageClassifier.create_from_options(options) as classifier:
        return [
            [
                (category.category_name, category.index, category.score)
                for category in classifier.classify(mediapipe.Image.create_from_file(str(path)))
                .classifications[0]
                .categories
            ]
            for path in sorted(folder.glob("*.png"))
        ]


def in_vela(file: Path, folder: Path, clients: str) -> str:
    command = [clients, "-m", "ethosu.vela", str(file), "--output-dir", str(folder)]
    command += ["--accelerator-config", NPU]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    counts = {kind: int(n) for kind, n in re.findall(r"(CPU|NPU) operators = (\d+)", done.stdout)}
    return f"{counts['NPU']} of {sum(counts.values())}" if "NPU" in counts else refusal(done.stderr)


def in_openvino(file: Path, pictures: npt.NDArray[Any], scores: npt.NDArray[Any]) -> str:
    """The largest difference of a score, or what it says against the file."""
    try:
        import openvino
    except ImportError:
        return "not installed"
    try:
        compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        return refusal(str(error))
    kind = compiled.input(0).element_type.to_dtype()
    found = np.concatenate([next(iter(compiled(p[np.newaxis].astype(kind)).values())) for p in pictures])
    if np.issubdtype(found.dtype, np.integer):  # probabilities, see docs/int8.md
        found = (found.astype(float) - np.iinfo(found.dtype).min) / 256
    return f"{np.abs(found - scores).max():.1e}"


def refusal(text: str) -> str:
    """The last line of an error."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return (lines[-1] if lines else "no message")[:120].replace("|", "/")


if __name__ == "__main__":
    main()
