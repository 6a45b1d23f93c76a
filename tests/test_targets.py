"""What the targets need is known before the work begins."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from material import ROOT

from keras_effnet import export
from keras_effnet.cli import main
from keras_effnet.errors import InvalidInputError, MissingExtraError
from keras_effnet.export.options import OnnxRecipe, Options, TFLiteRecipe
from keras_effnet.export.targets import TARGETS, check_installed, check_options
from keras_effnet.pictures.folders import sample_paths


@pytest.mark.parametrize(
    ("target", "module", "extra"),
    [
        ("tflite:float32", "ai_edge_litert", "tflite"),
        ("tflite:weight_int8", "litert_quantizer", "tflite"),
        ("tflite:int8", "threadpoolctl", "tflite"),
        ("tflite:int8", "scipy", "tflite"),
        ("tflite:int8_clustered", "tensorflow_model_optimization", "qat"),
        ("tflite:int8_pruned", "tf_keras", "qat"),
        ("onnx:float32", "onnx", "onnx"),
        ("onnx:float16", "onnxruntime", "onnx"),
        ("onnx:int8", "threadpoolctl", "onnx"),
        ("onnx:int8", "scipy", "onnx"),
    ],
)
def test_missing_package_is_told_with_its_pip_line(
    target: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # not installed, wherever this runs
    with pytest.raises(MissingExtraError) as caught:
        check_installed([TARGETS["saved_model"], TARGETS[target]])
    assert str(caught.value) == (
        f"Expected the package {module!r} to be installed; it is not. "
        f"Install it with: pip install '.[{extra}]' in a clone of keras-effnet"
    )


def test_saved_model_needs_no_extra() -> None:
    assert TARGETS["saved_model"].modules == ()


def test_every_needed_package_is_in_its_extra() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    lists = dict(re.findall(r"^([A-Z]+) = \[(.*)\]", setup, re.MULTILINE))
    for target in TARGETS.values():
        for module, extra in target.modules:
            packages = (lists[extra.upper()] + lists["QUANTIZE"]).replace("-", "_")
            assert f'"{module}>=' in packages, (target.name, module)


@pytest.mark.parametrize(
    "command",
    [
        ["export", "lite0", "--to", "saved_model", "onnx:float32", "--out", "OUT"],
        ["train", "PHOTOS", "--export", "onnx:float32", "--out", "OUT"],
    ],
    ids=["export", "train"],
)
@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_command_tells_a_missing_package_before_it_builds_anything(
    command: list[str], module: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: Any, **__: Any) -> None:
        raise AssertionError("a network was built")

    monkeypatch.setattr("keras_effnet.applications.EfficientNet", build)
    monkeypatch.setitem(sys.modules, module, None)
    places = {"OUT": str(tmp_path / "out"), "PHOTOS": str(sample_paths()[0].parent)}
    assert main([places.get(word, word) for word in command]) == 2
    error = capsys.readouterr().err
    assert "pip install '.[onnx]'" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("format_", "names"), [("tflite", TFLiteRecipe), ("onnx", OnnxRecipe)])
def test_type_of_the_recipe_argument_lists_every_recipe(format_: str, names: Any) -> None:
    assert list(get_args(names)) == [row.recipe for row in TARGETS.values() if row.format == format_]


@pytest.mark.parametrize(
    ("call", "received"),
    [
        (lambda m, p: export.to_tflite(m, p, min_agreement=0.9), "tflite:float32 with min_agreement=0.9"),
        (
            lambda m, p: export.to_tflite(m, p, "float16", output_type="float32"),
            "tflite:float16 with output_type",
        ),
        (
            lambda m, p: export.to_onnx(m, p, "float16", min_agreement=0.9),
            "onnx:float16 with min_agreement=0.9",
        ),
        (lambda m, p: export.to_onnx(m, p, network=object()), "onnx:float32 with one"),
    ],
)
def test_option_that_a_recipe_cannot_follow_is_refused(
    nano: Any, tmp_path: Path, call: Any, received: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"(recipe 'int8'|integer TFLite).*Received: {received}"):
        call(nano, tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("names", "options", "refused"),
    [
        (["tflite:float32", "tflite:int8"], {"min_agreement": 0.9}, None),
        (["tflite:float32", "saved_model"], {"min_agreement": 0.9}, "tflite:float32, saved_model with min"),
        (["tflite:int8", "tflite:int8_qat"], {"min_agreement": 0.9}, "Received: tflite:int8_qat with min"),
        (["saved_model", "onnx:float32"], {"layout": "nhwc"}, None),
        (["saved_model", "tflite:int8"], {"layout": "nhwc"}, "tflite:int8 with layout='nhwc'"),
        (["onnx:int8", "tflite:int8"], {"output_type": "float32"}, None),
        (
            ["tflite:int8", "tflite:int16x8"],
            {"output_type": "float32"},
            "Received: tflite:int16x8 with output",
        ),
    ],
)
def test_options_of_several_targets_go_to_those_that_they_are_about(
    names: list[str], options: dict[str, Any], refused: str | None
) -> None:
    targets, asked = [TARGETS[name] for name in names], Options(**options)
    if refused is None:
        check_options(targets, asked)
    else:
        with pytest.raises(InvalidInputError, match=refused):
            check_options(targets, asked)


@pytest.mark.parametrize("command", ["export", "train"])
def test_command_refuses_an_agreement_that_no_target_can_promise(
    command: str, tmp_path: Path, capsys: Any
) -> None:
    words = {
        "export": ["export", "lite0", "--to", "tflite:float32"],
        "train": ["train", str(sample_paths()[0].parent), "--export", "tflite:float32"],
    }[command]
    assert main([*words, "--min-agreement", "0.9", "--out", str(tmp_path / "out")]) == 2
    assert (
        "Received: tflite:float32 with min_agreement=0.9. Leave one of them out." in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("exporter", "name", "wanted"),
    [
        (export.to_tflite, "x.onnx", r"ends in \.tflite for tflite:float32.*for example x\.tflite"),
        (export.to_tflite, "x.keras", r"ends in \.tflite"),
        (export.to_onnx, "x.tflite", r"ends in \.onnx for onnx:float32.*for example x\.onnx"),
        (export.to_onnx, "X.H5", r"ends in \.onnx"),
        (export.to_saved_model, "x.tflite", "the name of a folder for saved_model"),
        (export.to_saved_model, "x.onnx", "the name of a folder for saved_model"),
        (export.to_saved_model, "x.keras", "the name of a folder for saved_model"),
    ],
)
def test_path_whose_ending_belongs_to_another_format_is_refused(
    nano: Any, tmp_path: Path, exporter: Any, name: str, wanted: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"Expected .*{wanted}"):
        exporter(nano, tmp_path / name)
    assert not list(tmp_path.iterdir())
