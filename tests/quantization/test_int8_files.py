"""The files: what they compute, which types they have, how they fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from keras_effnet.errors import ExportError, InvalidInputError
from keras_effnet.export import tflite_file, to_onnx, to_tflite
from keras_effnet.export.model_facts import facts_of
from keras_effnet.export.quantization import accuracy
from keras_effnet.export.quantization import prepare as door
from keras_effnet.export.quantization.layerwise import Method
from keras_effnet.export.quantization.prepare import prepare
from keras_effnet.export.quantization.steps import Input
from keras_effnet.export.quantization.to_onnx import integer_onnx
from keras_effnet.export.quantization.to_tflite import integer_tflite

pytest.importorskip("litert_quantizer")


def interpreter(content: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    opened = Interpreter(model_content=content, num_threads=1)
    opened.allocate_tensors()
    return opened


def predict(content: bytes, images: Any) -> Any:
    """Dequantized outputs for pictures of whole pixel values."""
    opened = interpreter(content)
    (given,), (taken,) = opened.get_input_details(), opened.get_output_details()
    scale, zero_point = taken["quantization"]
    results = []
    for image in np.rint(images):
        shifted = image if given["dtype"] == np.uint8 else image - 128
        opened.set_tensor(given["index"], shifted[np.newaxis].astype(given["dtype"]))
        opened.invoke()
        raw = opened.get_tensor(taken["index"])[0].astype(np.float32)
        results.append((raw - zero_point) * scale if scale else raw)
    return np.stack(results)


@pytest.fixture(scope="module")
def content(network: Any) -> bytes:
    return integer_tflite(network)


def simulated(network: Any, images: Any) -> Any:
    logits = network.logits(np.rint(images))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_file_computes_what_was_simulated(content: bytes, network: Any, held_out: Any) -> None:
    difference = predict(content, held_out) - simulated(network, held_out)
    # single roundings fall the other way here and there, and grow on their way
    assert np.sqrt(np.mean(difference**2)) < 0.06


def test_file_is_integer_from_end_to_end_and_one_partition(content: bytes) -> None:
    opened = interpreter(content)
    assert not [d["name"] for d in opened.get_tensor_details() if d["dtype"] == np.float32]
    assert sum(op["op_name"] == "DELEGATE" for op in opened._get_ops_details()) == 1


def test_uint8_input_takes_pixels_as_they_are(content: bytes) -> None:
    (given,) = interpreter(content).get_input_details()
    assert given["dtype"] == np.uint8
    assert given["quantization"] == (1.0, 0)


@pytest.mark.parametrize(("input_type", "output_type"), [("int8", "int8"), ("uint8", "float32")])
def test_ends_do_not_change_what_the_file_says(
    input_type: str, output_type: str, content: bytes, network: Any, held_out: Any
) -> None:
    other = integer_tflite(network, input_type=input_type, output_type=output_type)
    assert np.abs(predict(other, held_out) - predict(content, held_out)).max() < 0.01
    assert interpreter(other).get_output_details()[0]["dtype"] == np.dtype(output_type)


def test_pack_writes_equal_vectors_once_and_changes_nothing(
    content: bytes, network: Any, held_out: Any
) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    plain = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    packed = tflite_file.pack(model)
    channels = [t.quantization.zeroPoint for t in model.subgraphs[0].tensors if t.quantization is not None]
    repeated = sum(8 * len(zeros) for zeros in channels if zeros is not None)
    assert len(plain) - len(packed) > repeated / 2
    np.testing.assert_array_equal(predict(packed, held_out), predict(plain, held_out))


def test_signature_names_stay(content: bytes) -> None:
    runner = interpreter(content).get_signature_runner("serving_default")
    assert list(runner.get_input_details()) == ["image"]
    assert list(runner.get_output_details()) == ["probabilities"]


def test_error_ranges_beat_minimum_and_maximum(
    tiny_swish: Any, network: Any, calibration: Any, held_out: Any
) -> None:
    method = Method(ranges="minmax", weights="keep", rounding="nearest")
    stock = prepare(tiny_swish, calibration, method=method)
    goal = network.logits(held_out, integer=False)
    theirs, ours = (accuracy.sqnr_db(goal, each.logits(held_out)) for each in (stock, network))
    assert ours > theirs


def test_lite_needs_no_swish(lite_network: Any, held_out: Any) -> None:
    goal = lite_network.logits(held_out, integer=False)
    assert accuracy.sqnr_db(goal, lite_network.logits(held_out)) > 10
    assert predict(integer_tflite(lite_network), held_out).shape == (len(held_out), 4)


def test_constant_survives_when_the_weights_of_its_channel_have_died(
    tiny_lite: Any, calibration: Any
) -> None:
    """Its bias overflowed an int32 of the scale that such weights suggest, and the file said another constant."""
    import keras

    model = keras.models.clone_model(tiny_lite)
    model.set_weights(tiny_lite.get_weights())
    stem, normalization = model.get_layer("stem_conv"), model.get_layer("stem_bn")
    kernel = stem.kernel.numpy()
    kernel[..., :2] *= 1e-10
    kernel[..., 2] = 0
    stem.kernel.assign(kernel)
    constants = np.array([2.0, 3.0, 1.0])
    shift = normalization.gamma * normalization.moving_mean / np.sqrt(normalization.moving_variance + 1e-3)
    normalization.beta.assign(np.concatenate([constants + shift[:3], normalization.beta[3:]]))

    network = prepare(model, calibration)
    bias = network.quantized.graph["stem_conv"].bias
    assert bias is not None and bias[:3] == pytest.approx(constants, rel=0.05)
    opened = interpreter(integer_tflite(network))
    stem_operator = next(op for op in opened._get_ops_details() if op["op_name"] == "CONV_2D")
    stored = next(d for d in opened.get_tensor_details() if d["index"] == stem_operator["inputs"][2])
    scales = stored["quantization_parameters"]["scales"]
    assert opened.get_tensor(stored["index"]) * scales == pytest.approx(bias, abs=1e-3)


def test_onnx_file_computes_what_was_simulated(network: Any, held_out: Any) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    results = []
    for layout, images in (("nhwc", held_out), ("nchw", np.transpose(held_out, (0, 3, 1, 2)))):
        proto = integer_onnx(network, input_name="image", output_names=["probabilities"], layout=layout)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        results.append(session.run(None, {"image": np.rint(images)})[0])
    assert np.array_equal(*results)
    assert np.sqrt(np.mean((results[0] - simulated(network, held_out)) ** 2)) < 0.06


def test_sensitivity_has_a_figure_for_each_step_and_a_plot(network: Any, tmp_path: Any) -> None:
    found = accuracy.sensitivity(network)
    assert list(found.sqnr_db) == [step.name for step in network.reference if not isinstance(step, Input)]
    assert found.sqnr_db[found.worst(1)[0]] == min(found.sqnr_db.values())
    assert found.plot(tmp_path / "steps.png").stat().st_size > 5000


def test_lifted_steps_bring_agreement(tiny_swish: Any, calibration: Any, held_out: Any) -> None:
    rough = Method(ranges="minmax", weights="keep", rounding="nearest")
    network = prepare(tiny_swish, calibration, method=rough)
    goal = network.logits(held_out, integer=False)
    wanted = np.mean(network.logits(held_out).argmax(1) == goal.argmax(1)) + 1 / len(held_out)
    lifted = accuracy.lift_until(network, held_out, wanted)
    assert lifted.lifted
    assert lifted.agreement is not None and lifted.agreement >= wanted
    content = integer_tflite(lifted)
    assert np.sqrt(np.mean((predict(content, held_out) - simulated(lifted, held_out)) ** 2)) < 0.06
    (given,), (taken,) = interpreter(content).get_input_details(), interpreter(content).get_output_details()
    assert (given["dtype"], taken["dtype"]) == (np.uint8, np.uint8)


def float_operators(content: bytes) -> list[str]:
    """Kinds of the operators that compute in float."""
    opened = interpreter(content)
    floats = {d["index"] for d in opened.get_tensor_details() if d["dtype"] == np.float32}
    computing = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "LOGISTIC", "MUL", "ADD", "MEAN")
    operators = opened._get_ops_details()
    return sorted(
        op["op_name"] for op in operators if op["op_name"] in computing and floats.intersection(op["outputs"])
    )


@pytest.mark.parametrize(
    ("name", "operators"),
    [
        ("stem_conv", ["CONV_2D", "LOGISTIC", "MUL", "MUL"]),  # one of the two products equalizes
        ("block2a_project_conv", ["CONV_2D"]),
        ("block2b_add", ["ADD"]),
    ],
)
def test_lifting_a_step_leaves_only_its_operators_in_float(
    name: str, operators: list[str], network: Any
) -> None:
    lifted = replace(network, quantized=network.quantized.lift(name))
    assert float_operators(integer_tflite(lifted)) == operators


def test_ends_are_never_lifted(network: Any, held_out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "LARGEST_SHARE", 1.0)
    tried: list[frozenset[str]] = []
    lift = type(network.quantized).lift
    monkeypatch.setattr(
        type(network.quantized),
        "lift",
        lambda self, *names: (found := lift(self, *names), tried.append(found.lifted))[0],
    )
    with pytest.raises(ExportError):
        accuracy.lift_until(network, held_out[:8], 1.1)  # more than there can be
    steps = list(network.reference)
    assert len(tried[-1]) == len(steps) - 3  # the input itself, what reads it, and the output
    assert network.reference.output not in tried[-1]


def test_min_agreement_fails_clearly_when_it_cannot_be_met(network: Any, held_out: Any) -> None:
    with pytest.raises(ExportError, match=r"Expected 110.0% top-1 agreement, 53 of 48 held-out.*Reached"):
        accuracy.lift_until(network, held_out, 1.1)


@pytest.mark.parametrize("share", [0.0, -1.0, 98.0])
def test_min_agreement_is_rejected_when_it_is_no_share(
    share: float, tiny_swish: Any, calibration: Any
) -> None:
    with pytest.raises(InvalidInputError, match="min_agreement as a share between 0 and 1"):
        prepare(tiny_swish, calibration, min_agreement=share)


def test_min_agreement_asks_for_more_photographs_when_there_are_few(
    tiny_swish: Any, calibration: Any
) -> None:
    with (
        pytest.raises(InvalidInputError, match="at least 16 calibration photographs with min_agreement"),
        pytest.warns(UserWarning, match="at least 16"),
    ):
        prepare(tiny_swish, calibration[:8], min_agreement=0.9)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 64, 64, 3)), "empty|Received"),
        (np.full((16, 64, 64, 3), 7.0), "every pixel is 7"),
        (np.full((16, 64, 64, 3), np.nan), "finite"),
        (np.zeros((16, 32, 32, 3)), "64"),
        (np.linspace(-2.1, 2.6, 16 * 64 * 64 * 3).reshape(16, 64, 64, 3), "0-255.*-2.1 to 2.6.*raw pixels"),
        (np.linspace(0, 4000, 16 * 64 * 64 * 3).reshape(16, 64, 64, 3), "0-255.*0 to 4000"),
    ],
)
def test_calibration_is_rejected_when_it_cannot_be_used(
    images: Any, message: str, tiny_swish: Any, tmp_path: Any
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        to_tflite(tiny_swish, tmp_path / "x.tflite", "int8", images)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("int8", {}, "photographs as calibration. Received: an integer network. Pass it as network="),
        ("int16x8", {"network": True}, "a prepared network with recipe 'int8'.*Received: tflite:int16x8"),
        ("float32", {"network": True}, "a prepared network with recipe 'int8'.*Received: tflite:float32"),
        ("int8", {"network": True, "min_agreement": 0.9}, "either a prepared network or min_agreement"),
    ],
)
def test_network_is_refused_where_it_cannot_be_used(
    recipe: str, options: dict[str, Any], message: str, tiny_swish: Any, network: Any, tmp_path: Any
) -> None:
    given = {"network": network} if "network" in options else {"calibration": network}
    with pytest.raises(InvalidInputError, match=message):
        to_tflite(tiny_swish, tmp_path / "x.tflite", recipe, **{**options, **given})


@pytest.mark.parametrize("option", ["input_type", "output_type"])
def test_types_are_rejected_when_unknown(
    option: str, tiny_swish: Any, calibration: Any, tmp_path: Any
) -> None:
    with pytest.raises(InvalidInputError, match=f"Expected {option} to be one of .*Received: 'int4'"):
        to_tflite(tiny_swish, tmp_path / "x.tflite", "int8", calibration, **{option: "int4"})


def test_untrained_model_warns(tiny_variant: Any) -> None:
    from keras_effnet import EfficientNet

    with pytest.warns(UserWarning, match="Expected a trained model"):
        door.warn_if_untrained(EfficientNet(tiny_variant, weights=None, classes=2))


def test_other_models_take_the_plain_path_and_say_so(calibration: Any, tmp_path: Any) -> None:
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((64, 64, 3))
    whole = keras.ops.cast(image, "int32")
    x = keras.layers.Add()([keras.ops.cast(whole, "float32"), keras.ops.cast(whole, "float32")])
    x = keras.layers.MaxPooling2D(4)(keras.layers.Rescaling(1 / 510, name="to_unit")(x))
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x))
    model = keras.Model(image, x)
    with pytest.warns(UserWarning, match="'cast', a Cast, which gives int32.*plain path"):
        path = to_tflite(model, tmp_path / "x.tflite", "int8", iter([calibration[:20], calibration[20:]]))
    expected = model.predict(np.rint(calibration), verbose=0)
    assert np.abs(predict(path.read_bytes(), calibration) - expected).max() < 0.05


def test_calibration_in_unit_range_warns_and_few_pictures_warn(tiny_swish: Any, calibration: Any) -> None:
    with (
        pytest.warns(UserWarning, match="divided by 255 already"),
        pytest.warns(UserWarning, match="at least 16"),
    ):
        door.calibration_images(calibration[:4] / 255, facts_of(tiny_swish))


def test_large_networks_say_how_few_photographs_they_use(
    tiny_lite: Any, calibration: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "WALK_BYTES", 1)
    with pytest.warns(UserWarning, match="Uses 8 of 32 calibration photographs"):
        network = prepare(tiny_lite, calibration, method=Method(weights="keep", rounding="nearest"))
    assert len(network.images) == 8


@pytest.mark.parametrize("recipe", ["int8_qat", "int8_pruned", "int8_clustered", "int16x8"])
def test_min_agreement_is_refused_with_recipes_that_cannot_promise_it(
    recipe: str, tiny_swish: Any, calibration: Any, tmp_path: Any
) -> None:
    with pytest.raises(InvalidInputError, match=f"recipe 'int8'.*Received: tflite:{recipe}"):
        to_tflite(tiny_swish, tmp_path / "x.tflite", recipe, calibration, min_agreement=0.9)


def test_int16x8_refuses_other_ends(tiny_swish: Any, calibration: Any, tmp_path: Any) -> None:
    with pytest.raises(
        InvalidInputError, match=r"int16 at both ends.*Received: tflite:int16x8 with output_type='float32'"
    ):
        to_tflite(tiny_swish, tmp_path / "x.tflite", "int16x8", calibration, output_type="float32")


def test_features_in_integers_keep_their_shape(tiny_swish: Any, calibration: Any, tmp_path: Any) -> None:
    import keras

    onnxruntime = pytest.importorskip("onnxruntime")
    features = keras.Model(tiny_swish.input, tiny_swish.get_layer("block1a_project_bn").output)
    path = to_onnx(features, tmp_path / "x.onnx", "int8", calibration)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": np.transpose(calibration[:2], (0, 3, 1, 2))})[0]
    expected = features.predict(calibration[:2], verbose=0)
    assert found.shape == expected.shape
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


def test_pipeline_reports_what_was_lifted_and_judges_by_what_was_asked(
    tiny_swish: Any, network: Any, held_out: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keras_effnet.export import pipeline, report, tflite
    from keras_effnet.export.options import Options
    from keras_effnet.export.targets import parse_target

    asked: list[float | None] = []
    compare = pipeline.compare

    def watched(runner: Any, reference: Any, images: Any, tolerance: Any, outputs: Any) -> Any:
        asked.append(tolerance.top1_agreement)
        return compare(runner, reference, images, tolerance, outputs)

    monkeypatch.setattr(pipeline, "compare", watched)
    met = replace(network, quantized=network.quantized.lift("stem_conv"), agreement=0.98)
    monkeypatch.setattr(tflite, "prepare", lambda *_, **__: met)
    job = pipeline.Job(
        model=tiny_swish,
        name="tiny",
        targets=[parse_target("tflite:int8"), parse_target("tflite:float32")],
        out=tmp_path / "out",
        images=held_out,
        calibration=network.images,
        options=Options(min_agreement=0.97),
        keep_failed=True,
        rounds=2,
    )
    integer, exact = pipeline.export_job(job)
    assert (integer.lifted, integer.held_out_agreement) == (("stem_conv",), 0.98)
    assert (exact.lifted, exact.held_out_agreement) == ((), None)
    assert asked == [0.97, 1.0]
    odd = replace(integer, islands=({"layer": "'odd', a LayerNormalization", "share_of_values": 0.021},))
    report.write_reports([odd, exact], tmp_path / "out")
    page = (tmp_path / "out" / report.HTML_NAME).read_text(encoding="utf-8")
    assert "not known for it: &#39;odd&#39;, a LayerNormalization (2.1 % of all values)" in page
    assert (
        page.count(
            "98.0 % of the photographs that were kept back from calibration. Left in float for it: stem_conv."
        )
        == 1
    )


def test_int16x8_is_nearly_exact(tiny_swish: Any, calibration: Any, held_out: Any, tmp_path: Any) -> None:
    path = to_tflite(tiny_swish, tmp_path / "x.tflite", "int16x8", calibration)
    opened = interpreter(path.read_bytes())
    (given,), (taken,) = opened.get_input_details(), opened.get_output_details()
    assert given["dtype"] == np.int16
    results = []
    for image in held_out[:8]:
        opened.set_tensor(
            given["index"], np.rint(image / given["quantization"][0])[np.newaxis].astype(np.int16)
        )
        opened.invoke()
        results.append(opened.get_tensor(taken["index"])[0] * taken["quantization"][0])
    assert np.abs(np.stack(results) - tiny_swish.predict(held_out[:8], verbose=0)).max() < 0.15


def test_onnx_equalizes_swishes_only_where_it_is_given_such_a_network(
    tiny_swish: Any, network: Any, calibration: Any, tmp_path: Any
) -> None:
    onnx = pytest.importorskip("onnx")
    factors = {}
    for name, source in (("calibration", {"calibration": calibration}), ("network", {"network": network})):
        graph = onnx.load(to_onnx(tiny_swish, tmp_path / f"{name}.onnx", "int8", **source)).graph
        factors[name] = [tensor.name for tensor in graph.initializer if tensor.name.endswith("/gain")]
    assert not factors["calibration"] and factors["network"]


def test_onnx_keeps_early_stages_in_float_where_it_is_asked_to(
    tiny_swish: Any, calibration: Any, held_out: Any, tmp_path: Any
) -> None:
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    everywhere = prepare(tiny_swish, calibration, target="onnx", first_integer="stem")
    assert not everywhere.floats
    mixed = prepare(tiny_swish, calibration, target="onnx", first_integer="block3a")
    assert "block2b_project_conv" in mixed.floats and "block3a_expand_conv" not in mixed.floats
    path = to_onnx(tiny_swish, tmp_path / "mixed.onnx", "int8", network=mixed)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pixels = np.transpose(np.rint(held_out), (0, 3, 1, 2))
    difference = session.run(None, {"image": pixels})[0] - simulated(mixed, held_out)
    assert np.sqrt(np.mean(difference**2)) < 0.06
    rounded = {node.name for node in onnx.load(path).graph.node if node.op_type == "QuantizeLinear"}
    assert not [name for name in rounded if name.startswith(("stem", "block1", "block2a"))]
    assert {"block3a_expand_conv/uint8", "block3a_expand_conv/sigmoid/uint8"} <= rounded
    goal = mixed.logits(held_out, integer=False)
    ours, theirs = (accuracy.sqnr_db(goal, each.logits(held_out)) for each in (mixed, everywhere))
    assert ours > theirs + 1
    # a kernel in float is stored in 8 bits too
    kernels = {tensor.name: tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert {kernels[name] for name in kernels if name.endswith("/kernel")} == {onnx.TensorProto.INT8}


def test_network_serves_every_format_only_without_swish(network: Any, lite_network: Any) -> None:
    assert lite_network.serves_all and not lite_network.floats
    assert not network.serves_all


def test_tflite_stays_integer_when_onnx_is_exported_first(
    tiny_swish: Any, calibration: Any, held_out: Any, monkeypatch: Any, tmp_path: Any
) -> None:
    pytest.importorskip("onnx")
    from keras_effnet.export import pipeline, report
    from keras_effnet.export.quantization import placement
    from keras_effnet.export.targets import parse_target

    ratios = {"all": (1.2, 0.8), "block3": (0.9, 0.7)}
    monkeypatch.setattr(placement, "measured", lambda *_: ratios)
    job = pipeline.Job(
        model=tiny_swish,
        name="small",
        out=tmp_path,
        targets=[parse_target("onnx:int8"), parse_target("tflite:int8")],
        images=held_out,
        calibration=calibration,
        keep_failed=True,
        rounds=1,
    )
    first, second = pipeline.export_job(job)
    assert (first.runtime, first.first_integer, first.first_integer_ratios) == (
        "onnxruntime",
        "block3",
        ratios,
    )
    assert second.runtime is second.first_integer is None
    page = report.render(
        {"created": "2026-01-31T23:59:01+00:00", "machine": report.machine(), "artifacts": [first.row()]}
    )
    assert '<span class="whole">2026-01-31, 23:59 UTC</span>' in page
    assert f'<span class="whole">{first.agreement:.1%}'.replace("%", " % of ") in page
    assert "in integers from block3 on" in page and "all 1.20 and 0.80, block3 0.90 and 0.70." in page
    (path,) = tmp_path.glob("*.tflite")
    assert float_operators(path.read_bytes()) == []
