"""ONNX files as they are asked for: version of the operators, names, widths, float16 at both ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_effnet import export
from keras_effnet.cli import main
from keras_effnet.errors import InvalidInputError
from keras_effnet.export.options import Options
from keras_effnet.pictures.folders import sample_paths

onnx = pytest.importorskip("onnx")

FLOAT = 1
RECIPES = ("float32", "float16", "float16_gpu", "int8")
OPSETS = (13, 17, 18, 21, 24)


@pytest.fixture(scope="module")
def network(nano: Any) -> Any:
    from keras_effnet.export.quantization.prepare import prepare

    pictures = np.random.default_rng(2).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    return prepare(nano, pictures, target="onnx")


def shape_of(value: Any) -> list[Any]:
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_file_has_the_opset_that_was_asked_for_and_runs(
    nano: Any, network: Any, pixels32: Any, tmp_path: Path, recipe: str, opset: int
) -> None:
    options = {"network": network} if recipe == "int8" else {}
    path = export.to_onnx(nano, tmp_path / "a.onnx", recipe, opset=opset, **options)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", opset)]
    assert model.ir_version == onnx.helper.find_min_ir_version_for(model.opset_import)
    assert np.abs(export.load(path)(pixels32) - nano.predict(pixels32, verbose=0)).max() < 0.05


@pytest.mark.parametrize("opset", [12, 25, 17.5, "17", True])
def test_opset_that_runtimes_do_not_share_is_refused(nano: Any, tmp_path: Path, opset: Any) -> None:
    with pytest.raises(InvalidInputError, match=rf"opset.*from 13 to 24\. Received: {opset!r}"):
        export.to_onnx(nano, tmp_path / "a.onnx", opset=opset)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("batching", ["whole", "each"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_output_has_its_width_and_the_ends_their_names(
    nano: Any, network: Any, pixels32: Any, tmp_path: Path, recipe: str, batching: str
) -> None:
    options = {"network": network} if recipe == "int8" else {}
    path = export.to_onnx(
        nano, tmp_path / "a.onnx", recipe, batching=batching, input_name="x", output_name="y", **options
    )
    graph = onnx.load(path).graph
    ((given,), (taken,)) = graph.input, graph.output
    assert (given.name, shape_of(given)) == ("x", ["batch", 3, 32, 32])
    assert (taken.name, shape_of(taken)) == ("y", ["batch", 3])
    assert export.load(path)(pixels32[:3]).shape == (3, 3)


def test_output_of_a_map_has_all_of_its_sides(nano: Any, tmp_path: Path) -> None:
    import keras

    inner = next(layer for layer in reversed(nano.layers) if len(layer.output.shape) == 4)
    maps = keras.Model(nano.input, inner.output)
    taken = onnx.load(export.to_onnx(maps, tmp_path / "a.onnx")).graph.output[0]
    assert shape_of(taken) == ["batch", *inner.output.shape[1:]]


@pytest.mark.parametrize(("given", "taken"), [("", "y"), ("x", " "), ("x", "x"), (1, "y")])
def test_names_that_no_file_can_have_are_refused(nano: Any, tmp_path: Path, given: Any, taken: Any) -> None:
    with pytest.raises(InvalidInputError, match="as two different names"):
        export.to_onnx(nano, tmp_path / "a.onnx", input_name=given, output_name=taken)


def test_name_of_a_tensor_inside_is_refused(nano: Any, network: Any, tmp_path: Path) -> None:
    (inner, *_) = (
        tensor.name
        for tensor in onnx.load(
            export.to_onnx(nano, tmp_path / "a.onnx", "int8", network=network)
        ).graph.initializer
    )
    with pytest.raises(InvalidInputError, match=f"nothing in the file has yet. Received: '{inner}'"):
        export.to_onnx(nano, tmp_path / "b.onnx", "int8", network=network, output_name=inner)


def test_file_for_gpus_is_float16_from_end_to_end(nano: Any, pixels32: Any, tmp_path: Path) -> None:
    path = export.to_onnx(nano, tmp_path / "a.onnx", "float16_gpu")
    graph = onnx.load(path).graph
    ends = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert ends == {onnx.TensorProto.FLOAT16}
    assert FLOAT not in {tensor.data_type for tensor in graph.initializer}
    assert not [node for node in graph.node if node.op_type == "Cast"]
    assert export.verify(nano, path, pixels32).ok


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"runtime": "tensorrt"},
            "runtime with recipe 'int8' of ONNX. Received: onnx:float32 with runtime='tensorrt'",
        ),
        ({"first_integer": "block3"}, "first_integer with recipe 'int8' of ONNX"),
        ({"runtime": "tensorflow"}, "runtime to be one of onnxruntime, openvino, tensorrt.*Did you mean"),
    ],
)
def test_option_for_integers_is_refused_by_other_recipes(
    nano: Any, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        export.to_onnx(nano, tmp_path / "a.onnx", **options)


def test_prepared_network_is_refused_beside_a_place_to_begin(nano: Any, network: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="either a prepared network or first_integer"):
        export.to_onnx(nano, tmp_path / "a.onnx", "int8", network=network, first_integer="stem")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--onnx-opset", "12"], "opset as a whole number from 13 to 24"),
        (["--onnx-runtime", "tensorrt"], "runtime with recipe 'int8' of ONNX"),
        (["--onnx-output-name", "x", "--onnx-input-name", "x"], "as two different names"),
    ],
)
def test_command_refuses_what_no_file_can_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert main(["export", "lite0", "--to", "onnx:float32", "--out", str(tmp_path / "out"), *flags]) == 2
    assert words in capsys.readouterr().err


def test_options_are_those_of_a_plain_export_when_nobody_asks() -> None:
    assert Options().asked == ()


def test_command_writes_the_file_that_it_was_asked_for(
    nano: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nano.save(tmp_path / "nano.keras")
    flags = ["--onnx-runtime", "tensorrt", "--onnx-opset", "19", "--onnx-input-name", "pixels"]
    calibration = ["--calibration", str(sample_paths()[0].parent), "--keep-failed", "--no-html", "--json"]
    out = tmp_path / "out"
    main(
        ["export", str(tmp_path / "nano.keras"), "--to", "onnx:int8", "--out", str(out), *calibration, *flags]
    )
    (row,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert (row["runtime"], row["first_integer"], row["first_integer_ratios"]) == ("tensorrt", "all", {})
    model = onnx.load(out / "nano_int8.onnx")
    assert model.opset_import[0].version == 19 and model.graph.input[0].name == "pixels"
