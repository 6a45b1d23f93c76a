"""Several outputs by name: through every target and runtime, with what each of them is."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import build_nano, randomize

from keras_effnet import EfficientNet, export
from keras_effnet.errors import InvalidInputError
from keras_effnet.export.model_facts import facts_of
from keras_effnet.export.options import Options
from keras_effnet.export.outputs import Output, outputs_of
from keras_effnet.export.targets import parse_target, write_artefact

layers = keras.layers

# of `heads`: two of the same width, one of another, one of a single column, features and a map that is read inside
KINDS = {
    "second": "classes",
    "first": "classes",
    "tags": "sigmoids",
    "is_cat": "sigmoid",
    "features": "embedding",
    "places": "map",
}
LABELS = {"first": ["a", "b", "c"], "tags": ["red", "green", "blue", "large"], "is_cat": ["dog", "cat"]}
TARGETS = [
    "saved_model",
    "tflite:float32",
    "tflite:float16",
    "tflite:weight_int8",
    "tflite:int8",
    "tflite:int16x8",
    "onnx:float32",
    "onnx:float16",
    "onnx:int8",
]
EXACT = {"saved_model": 1e-5, "tflite:float32": 1e-5, "onnx:float32": 1e-5}


@pytest.fixture(scope="module")
def heads() -> Any:
    """The nano network with all kinds of output, in a dictionary whose order is not that of the alphabet."""
    base = build_nano()
    features, places = (base.get_layer(name).output for name in ("avg_pool", "stem_activation"))
    made = {
        "second": layers.Dense(3, "softmax", name="head_b")(features),
        "first": layers.Dense(3, "softmax", name="head_a")(features),
        "tags": layers.Dense(4, "sigmoid", name="head_c")(features),
        "is_cat": layers.Dense(1, "sigmoid", name="head_d")(features),
        "features": features,
        "places": places,
    }
    model = keras.Model(base.input, made, name="heads")
    randomize(model)
    for name in "abcd":  # else all pictures look alike
        layer = model.get_layer(f"head_{name}")
        layer.kernel.assign(layer.kernel * 8)
    return model


@pytest.fixture(scope="module")
def pictures() -> Any:
    """Some that differ: each of another brightness in each channel, uint8 `[16, 32, 32, 3]`."""
    rng = np.random.default_rng(2)
    shades = rng.uniform(0, 1, (16, 1, 1, 3))
    return (shades * rng.integers(0, 256, (16, 32, 32, 3))).astype(np.uint8)


def write(model: Any, path: Path, target: str, calibration: Any, **options: Any) -> Path:
    facts = facts_of(model, labels=options.pop("labels", None), kinds=options.pop("kinds", None))
    return write_facts(facts, path, target, calibration, **options)


def write_facts(facts: Any, path: Path, target: str, calibration: Any, **options: Any) -> Path:
    row = parse_target(target)
    path = path / f"m_{target.replace(':', '_')}{row.suffix}"
    return write_artefact(row, facts, path, Options(**options), calibration)


@pytest.fixture(scope="module")
def files(heads: Any, pictures: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("heads")
    facts = facts_of(heads, labels=LABELS)
    return {target: write_facts(facts, folder, target, pictures) for target in TARGETS}


@pytest.fixture(scope="module")
def expected(heads: Any, pictures: Any) -> dict[str, Any]:
    return dict(heads.predict(pictures, verbose=0))


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_gives_all_outputs_by_name(
    heads: Any, files: Any, expected: Any, pictures: Any, target: str
) -> None:
    runner = export.load(files[target])
    found = runner(pictures)
    assert list(found) == list(KINDS) == list(runner.names)
    for name, values in expected.items():
        assert found[name].shape == values.shape and found[name].dtype == np.float32
        assert np.abs(found[name] - values).max() <= EXACT.get(target, 0.05) * max(1, np.abs(values).max())
    report = export.verify(heads, files[target], pictures)
    assert {output.name: output.kind for output in report.outputs} == KINDS


@pytest.mark.parametrize("target", TARGETS)
def test_artefact_says_what_each_output_is_and_names_its_classes(files: Any, target: str) -> None:
    runner = export.load(files[target])
    assert runner.info is not None and runner.labels == ()
    assert runner.info.outputs == tuple(
        Output(name=name, kind=kind, labels=tuple(LABELS.get(name, ()))) for name, kind in KINDS.items()
    )


@pytest.mark.parametrize("target", ["tflite:float32", "tflite:int8"])
def test_litert_gives_the_outputs_through_the_signature(
    files: Any, expected: Any, pictures: Any, target: str
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    signature = Interpreter(str(files[target])).get_signature_runner("serving_default")
    kind = np.uint8 if target == "tflite:int8" else np.float32
    made = signature(image=pictures[:1].astype(kind))
    for name, details in signature.get_output_details().items():
        assert details["dtype"] == kind
        scale, zero = details["quantization"]
        values = (made[name].astype(np.float32) - zero) * scale if scale else made[name]
        np.testing.assert_allclose(values, expected[name][:1], atol=0.05 * np.abs(expected[name]).max())
    if target == "tflite:int8":
        ends = {name: d["quantization"] for name, d in signature.get_output_details().items()}
        assert {ends[name] for name in ("first", "second", "tags", "is_cat")} == {(1 / 256, 0)}
        assert ends["features"][0] != 1 / 256 != ends["places"][0]


@pytest.mark.parametrize("target", ["onnx:float32", "onnx:int8"])
def test_onnx_runtime_gives_the_outputs_by_name(
    files: Any, expected: Any, pictures: Any, target: str
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(files[target]))
    pixels = pictures.transpose(0, 3, 1, 2).astype(np.float32)
    for name, values in expected.items():
        (found,) = session.run([name], {"image": pixels})
        np.testing.assert_allclose(found, values, atol=0.05 * np.abs(values).max())
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["labels"]) == LABELS


def test_saved_model_gives_every_output_of_encoded_pictures(files: Any, heads: Any, pictures: Any) -> None:
    import tensorflow as tf

    signatures = tf.saved_model.load(str(files["saved_model"])).signatures
    assert set(signatures["serving_default"].structured_outputs) == set(KINDS)
    encoded = [tf.io.encode_png(pictures[0]), tf.constant(b"no picture")]
    for values in signatures["serve_bytes"](image_bytes=tf.stack(encoded)).values():
        assert np.isfinite(values[0]).all() and np.isnan(values[1]).all()


@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_onnx_that_takes_each_picture_alone_has_all_outputs(
    heads: Any, pictures: Any, tmp_path: Path, recipe: str
) -> None:
    path = write(heads, tmp_path, f"onnx:{recipe}", pictures, batching="each", layout="nhwc")
    assert export.verify(heads, path, pictures).ok
    assert export.load(path)(pictures[:5])["places"].shape == (5, 16, 16, 8)


@pytest.mark.parametrize("output_type", ["int8", "float32"])
def test_every_end_of_an_integer_file_has_the_type_that_was_asked_for(
    heads: Any, pictures: Any, tmp_path: Path, output_type: str
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    path = write(heads, tmp_path, "tflite:int8", pictures, output_type=output_type)
    details = Interpreter(str(path)).get_signature_runner().get_output_details()
    assert {entry["dtype"] for entry in details.values()} == {np.dtype(output_type).type}
    assert export.verify(heads, path, pictures).ok


def test_metadata_names_classes_only_where_there_are_any(files: Any) -> None:
    """Read with MediaPipe's schema where it is installed, so not with our own writer."""
    path = files["tflite:int8"]
    with zipfile.ZipFile(path) as archive:
        found = {name: archive.read(name).decode().splitlines() for name in archive.namelist()}
    assert found == {f"labels_{name}.txt": lines for name, lines in LABELS.items()}
    schema = pytest.importorskip("mediapipe.tasks.metadata.metadata_schema_py_generated")
    from ai_edge_litert import schema_py_generated as tflite

    model = tflite.Model.GetRootAs(path.read_bytes(), 0)
    entries = [model.Metadata(index) for index in range(model.MetadataLength())]
    (place,) = (entry.Buffer() for entry in entries if entry.Name() == b"TFLITE_METADATA")
    content = bytes(model.Buffers(place).DataAsNumpy())
    graph = schema.ModelMetadata.GetRootAs(content, 0).SubgraphMetadata(0)
    told = [graph.OutputTensorMetadata(index) for index in range(graph.OutputTensorMetadataLength())]
    signature = model.SignatureDefs(0)
    by_tensor = {
        signature.Outputs(i).TensorIndex(): signature.Outputs(i).Name().decode()
        for i in range(signature.OutputsLength())
    }
    in_order = [by_tensor[index] for index in model.Subgraphs(0).OutputsAsNumpy()]
    assert [tensor.Name().decode() for tensor in told] == in_order
    for tensor in told:
        name = tensor.Name().decode()
        labelled = [f"labels_{name}.txt".encode()] if name in LABELS else []
        assert [tensor.AssociatedFiles(i).Name() for i in range(tensor.AssociatedFilesLength())] == labelled
        assert (tensor.Stats() is None) == (name in ("features", "places"))


def test_single_embedding_says_so_and_keeps_the_name_that_clients_know(
    heads: Any, pictures: Any, tmp_path: Path
) -> None:
    model = keras.Model(heads.input, heads.output["features"])
    path = export.to_tflite(model, tmp_path / "e.tflite")
    runner = export.load(path)
    assert runner.names == ("probabilities",) and runner(pictures).shape == (16, 8)
    assert runner.info.outputs == (Output(name="probabilities", kind="embedding"),)
    assert b"features of the picture" in path.read_bytes()
    assert b"probability of each class" not in path.read_bytes()


def test_single_classifier_says_no_more_than_it_did(nano: Any, tmp_path: Path) -> None:
    runner = export.load(export.to_tflite(nano, tmp_path / "c.tflite"))
    assert runner.info.outputs == () and "outputs" not in json.loads(runner.info.to_json())


@pytest.mark.parametrize("kind", [list, tuple])
def test_outputs_in_a_row_leave_by_the_names_of_their_layers(
    heads: Any, pictures: Any, tmp_path: Path, kind: Any
) -> None:
    made = kind(heads.output[name] for name in ("second", "first", "places"))
    model = keras.Model(heads.input, made)
    path = write(model, tmp_path, "tflite:float32", None)
    assert export.load(path).names == ("head_b", "head_a", "stem_activation")
    assert export.verify(model, path, pictures).ok


def test_logits_and_what_is_made_of_them_leave_in_integers_together(
    heads: Any, pictures: Any, tmp_path: Path
) -> None:
    """The softmax needs logits of its own: in TFLite's integers it ends on a fixed scale."""
    logits = layers.Dense(5, name="logits")(heads.output["features"])
    made = {
        "a": logits,
        "b": layers.Softmax()(logits),
        "c": layers.Activation("sigmoid")(logits),
        "d": logits,
    }
    model = keras.Model(heads.input, made)
    randomize(model.get_layer("logits"), seed=4)
    for target in ("tflite:int8", "onnx:int8"):
        report = export.verify(
            model, write(model, tmp_path, target, pictures), pictures, raise_on_failure=False
        )
        assert min(output.sqnr_db for output in report.outputs) > 25, target


def test_output_that_integers_are_not_known_for_leaves_in_integers_beside_others(
    heads: Any, pictures: Any, tmp_path: Path
) -> None:
    features = heads.output["features"]
    odd = keras.ops.sin(features)
    made = {"odd": odd, "more": keras.ops.cos(odd), "first": heads.output["first"], "features": features}
    model = keras.Model(heads.input, made)
    with pytest.warns(UserWarning, match="Integers are not known for"):
        path = write(model, tmp_path, "tflite:int8", pictures)
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(str(path)).get_signature_runner().get_output_details()
    assert {entry["dtype"] for entry in details.values()} == {np.uint8}
    report = export.verify(model, path, pictures, raise_on_failure=False)
    assert min(output.sqnr_db for output in report.outputs) > 25


@pytest.mark.parametrize("target", ["tflite:int8", "onnx:int8"])
def test_endpoints_leave_in_integers(tiny_variant: Any, tmp_path: Path, target: str) -> None:
    model = EfficientNet(
        tiny_variant, False, None, input_shape=(64, 64, 3), endpoints=(1, 2, 3), dropout_rate=0.0
    )
    randomize(model)
    pictures = np.random.default_rng(3).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    path = write(model, tmp_path, target, pictures)
    report = export.verify(model, path, pictures, raise_on_failure=False)
    assert [output.kind for output in report.outputs] == ["map"] * 3
    assert min(output.sqnr_db for output in report.outputs) > 15
    assert export.load(path)(pictures[:2])["reduction_3"].shape[:3] == (2, 8, 8)


def _ending(*ending: Any) -> Any:
    image = keras.Input((32, 32, 3))
    return keras.Sequential([image, layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), *ending])


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ([layers.Dense(3, "softmax")], "classes"),
        ([layers.Dense(3), layers.Softmax()], "classes"),
        ([layers.Dense(3), layers.Activation("softmax"), layers.Dropout(0.1)], "classes"),
        ([layers.Dense(1, "sigmoid")], "sigmoid"),
        ([layers.Dense(3), layers.Activation("sigmoid")], "sigmoids"),
        ([layers.Dense(3)], "logits"),
        ([layers.Dense(3), layers.Activation("linear"), layers.Reshape((3,))], "logits"),
        ([layers.Dense(3, "relu")], "embedding"),
        ([layers.Dense(3), layers.UnitNormalization()], "embedding"),
        ([], "embedding"),
        ([layers.Reshape((1, 1, 4))], "map"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kind_of_an_output_is_found_in_its_layers(ending: Any, kind: str) -> None:
    (found,) = outputs_of(_ending(*ending))
    assert (found.name, found.kind) == ("probabilities", kind)


def test_kind_of_an_output_is_found_behind_keras_ops_and_inside_a_nested_model() -> None:
    inner = _ending(layers.Dense(3))
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, {"a": keras.ops.softmax(inner(image)), "b": inner(image)})
    assert [output.kind for output in outputs_of(model)] == ["classes", "logits"]


def test_labels_make_features_logits_and_find_the_output_that_they_fit(heads: Any) -> None:
    features = keras.Model(heads.input, heads.output["features"])
    (found,) = outputs_of(features, labels=list("abcdefgh"))
    assert found == Output(name="probabilities", kind="logits", labels=tuple("abcdefgh"))
    fitted = outputs_of(heads, labels=["red", "green", "blue", "large"])
    assert {output.name for output in fitted if output.labels} == {"tags"}
    sides = outputs_of(heads, labels=["dog", "cat"])  # of the single sigmoid
    assert {output.name for output in sides if output.labels} == {"is_cat"}


def test_several_outputs_keep_the_class_names_that_the_model_carries(tiny_variant: Any) -> None:
    from keras_effnet import transfer

    model = transfer.classifier(tiny_variant, ["cat", "dog"], weights=None, input_shape=(32, 32, 3))
    both = keras.Model(model.input, {"class": model.output, "features": model.get_layer("avg_pool").output})
    assert [output.labels for output in outputs_of(both)] == [("cat", "dog"), ()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": "embedding"}, "kinds by output, of which there are 6: second, first.*kinds={'second'"),
        ({"kinds": {"frist": "classes"}}, "an output to be one of second.*Did you mean 'first'"),
        ({"kinds": {"first": "class"}}, "kind of an output to be one of classes.*Did you mean 'classes'"),
        ({"kinds": {"places": "classes"}}, r"'places', whose shape is \[16, 16, 8\].*to be map"),
        ({"kinds": {"tags": "sigmoid"}}, "'tags'.*to be classes or sigmoids or logits or embedding"),
        ({"labels": ["a", "b", "c"]}, "labels by output.*3 labels, which fit second and first"),
        ({"labels": list("abcdefghi")}, "9 labels, which fit none"),
        ({"labels": {"first": ["a"]}}, "Expected 3 labels, one for each output of 'first'. Received: 1"),
        ({"labels": {"x": ["a"]}}, "labels by output, each to be one of second"),
        ({"labels": {"places": list("abcdefgh")}}, "labels for 'places', map .*which has none"),
        ({"labels": LABELS, "kinds": {"tags": "embedding"}}, "labels for 'tags', embedding"),
    ],
)
def test_kinds_and_labels_that_do_not_fit_are_refused(heads: Any, options: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as raised:
        outputs_of(heads, **options)
    assert len(str(raised.value).splitlines()) == 1


def test_outputs_without_names_of_their_own_are_refused(heads: Any) -> None:
    head = heads.output
    twice = keras.Model(heads.input, [head["first"], head["first"]])
    nested = keras.Model(heads.input, {"a": [head["first"], head["second"]], "b": head["tags"]})
    for model, message in (
        (
            twice,
            r"names of their own.*2, of which several come from the layer 'head_a'.*Name them: keras.Model",
        ),
        (nested, "one tensor, a list or a dictionary of tensors. Received: lists or dictionaries inside one"),
        (keras.Model(heads.input, {1: head["first"], 2: head["tags"]}), "outputs with names. Received: 1"),
    ):
        with pytest.raises(InvalidInputError, match=message) as raised:
            facts_of(model)
        assert len(str(raised.value).splitlines()) == 1
