"""Does a file open in the clients that people use, and say there what it says here?

    python -m venv build/clients
    build/clients/bin/pip install mediapipe ethos-u-vela
    python benchmarks/clients.py FILE.tflite … --photos DIR --clients build/clients/bin/python

    python -m venv build/qnn
    build/qnn/bin/pip install onnxruntime-qnn onnx
    python benchmarks/clients.py FILE.onnx … --qnn build/qnn/bin/python

MediaPipe Tasks classifies photographs that are cropped to the input's size; its labels and scores are compared
with those of `keras_effnet.export.load`. Arm's `vela` says how many operators run on an Ethos-U NPU. LiteRT's
other interface, CompiledModel, says whether it accelerates the whole file. OpenVINO is asked where this Python has
it. MediaPipe and vela get a Python of their own: their wheels need 400 MB. Of an ONNX file, `onnxruntime-qnn` makes
a context for Qualcomm's Hexagon on this machine, without a phone: one node, or it says what it cannot place.
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
SUFFIXES = (".tflite", ".onnx")
HEXAGON = {"soc_model": "57", "htp_arch": "75"}  # Snapdragon 8 Gen 3


def main() -> None:
    if sys.argv[1] == "child":
        verb, file, folder = sys.argv[2:]
        print(json.dumps({"mediapipe": mediapipe_scores, "qnn": qnn_nodes}[verb](file, Path(folder))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--photos", type=Path, help="for TFLite files")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument(
        "--clients", default=sys.executable, help="Python that has mediapipe and ethos-u-vela"
    )
    parser.add_argument("--qnn", default=sys.executable, help="Python that has onnxruntime-qnn and onnx")
    arguments = parser.parse_args()
    files = {suffix: [file for file in arguments.files if file.suffix == suffix] for suffix in SUFFIXES}
    if files[".tflite"]:
        photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix in (".jpg", ".png"))
        print(
            "| file | MediaPipe Tasks: same label | largest difference of a score | vela: on the NPU "
            "| CompiledModel | OpenVINO |"
        )
        print("|---|---|---|---|---|---|")
    for file in files[".tflite"]:
        with tempfile.TemporaryDirectory() as folder:
            cells = row(file, photos[: arguments.limit], arguments.clients, Path(folder))
        print(f"| {file.name} | " + " | ".join(cells) + " |", flush=True)
    for file in files[".onnx"]:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{file.name} in QNN: {in_qnn(file, arguments.qnn, Path(folder))}", flush=True)


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
        in_compiled_model(file, pictures, scores),
        in_openvino(file, pictures, scores),
    ]


def in_mediapipe(
    file: Path, folder: Path, clients: str, scores: npt.NDArray[Any], labels: tuple[str, ...]
) -> list[str]:
    command = [clients, __file__, "child", "mediapipe", str(file), str(folder)]
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


def in_qnn(file: Path, python: str, folder: Path) -> str:
    command = [python, __file__, "child", "qnn", str(file), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return refusal(done.stderr)
    return f"a context of {' + '.join(json.loads(done.stdout.splitlines()[-1]))}"


def qnn_nodes(file: str, folder: Path) -> list[str]:
    """The nodes of the context that QNN makes of a file for one picture. Runs in a Python that has it."""
    import onnx
    import onnxruntime
    import onnxruntime_qnn

    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, folder / "one.onnx")
    name = onnxruntime_qnn.get_ep_name()
    onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("ep.context_enable", "1")
    options.add_session_config_entry("ep.context_file_path", str(folder / "context.onnx"))
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")  # all of it, or an error
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    backend = {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), **HEXAGON}
    options.add_provider_for_devices(devices[:1], {**backend, "offload_graph_io_quantization": "0"})
    onnxruntime.InferenceSession(folder / "one.onnx", options)
    return [node.op_type for node in onnx.load(folder / "context.onnx").graph.node]


def in_compiled_model(file: Path, pictures: npt.NDArray[Any], scores: npt.NDArray[Any]) -> str:
    """The largest difference of a score, and whether LiteRT accelerates all of it."""
    from ai_edge_litert.compiled_model import CompiledModel

    try:
        model = CompiledModel.from_file(str(file))
    except RuntimeError as error:
        return refusal(str(error))
    ends = []
    for details in (model.get_input_tensor_details, model.get_output_tensor_details):
        (detail,) = details("serving_default").values()
        ends.append(np.dtype(detail["dtype"]))
    (given,), (taken,) = model.create_input_buffers(0), model.create_output_buffers(0)
    found = []
    for picture in pictures:
        given.write(np.ascontiguousarray(picture[np.newaxis].astype(ends[0])))
        model.run_by_index(0, [given], [taken])
        found.append(np.asarray(taken.read(scores.shape[1], ends[1])))
    whole = "all of it accelerated" if model.is_fully_accelerated() else "not all accelerated"
    return f"{difference(np.stack(found), scores)}, {whole}"


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
    return difference(found, scores)


def difference(found: npt.NDArray[Any], scores: npt.NDArray[Any]) -> str:
    """The largest, of what a file gives as it is."""
    if np.issubdtype(found.dtype, np.integer):  # probabilities, see docs/int8.md
        found = (found.astype(float) - np.iinfo(found.dtype).min) / 256
    return f"{np.abs(found - scores).max():.1e}"


def refusal(text: str) -> str:
    """The last line of an error."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return (lines[-1] if lines else "no message")[:120].replace("|", "/")


if __name__ == "__main__":
    main()
