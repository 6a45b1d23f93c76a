"""Every recipe opens in the programs that people have, and says there what it says here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import CLIENTS, classified, openvino, operators_in_vela

from keras_effnet.export import load, to_onnx, to_tflite
from keras_effnet.export.quantization.runtimes import RUNTIMES

pytest.importorskip("litert_quantizer")
LABELS = ["left", "middle", "right"]
# the trained ones are written as `int8` is; test_ends.py opens them
TFLITE = ("float32", "float16", "weight_int8", "int8", "int16x8")
ONNX = ("float32", "float16", "float16_gpu", *(f"int8 for {name}" for name in RUNTIMES))
# its ends are int16, which is neither a pixel nor a score to them
REFUSED = {("int16x8", "LiteRT CompiledModel"): "int16", ("int16x8", "MediaPipe Tasks"): "INT16"}


@pytest.fixture(scope="module")
def pictures() -> Any:
    return np.random.default_rng(2).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def files(nano: Any, pictures: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clients")
    calibration = {"int8": pictures, "int16x8": pictures}
    return {
        recipe: to_tflite(nano, folder / f"{recipe}.tflite", recipe, calibration.get(recipe), labels=LABELS)
        for recipe in TFLITE
    }


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("recipe", TFLITE)
def test_tflite_file_says_the_same_in_every_client(
    recipe: str, client: str, files: dict[str, Path], pictures: Any
) -> None:
    some, path = pictures[:4], files[recipe]
    if (words := REFUSED.get((recipe, client))) is not None:
        with pytest.raises(ValueError, match=words):
            CLIENTS[client](path, some)
        return
    assert CLIENTS[client](path, some) == pytest.approx(load(path)(some), abs=1e-6)


def test_labels_and_scores_of_mediapipe_are_those_of_predict(
    nano: Any, files: dict[str, Path], pictures: Any
) -> None:
    expected = nano.predict(pictures[:4], verbose=0)
    assert CLIENTS["MediaPipe Tasks"](files["float32"], pictures[:4]) == pytest.approx(expected, abs=1e-5)
    assert CLIENTS["MediaPipe Tasks"](files["int8"], pictures[:4]) == pytest.approx(expected, abs=0.03)


def test_mediapipe_gives_the_scores_of_several_outputs_by_name(
    nano: Any, pictures: Any, tmp_path: Path
) -> None:
    import keras

    colours = keras.layers.Dense(2, "softmax", name="colours")(nano.get_layer("avg_pool").output)
    model = keras.Model(nano.input, {"kinds": nano.output, "colours": colours})
    labels = {"kinds": LABELS, "colours": ["red", "blue"]}
    path = to_tflite(model, tmp_path / "heads.tflite", "int8", pictures, labels=labels)
    expected = load(path)(pictures[:2])
    for picture, *wanted in zip(pictures[:2], expected["kinds"], expected["colours"], strict=True):
        for (head, scores), values in zip(classified(path, picture).items(), wanted, strict=True):
            assert [scores[label] for label in labels[head]] == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize("recipe", ["int8", "int16x8"])
def test_npu_takes_all_of_an_integer_file(recipe: str, files: dict[str, Path], tmp_path: Path) -> None:
    found = operators_in_vela(files[recipe], tmp_path)
    assert found["NPU"] > 0 and found.get("CPU", 0) == 0


@pytest.mark.parametrize("name", ONNX)
def test_onnx_file_says_the_same_in_openvino(name: str, nano: Any, pictures: Any, tmp_path: Path) -> None:
    recipe, _, runtime = name.partition(" for ")
    options: dict[str, Any] = {"runtime": runtime, "calibration": pictures} if runtime else {}
    path = to_onnx(nano, tmp_path / "x.onnx", recipe, **options)
    allowed = 1e-3 if recipe == "float16_gpu" else 1e-6
    assert openvino(path, pictures[:4]) == pytest.approx(load(path)(pictures[:4]), abs=allowed)
