"""Every target: agreement with Keras through its own runtime, and the promises about the graph."""

from __future__ import annotations

import collections
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from material import build_nano, slim_variant

from keras_effnet import EfficientNet, export
from keras_effnet.errors import ExportError, InvalidInputError, MissingExtraError
from keras_effnet.export import onnx_model, tflite
from keras_effnet.export.model_facts import facts_of
from keras_effnet.export.options import Options
from keras_effnet.export.targets import TARGETS, get_target, parse_target, write_artefact
from keras_effnet.system.files import staged

LABELS = [f"kind {index}" for index in range(7)]
# training in integers has tests of its own
TRAINED = {f"tflite:{name}" for name in ("int8_qat", "int8_pruned", "int8_clustered")}  # they take minutes
QUICK = [target for target in TARGETS if target not in TRAINED]
TFLITE = [TARGETS[target].recipe for target in QUICK if TARGETS[target].format == "tflite"]
FLOAT_TARGETS = [
    "saved_model",
    "tflite:float32",
    "tflite:float16",
    "onnx:float32",
    "onnx:float16",
    "onnx:float16_gpu",
]


def write(model: Any, folder: Path, target: str, **options: Any) -> Path:
    """Export to any target."""
    row = parse_target(target)
    path = folder / f"model_{target.replace(':', '_')}{row.suffix}"
    if row.format == "saved_model":
        return export.to_saved_model(model, path, **options)
    exporter = export.to_tflite if row.format == "tflite" else export.to_onnx
    return exporter(model, path, row.recipe, **options)


def partitions(path: Path) -> collections.Counter[str]:
    """Operators of a TFLite file as the interpreter plans them; DELEGATE is one XNNPACK partition."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    return collections.Counter(details["op_name"] for details in interpreter._get_ops_details())


@pytest.fixture(scope="module")
def artefacts(slim: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("artefacts")
    pictures = np.random.default_rng(3).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    facts, made = facts_of(slim, labels=LABELS), {}
    for target in QUICK:
        row = TARGETS[target]
        path = folder / f"model_{target.replace(':', '_')}{row.suffix}"
        made[target] = write_artefact(row, facts, path, Options(), pictures if row.integer else None)
    return made


def test_files_of_one_job_compute_what_those_written_alone_do_after_fewer_conversions(
    nano: Any, pixels32: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = []
    for module in (tflite, onnx_model):
        name = "convert_float" if module is tflite else "_simplified"
        convert = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, act=convert: (converted.append(act), act(*args))[1])
    facts = facts_of(nano)
    for target in ("tflite:float32", "tflite:float16", "onnx:float32", "onnx:float16_gpu"):
        row = TARGETS[target]
        together = write_artefact(row, facts, tmp_path / f"{row.format}_{row.recipe}{row.suffix}", Options())
        (tmp_path / row.format).mkdir(exist_ok=True)
        alone = write(nano, tmp_path / row.format, target)  # tf2onnx numbers its names along the process
        np.testing.assert_array_equal(*(export.load(path)(pixels32) for path in (together, alone)))
    assert len(converted) == 2 + 4  # of the job, and of each alone


@pytest.mark.parametrize("target", FLOAT_TARGETS)
def test_float_artefact_agrees_with_keras(artefacts: Any, slim: Any, pixels32: Any, target: str) -> None:
    report = export.verify(slim, artefacts[target], pixels32)
    assert report.ok
    assert report.max_abs_error <= (5e-3 if "float16" in target else 1e-4)
    assert report.top1_agreement == 1.0


@pytest.mark.parametrize("target", QUICK)
def test_artefact_carries_labels_recipe_and_preprocessing(artefacts: Any, target: str) -> None:
    runner = export.load(artefacts[target])
    assert runner.labels == tuple(LABELS)
    assert runner.recipe == TARGETS[target].recipe
    assert runner.info is not None
    assert runner.info.preprocessing == "(x / 255 - [0.485 0.456 0.406]) / [0.229 0.224 0.225]"
    assert runner.size == (32, 32) and runner.channels == 3


@pytest.mark.parametrize("target", QUICK)
def test_runner_takes_uint8_and_float_pixels_alike(artefacts: Any, pixels32: Any, target: str) -> None:
    runner = export.load(artefacts[target])
    from_bytes, from_floats = runner(pixels32), runner(pixels32.astype("float32"))
    assert from_bytes.shape == (16, 7) and from_bytes.dtype == np.float32
    np.testing.assert_allclose(from_bytes, from_floats, atol=1e-6)


@pytest.mark.parametrize("target", ["saved_model", "onnx:float32", "onnx:float16", "onnx:int8"])
def test_batch_is_dynamic(artefacts: Any, pixels32: Any, target: str) -> None:
    runner = export.load(artefacts[target])
    assert runner.dynamic_batch
    single = np.concatenate([runner(pixels32[index : index + 1]) for index in range(16)])
    np.testing.assert_allclose(runner(pixels32), single, atol=1e-5)


@pytest.mark.parametrize("recipe", TFLITE)
def test_tflite_is_static_named_and_has_no_other_operators(artefacts: Any, recipe: str) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(artefacts[f"tflite:{recipe}"]))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}
    }
    (entry,) = interpreter.get_input_details()
    assert list(entry["shape"]) == list(entry["shape_signature"]) == [1, 32, 32, 3]
    names = {details["op_name"] for details in interpreter._get_ops_details()}
    assert not [name for name in names if name.startswith("Flex") or name == "CUSTOM"]


@pytest.mark.parametrize("recipe", [name for name in TFLITE if name not in ("weight_int8", "int16x8")])
def test_tflite_runs_as_one_xnnpack_partition(artefacts: Any, recipe: str) -> None:
    assert partitions(artefacts[f"tflite:{recipe}"])["DELEGATE"] == 1


def test_partition_counter_notices_an_operator_in_between(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3), batch_size=1)
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.ops.cumsum(x, axis=1)  # XNNPACK has no such operator
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
    path = export.to_tflite(keras.Model(inputs, outputs), tmp_path / "split.tflite")
    assert partitions(path)["DELEGATE"] == 2


def test_tflite_int8_pixel_is_its_own_quantized_value(artefacts: Any) -> None:
    from ai_edge_litert.interpreter import Interpreter

    (entry,) = Interpreter(str(artefacts["tflite:int8"])).get_input_details()
    scale, zero_point = entry["quantization"]
    assert scale == 1.0 and (zero_point, entry["dtype"]) in ((-128, np.int8), (0, np.uint8))


def test_tflite_metadata_follows_the_published_layout(artefacts: Any) -> None:
    """Read by field number, as the specification numbers them, not with our own writer."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers.table import Table

    content = artefacts["tflite:float32"].read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    entry = next(
        model.Metadata(i)
        for i in range(model.MetadataLength())
        if model.Metadata(i).Name() == b"TFLITE_METADATA"
    )
    data = bytes(model.Buffers(entry.Buffer()).DataAsNumpy())
    assert data[4:8] == b"M001"
    root = Table(data, int.from_bytes(data[:4], "little"))

    def child(table: Table, field: int) -> Table:
        offset = table.Offset(4 + 2 * field)
        return Table(data, table.Indirect(table.Pos + offset))

    def first(table: Table, field: int) -> Table:
        return Table(data, table.Indirect(table.Vector(table.Offset(4 + 2 * field))))

    def text(table: Table, field: int) -> str:
        return bytes(table.String(table.Pos + table.Offset(4 + 2 * field))).decode()

    subgraph = first(root, 3)
    image, scores = first(subgraph, 2), first(subgraph, 3)
    assert (text(image, 0), text(scores, 0)) == ("image", "probabilities")
    assert text(first(scores, 6), 0) == "labels.txt"
    assert child(image, 3).Offset(6)  # content: image properties
    assert zipfile.ZipFile(artefacts["tflite:float32"]).read("labels.txt").decode().split("\n")[1] == "kind 1"


@pytest.mark.parametrize("recipe", ["float32", "float16"])
def test_onnx_in_nchw_holds_no_transpose_and_folds_constants(artefacts: Any, recipe: str) -> None:
    model = onnx.load(artefacts[f"onnx:{recipe}"])
    onnx.checker.check_model(model, full_check=True)
    kinds = collections.Counter(node.op_type for node in model.graph.node)
    assert kinds["Transpose"] == kinds["Reshape"] == kinds["Constant"] == kinds["BatchNormalization"] == 0
    (entry,) = model.graph.input  # a folded constant must not have become an input
    assert [d.dim_value or d.dim_param for d in entry.type.tensor_type.shape.dim] == ["batch", 3, 32, 32]
    properties = {p.key: p.value for p in model.metadata_props}
    assert json.loads(properties["labels"]) == LABELS
    assert "pixels 0-255" in properties["preprocessing"]


@pytest.mark.parametrize("recipe", ["float32", "float16"])
def test_onnx_in_nhwc_transposes_once_at_the_start(
    slim: Any, pixels32: Any, tmp_path: Path, recipe: str
) -> None:
    path = export.to_onnx(slim, tmp_path / "a.onnx", recipe, layout="nhwc", labels=LABELS)
    kinds = [node.op_type for node in onnx.load(path).graph.node if node.op_type != "Cast"]
    assert kinds.count("Transpose") == 1 and "Transpose" in kinds[:3]
    assert export.verify(slim, path, pixels32).ok
    assert export.load(path).info.layout == "nhwc"


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("recipe", ["float32", "float16"])
def test_onnx_that_takes_each_picture_alone_agrees_at_any_batch(
    nano: Any, pixels32: Any, tmp_path: Path, recipe: str, layout: str
) -> None:
    path = export.to_onnx(
        nano, tmp_path / "a.onnx", recipe, layout=layout, labels=LABELS[:3], batching="each"
    )
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Scan"] and not model.graph.initializer
    (entry,) = model.graph.input
    assert entry.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert export.verify(nano, path, pixels32).ok  # also at a second batch size
    assert export.load(path).labels == tuple(LABELS[:3])


def test_unknown_batching_is_refused(nano: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"batching.*whole.*each"):
        export.to_onnx(nano, tmp_path / "a.onnx", batching="all")


def test_half_precision_and_weight_files_are_smaller(artefacts: Any) -> None:
    size = {target: path.stat().st_size for target, path in artefacts.items() if path.is_file()}
    assert size["tflite:float16"] < 0.75 * size["tflite:float32"]
    assert size["onnx:float16"] < 0.75 * size["onnx:float32"]
    assert size["tflite:weight_int8"] < size["tflite:float16"]


def test_saved_model_stores_each_variable_once(artefacts: Any, slim: Any) -> None:
    data = next(artefacts["saved_model"].rglob("variables.data*")).stat().st_size
    assert data < 1.2 * 4 * slim.count_params()


def test_open_input_size_is_closed_at_export(tmp_path: Path) -> None:
    model = build_nano(input_shape=(None, None, 3))
    with pytest.raises(InvalidInputError, match=r"known input size.*Pass size="):
        export.to_tflite(model, tmp_path / "a.tflite")
    path = export.to_tflite(model, tmp_path / "a.tflite", size=96)
    assert export.load(path).size == (96, 96)


def test_open_input_size_of_a_published_variant_is_its_own(tmp_path: Path) -> None:
    model = EfficientNet("lite2", weights=None, classes=2, input_shape=(None, None, 3))
    assert facts_of(model).shape == (260, 260, 3)


def test_features_export_too(pixels32: Any, tmp_path: Path) -> None:
    features = EfficientNet(
        slim_variant(), weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3)
    )
    path = export.to_onnx(features, tmp_path / "f.onnx")
    assert export.verify(features, path, pixels32).ok
    assert export.load(path)(pixels32).shape == (16, 1280)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, p: export.to_tflite(m, p, "int7"), "Did you mean 'int8'"),
        (
            lambda m, p: export.to_onnx(m, p, "float64"),
            "recipe for onnx to be one of float32, float16, float16_gpu, int8",
        ),
        (lambda m, p: export.to_onnx(m, p, layout="nwhc"), "Did you mean"),
        (
            lambda m, p: export.to_tflite(m, p, "int8"),
            "calibration photographs for recipe 'int8'. Received: none",
        ),
        (lambda m, p: export.to_tflite(m, p, "int8", np.zeros((0, 64, 64, 3))), "no picture at all"),
        (lambda m, p: export.to_tflite(m, p, "int8", []), "no picture at all"),
        (lambda m, p: export.to_tflite(m, p, "int8", 5), r"\[N, 64, 64, 3\] or an iterable.*Received: 5\."),
        (lambda m, p: export.to_onnx(m, p, size=96), "input is 64 × 64 pixels. Received: 96. Leave it out"),
        (lambda m, p: export.to_onnx(m, p, size=16), "whole number of at least 32 pixels. Received: 16"),
        (lambda m, p: export.to_onnx(m, p, size="64"), "whole number of at least 32 pixels. Received: '64'"),
        (
            lambda m, p: export.to_tflite(m, p, "int8", np.ones((20, 32, 32, 3)) * 9),
            r"\[N, 64, 64, 3\]. Received",
        ),
        (lambda m, p: export.to_tflite(m, p, "int8", np.full((20, 64, 64, 3), 9.0)), "every pixel is 9"),
        (lambda m, p: export.to_tflite(m, p, "int8", np.full((20, 64, 64, 3), np.nan)), "NaN"),
        (lambda m, p: export.to_saved_model(m, p, labels=["one"]), "Expected 7 labels.*Received: 1"),
        (lambda m, p: export.to_onnx(m, p, labels=[]), "Expected 7 labels.*Received: 0"),
        (lambda m, p: export.to_tflite(m, p, labels="abcdefg"), "list of texts. Received: 'abcdefg'"),
        (
            lambda m, p: export.to_tflite(m, p, labels=[*LABELS[:6], "a\nb"]),
            r"one line each. Received: 'a\\nb'",
        ),
        (lambda m, p: export.to_tflite(m, p, labels=[*LABELS[:6], 7]), "Received in it: 7"),
        (lambda m, p: export.to_tflite(m, p, labels=7), "list of texts. Received: 7. Pass a list"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(tiny: Any, tmp_path: Path, call: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call(tiny, tmp_path / "new" / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("exporter", [export.to_saved_model, export.to_tflite, export.to_onnx])
def test_existing_path_is_kept_unless_overwriting(nano: Any, tmp_path: Path, exporter: Any) -> None:
    path = tmp_path / "taken"
    path.write_text("precious")
    with pytest.raises(InvalidInputError, match=r"does not exist yet.*overwrite=True"):
        exporter(nano, path)
    assert path.read_text() == "precious"


def test_overwriting_replaces_a_directory(tmp_path: Path) -> None:
    nano = build_nano(input_shape=(32, 32, 4))  # without `serve_bytes`, which takes seconds to trace
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("x")
    export.to_saved_model(nano, path, overwrite=True)
    assert not (path / "old").exists() and (path / "saved_model.pb").is_file()
    assert list(tmp_path.iterdir()) == [path]


def test_path_with_spaces_and_other_letters_works(tmp_path: Path) -> None:
    nano = build_nano(input_shape=(32, 32, 4))  # as above
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 4), np.uint8)
    for target in ("saved_model", "tflite:float32", "onnx:float32"):
        folder = tmp_path / "mit Leerzeichen" / "écran 写真"
        assert export.verify(nano, write(nano, folder, target), pixels).ok


def test_staged_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with (
        pytest.raises(ExportError, match=r"No space left on device.*nothing was left behind"),
        staged(path, overwrite=True) as temporary,
    ):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_staged_removes_folders_it_created_when_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "new" / "deep" / "a") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_staged_names_the_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(InvalidInputError, match=r"Expected a folder to write 'a' to"),
        staged(tmp_path / "file" / "a"),
    ):
        pass


def test_missing_extra_is_reported_with_the_pip_line(
    monkeypatch: pytest.MonkeyPatch, nano: Any, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)  # not installed, wherever this runs
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[onnx\]'"):
        export.to_onnx(nano, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "expected"), [("tflite", "tflite:float32"), ("ONNX:float16", "onnx:float16")]
)
def test_parse_target_understands_short_forms(target: str, expected: str) -> None:
    assert parse_target(target).name == expected


def test_get_target_lists_the_recipes_of_the_format() -> None:
    with pytest.raises(InvalidInputError, match="float32, float16, weight_int8, int8"):
        get_target("tflite", "half")
