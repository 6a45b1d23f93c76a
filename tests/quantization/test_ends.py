"""What clients, runtimes and delegates ask of a file: types at its ends, operator codes, scales, small maps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import CLIENTS
from test_int8_files import interpreter, predict, simulated

from keras_effnet.export import load, to_tflite, verify
from keras_effnet.export.model_facts import facts_of
from keras_effnet.export.options import Options
from keras_effnet.export.quantization.layerwise import Method
from keras_effnet.export.quantization.prepare import prepare
from keras_effnet.export.quantization.ranges import Range
from keras_effnet.export.quantization.steps import Product, Sum
from keras_effnet.export.quantization.to_tflite import integer_tflite
from keras_effnet.export.quantization.trained import compression, qat
from keras_effnet.export.quantization.xnnpack import within_limits
from keras_effnet.export.targets import TARGETS, write_artefact

pytest.importorskip("litert_quantizer")
QUICK = Method(weights="keep", rounding="nearest")
SIZES = [(32, 32), (47, 64), (97, 33)]  # maps of one pixel; odd sides on either axis, at several depths


STRIDES = ((1, 1), (2, 1), (3, 1), (5, 2))


def small(height: int, width: int, channels: int = 3, rows: Sequence[tuple[int, int]] = STRIDES) -> Any:
    """A block at each of B0's strides, narrow, with seven classes; or these rows of its table, so often."""
    import keras
    from material import randomize

    from keras_effnet.network.builder import BuildOptions, build_model
    from keras_effnet.network.table import EFFICIENTNET_B0, scaled

    keras.utils.set_random_seed(1)
    stages, filters = [], EFFICIENTNET_B0.stem_filters
    for row, repeats in rows:
        stages.append(replace(EFFICIENTNET_B0.stages[row], repeats=repeats, filters_in=filters))
        filters = stages[-1].filters_out
    whole = replace(EFFICIENTNET_B0, stages=tuple(stages), top_filters=64)
    options = BuildOptions(
        classes=7,
        preprocessing=whole.preprocessing,
        dropout_rate=0.0,
        padding="same",
        epsilon=1e-3,
        name="small",
    )
    image = keras.Input((height, width, channels))
    built = build_model(scaled(whole, width=0.25), options, image, image, keras=keras)
    randomize(built)
    return built


def pixels(height: int, width: int, channels: int = 3) -> Any:
    shape = (16, height, width, channels)
    return np.random.default_rng(5).integers(0, 256, shape).astype(np.float32)


def schema_of(content: bytes) -> Any:
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.convert_bytearray_to_object(bytearray(content))


def kinds(content: bytes) -> list[str]:
    """The file's operators, in order."""
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    model = schema_of(content)
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def partitions(content: bytes) -> int:
    return sum(op["op_name"] == "DELEGATE" for op in interpreter(content)._get_ops_details())


@pytest.fixture(scope="module")
def int8_ends(network: Any) -> bytes:
    return integer_tflite(network, output_type="int8")


def test_output_is_uint8_probabilities_when_nobody_asks(network: Any, held_out: Any, tmp_path: Path) -> None:
    content = integer_tflite(network)
    (taken,) = interpreter(content).get_output_details()
    assert (taken["dtype"], taken["quantization"]) == (np.uint8, (1 / 256, 0))
    assert Options().output_type == "uint8"
    assert list(interpreter(content).get_signature_runner().get_output_details()) == ["probabilities"]


def test_uint8_output_is_one_quantize_more_and_says_the_same(
    network: Any, int8_ends: bytes, held_out: Any
) -> None:
    content = integer_tflite(network)
    assert kinds(content) == [*kinds(int8_ends), "QUANTIZE"]
    more, plain = (schema_of(each).subgraphs[0].tensors for each in (content, int8_ends))
    assert len(more) == len(plain) + 1
    np.testing.assert_array_equal(predict(content, held_out[:8]), predict(int8_ends, held_out[:8]))
    assert partitions(content) == partitions(int8_ends) == 1


def test_embedding_keeps_the_calibrated_scale_as_uint8(
    tiny_swish: Any, calibration: Any, held_out: Any, tmp_path: Path
) -> None:
    """Of what is no probability, scale and zero point are the calibration's."""
    import keras

    features = keras.Model(tiny_swish.input, tiny_swish.get_layer("avg_pool").output)
    prepared = prepare(features, calibration, method=QUICK)
    chosen = prepared.quantized.ranges["avg_pool"]
    path = to_tflite(features, tmp_path / "features.tflite", "int8", network=prepared)
    (taken,) = interpreter(path.read_bytes()).get_output_details()
    assert taken["dtype"] == np.uint8
    assert taken["quantization"] == (pytest.approx(chosen.scale, rel=1e-5), chosen.zero_point + 128)
    expected = prepared.logits(held_out[:8])
    assert np.abs(load(path)(held_out[:8]) - expected).max() < 0.07 * chosen.high
    assert partitions(path.read_bytes()) == 1


def test_plain_path_has_the_same_ends(tmp_path: Path, calibration: Any) -> None:
    import keras

    image = keras.Input((64, 64, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(4, 3, 2)(x))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
    from keras_effnet.export.quantization import fold

    def refuse(*_: Any) -> None:
        raise fold.UnsupportedModelError("Expected another model.")

    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning, match="plain path"):
        patch.setattr("keras_effnet.export.quantization.prepare.fold", refuse)
        path = to_tflite(model, tmp_path / "x.tflite", "int8", calibration)
    (taken,) = interpreter(path.read_bytes()).get_output_details()
    assert (taken["dtype"], taken["quantization"]) == (np.uint8, (1 / 256, 0))


@pytest.fixture(scope="module")
def halves(tiny_swish: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_tflite(tiny_swish, tmp_path_factory.mktemp("halves") / "halves.tflite", "float16")


def test_float16_names_its_operators_as_every_reader_finds_them(halves: Path) -> None:
    """OpenVINO reads the old field, and refuses a DEQUANTIZE that calls itself ADD there."""
    from ai_edge_litert import schema_py_generated as schema

    codes = {code.builtinCode: code for code in schema_of(halves.read_bytes()).operatorCodes}
    dequantize = codes[schema.BuiltinOperator.DEQUANTIZE]
    assert (dequantize.deprecatedBuiltinCode, dequantize.version) == (6, 3)
    assert all(code.deprecatedBuiltinCode == builtin for builtin, code in codes.items())


def test_float16_opens_in_openvino(halves: Path, tiny_swish: Any, held_out: Any) -> None:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(halves, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = next(iter(compiled(held_out[:1]).values()))
    assert np.abs(found - tiny_swish.predict(held_out[:1], verbose=0)).max() < 5e-3


@pytest.fixture(scope="module")
def spread(network: Any) -> dict[str, tuple[str, float]]:
    """Scales that XNNPACK refuses: by operator, which tensor and the scale to give it."""
    graph, ranges = network.quantized.graph, network.quantized.ranges
    total, product = (next(step for step in graph if isinstance(step, kind)) for kind in (Sum, Product))
    gated = next(key for key in ranges if key.endswith("/gate"))
    convolution = graph["block1a_project_conv"]
    weight = np.abs(convolution.kernel).max() / 127
    return {
        "ADD, small summand": (total.inputs[1], ranges[total.name].scale / 3000),
        "ADD, small sum": (total.name, ranges[total.inputs[0]].scale / 300),
        "MUL, small product": (product.name, ranges[product.inputs[0]].scale / 256 / 300),
        "MUL, large gate": (gated, 1000.0),
        "CONV_2D, small": (convolution.name, ranges[convolution.inputs[0]].scale * weight / 300),
    }


@pytest.mark.parametrize(
    "case",
    [
        "ADD, small summand",
        "ADD, small sum",
        "MUL, small product",
        "MUL, large gate",
        "CONV_2D, small",
    ],
)
def test_file_stays_one_partition_when_scales_lie_far_apart(case: str, network: Any, spread: Any) -> None:
    key, scale = spread[case]
    ranges = {**network.quantized.ranges, key: Range(low=-100 * scale, high=155 * scale)}
    far = replace(network, quantized=replace(network.quantized, ranges=ranges))
    assert within_limits(far.quantized.graph, ranges)[key] != ranges[key]
    assert partitions(integer_tflite(far)) == 1


def test_scales_of_a_trained_network_stay_as_they_are(network: Any) -> None:
    assert within_limits(network.quantized.graph, network.quantized.ranges) == network.quantized.ranges


def test_gray_file_has_no_transpose_and_one_partition() -> None:
    model = small(64, 64, 1)
    prepared = prepare(model, pixels(64, 64, 1), method=QUICK)
    content = integer_tflite(prepared)
    assert "TRANSPOSE" not in kinds(content) and partitions(content) == 1


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_size_goes_through_int8(height: int, width: int) -> None:
    """At 32 px the last maps are one pixel, of which the converter leaves out the means."""
    images = pixels(height, width)
    prepared = prepare(small(height, width), images, method=QUICK)
    content = integer_tflite(prepared)
    assert partitions(content) == 1
    assert np.abs(predict(content, images[:8]) - simulated(prepared, images[:8])).max() < 0.06


@pytest.fixture(scope="module", params=[(32, 32), (33, 47)], ids=["32", "33x47"])
def smallest(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The smallest size that is promised, and the next odd one that is no square: a network's facts, its pictures."""
    return facts_of(small(*request.param)), pixels(*request.param)


@pytest.mark.parametrize("recipe", ["float32", "float16", "weight_int8", "int16x8"])
def test_smallest_size_goes_through_tflite(recipe: str, smallest: Any, tmp_path: Path) -> None:
    facts, images = smallest
    calibration = images if recipe == "int16x8" else None
    path = write_artefact(TARGETS[f"tflite:{recipe}"], facts, tmp_path / "x.tflite", Options(), calibration)
    assert verify(facts.model, path, images, raise_on_failure=False).max_abs_error < 0.02


@pytest.mark.parametrize(
    "target", ["saved_model", "onnx:float32", "onnx:float16", "onnx:float16_gpu", "onnx:int8"]
)
def test_smallest_size_goes_through_the_other_formats(target: str, smallest: Any, tmp_path: Path) -> None:
    (facts, images), row = smallest, TARGETS[target]
    # everything in integers: where a measurement lets them begin depends on the machine
    options = Options(first_integer="stem") if row.integer else Options()
    path = write_artefact(row, facts, tmp_path / f"x{row.suffix}", options, images if row.integer else None)
    error = verify(facts.model, path, images, raise_on_failure=False).max_abs_error
    assert error < (0.06 if row.integer else 5e-3)


@pytest.mark.parametrize("recipe", ["int8_qat", "int8_clustered"])  # pruning goes the way of clustering
def test_odd_size_goes_through_what_is_trained(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a child process and a twin in another Keras; the file opens wherever files do."""
    pytest.importorskip("tensorflow_model_optimization")
    monkeypatch.setattr(qat, "train", partial(qat.train, training=qat.Training(steps=5)))
    monkeypatch.setattr(compression, "CLUSTERED", replace(compression.CLUSTERED, steps=5))
    model, images = small(33, 47, rows=STRIDES[:2]), pixels(33, 47)
    path = to_tflite(
        model, tmp_path / "x.tflite", recipe, images, labels=[f"class {place}" for place in range(7)]
    )
    assert partitions(path.read_bytes()) == 1
    some = images[:2].astype(np.uint8)
    for client in CLIENTS.values():
        with suppress(pytest.skip.Exception):  # it is not installed
            assert client(path, some) == pytest.approx(load(path)(some), abs=1e-6)
