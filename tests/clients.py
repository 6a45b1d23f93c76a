"""Programs that people open exported files in, each as a function from a file and pictures to scores.

They are given what their own tensors take, and what they say is only scaled: nothing of this package runs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NPU = "ethos-u55-256"


def tf_lite(path: Path, pictures: Any) -> Any:
    import tensorflow as tf

    return _in_interpreter(tf.lite.Interpreter, path, pictures)


def litert(path: Path, pictures: Any) -> Any:
    module = pytest.importorskip("ai_edge_litert.interpreter")
    return _in_interpreter(module.Interpreter, path, pictures)


def compiled_model(path: Path, pictures: Any) -> Any:
    """LiteRT's other interface."""
    module = pytest.importorskip("ai_edge_litert.compiled_model")
    entry, end = _ends(path)
    model = module.CompiledModel.from_file(str(path))
    (given,), (taken,) = model.create_input_buffers(0), model.create_output_buffers(0)
    found = []
    for picture in pictures:
        given.write(np.ascontiguousarray(_raw(picture, entry)))
        model.run_by_index(0, [given], [taken])
        found.append(_real(np.asarray(taken.read(int(end["shape"][1]), end["dtype"])), end))
    return np.stack(found)


def openvino(path: Path, pictures: Any) -> Any:
    """Also of ONNX files, whose ends are float."""
    module = pytest.importorskip("openvino")
    opened = module.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    if path.suffix == ".onnx":
        kind = opened.input(0).element_type.to_dtype()
        planes = pictures.transpose(0, 3, 1, 2).astype(kind)
        return np.concatenate([opened(each[np.newaxis])[0] for each in planes])
    entry, end = _ends(path)
    return np.concatenate([_real(opened(_raw(picture, entry))[0], end) for picture in pictures])


def mediapipe(path: Path, pictures: Any) -> Any:
    """MediaPipe Tasks, which finds scores by the labels in the file."""
    from keras_effnet.export import load

    pytest.importorskip("mediapipe")
    labels = load(path).labels
    found = [next(iter(classified(path, picture).values())) for picture in pictures]
    return np.array([[scores[label] for label in labels] for scores in found])


def classified(path: Path, picture: Any) -> dict[str, dict[str, float]]:
    """What MediaPipe Tasks says of one picture, which has the input's size: by output, the score of each label."""
    module = pytest.importorskip("mediapipe")
    from mediapipe.tasks.python import BaseOptions, vision

    image = module.Image(image_format=module.ImageFormat.SRGB, data=picture)
    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=str(path)))
    with vision.ImageClassifier.create_from_options(options) as classifier:
        return {
            head.head_name: {each.category_name: each.score for each in head.categories}
            for head in classifier.classify(image).classifications
        }


CLIENTS: dict[str, Callable[[Path, Any], Any]] = {
    "tf.lite.Interpreter": tf_lite,
    "LiteRT Interpreter": litert,
    "LiteRT CompiledModel": compiled_model,
    "OpenVINO": openvino,
    "MediaPipe Tasks": mediapipe,
}


def operators_in_vela(path: Path, folder: Path) -> dict[str, int]:
    """How many operators Arm's compiler places on the CPU and on the NPU."""
    pytest.importorskip("ethosu.vela")
    command = [sys.executable, "-m", "ethosu.vela", str(path), "--output-dir", str(folder)]
    done = subprocess.run([*command, "--accelerator-config", NPU], capture_output=True, text=True, check=True)
    return {kind: int(count) for kind, count in re.findall(r"(CPU|NPU) operators = (\d+)", done.stdout)}


def _in_interpreter(kind: Any, path: Path, pictures: Any) -> Any:
    opened = kind(str(path))
    opened.allocate_tensors()
    (entry,), (end,) = opened.get_input_details(), opened.get_output_details()
    found = []
    for picture in pictures:
        opened.set_tensor(entry["index"], _raw(picture, entry))
        opened.invoke()
        found.append(_real(opened.get_tensor(end["index"])[0], end))
    return np.stack(found)


def _ends(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    module = pytest.importorskip("ai_edge_litert.interpreter")
    opened = module.Interpreter(str(path))
    return opened.get_input_details()[0], opened.get_output_details()[0]


def _raw(picture: Any, details: dict[str, Any]) -> Any:
    """A picture as the tensor stores it, in a batch of its own."""
    (scale, zero), dtype = details["quantization"], details["dtype"]
    if scale:
        picture = np.rint(picture / scale) + zero
    return picture[np.newaxis].astype(dtype)


def _real(values: Any, details: dict[str, Any]) -> Any:
    scale, zero = details["quantization"]
    return (values.astype(np.float32) - zero) * scale if scale else values
