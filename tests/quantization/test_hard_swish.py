"""Hard-swish, which no EfficientNet has: it stands in one class, and goes through the whole method."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_int8_files import interpreter

from keras_effnet.export import load, to_onnx, to_tflite
from keras_effnet.export.quantization.accuracy import sqnr_db
from keras_effnet.export.quantization.activations import KNOWN
from keras_effnet.export.quantization.fold import fold
from keras_effnet.export.quantization.graph import run

pytest.importorskip("litert_quantizer")


@pytest.fixture(scope="module")
def model() -> Any:
    """Two convolutions and a depthwise one, each with a hard-swish behind it."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(2)
    image = keras.Input((64, 64, 3))
    x = layers.Rescaling(1 / 50, -2.5, name="to_unit")(image)
    x = layers.Activation("hard_silu")(
        layers.BatchNormalization()(layers.Conv2D(12, 3, 2, use_bias=False)(x))
    )
    x = layers.Activation("hard_silu")(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Conv2D(24, 1, activation="hard_silu")(x)
    x = layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x, name="hard")
    for weights in model.weights:
        if "moving_mean" in weights.path:
            weights.assign(np.linspace(-0.5, 0.5, weights.shape[0]))
    return model


def test_folded_graph_equals_model_when_hard_swish(model: Any, held_out: Any) -> None:
    graph = fold(model)
    assert np.abs(run(graph, held_out)[graph.output] - model.predict(held_out, verbose=0)).max() < 1e-5


def test_tflite_keeps_the_answers_and_has_the_operator(
    model: Any, calibration: Any, held_out: Any, tmp_path: Path
) -> None:
    path = to_tflite(model, tmp_path / "hard.tflite", "int8", calibration, output_type="float32")
    assert sqnr_db(model.predict(held_out, verbose=0), load(path)(held_out)) > 25
    opened = interpreter(path.read_bytes())
    floats = {d["index"] for d in opened.get_tensor_details() if d["dtype"] == np.float32}
    found = [op for op in opened._get_ops_details() if op["op_name"] == "HARD_SWISH"]
    assert len(found) == 3
    assert not any(floats.intersection(op["outputs"]) for op in found)


def test_onnx_keeps_the_answers_and_has_the_operator(
    model: Any, calibration: Any, held_out: Any, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    path = to_onnx(model, tmp_path / "hard.onnx", "int8", calibration)
    assert sqnr_db(model.predict(held_out, verbose=0), load(path)(held_out)) > 25
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    assert nodes.count("HardSwish") == 3 and nodes.count("QuantizeLinear") > 8


@pytest.mark.parametrize("name", list(KNOWN))
def test_activation_agrees_with_keras_and_its_slope_with_differences(name: str) -> None:
    """Of every activation: the float arithmetic, the one for samples, and the derivative."""
    import keras

    from keras_effnet.export.quantization.graph import activate_samples
    from keras_effnet.export.quantization.ops import in_float

    activation = KNOWN[name]
    u = np.linspace(-7, 7, 14001, dtype=np.float32)[:, np.newaxis] * np.ones(2, np.float32)
    exact = np.asarray(keras.activations.get(name)(u))
    assert np.asarray(activation.compute(in_float, u)) == pytest.approx(exact, abs=1e-6)
    if name != "softmax":
        # the sigmoid inside is a multiple of 1/256, 255/256 at most
        assert activate_samples(activation, "step", u, {}) == pytest.approx(exact, abs=7 / 256)
        difference = np.diff(exact.astype(np.float64), axis=0) / np.diff(u, axis=0)
        assert activation.slope(u) == pytest.approx(np.mean(difference**2, axis=0), rel=2e-3)


def test_hard_swish_is_written_in_one_file() -> None:
    from keras_effnet.export import quantization

    folder = Path(quantization.__file__).parent
    words = re.compile(r"hard_?(swish|silu)", re.IGNORECASE)
    assert [path.name for path in folder.rglob("*.py") if words.search(path.read_text("utf-8"))] == [
        "activations.py"
    ]


def test_hard_swish_trains_in_integers(model: Any, calibration: Any, held_out: Any) -> None:
    from keras_effnet.export.quantization.trained import qat

    network = qat.train(model, calibration, training=qat.Training(steps=1, batch=2))
    goal = network.logits(held_out, integer=False)
    assert sqnr_db(goal, network.logits(held_out)) > 20
