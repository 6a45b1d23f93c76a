"""What the recipes need is known before the work begins."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from material import ROOT

from keras_effnet.cli import main
from keras_effnet.errors import MissingExtraError
from keras_effnet.export.recipes import RECIPES, check_installed
from keras_effnet.pictures.folders import sample_paths


@pytest.mark.parametrize(
    ("target", "module", "extra"),
    [
        ("tflite:float32", "ai_edge_litert", "tflite"),
        ("tflite:weight_int8", "litert_quantizer", "tflite"),
        ("tflite:int8", "threadpoolctl", "tflite"),
        ("tflite:int8_qat", "tensorflow_model_optimization", "qat"),
        ("tflite:int8_pruned", "tf_keras", "qat"),
        ("onnx:float32", "onnx", "onnx"),
        ("onnx:float16", "onnxruntime", "onnx"),
        ("onnx:int8", "threadpoolctl", "onnx"),
    ],
)
def test_missing_package_is_told_with_its_pip_line(
    target: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # not installed, wherever this runs
    with pytest.raises(MissingExtraError) as caught:
        check_installed([RECIPES["saved_model"], RECIPES[target]])
    assert str(caught.value) == (
        f"Expected the package {module!r} to be installed; it is not. "
        f"Install it with: pip install 'keras-effnet[{extra}]'"
    )


def test_saved_model_needs_no_extra() -> None:
    assert RECIPES["saved_model"].modules == ()


def test_every_needed_package_is_in_its_extra() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    lists = dict(re.findall(r"^([A-Z]+) = \[(.*)\]", setup, re.MULTILINE))
    for recipe in RECIPES.values():
        for module, extra in recipe.modules:
            packages = (lists[extra.upper()] + lists["THREADS"]).replace("-", "_")
            assert f'"{module}>=' in packages, (recipe.target, module)


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
    assert "pip install 'keras-effnet[onnx]'" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
