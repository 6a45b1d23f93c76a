"""The command line on models whose outputs are several, or no classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import pytest
from material import assert_refused, build_nano

from keras_effnet.cli import main
from keras_effnet.pictures.folders import sample_paths

PHOTOGRAPH = str(sample_paths()[0])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads, one of them a projection that looks like logits, as a Keras file and as artefacts."""
    folder = tmp_path_factory.mktemp("heads")
    base = build_nano()
    projection = keras.layers.Dense(6, name="projection")(base.get_layer("avg_pool").output)
    keras.Model(base.input, {"class": base.output, "projection": projection}).save(folder / "heads.keras")
    (folder / "names.txt").write_text("cat\ndog\nowl\n")
    command = ["export", str(folder / "heads.keras"), "--to", "tflite:weight_int8", "onnx"]
    options = ["--kind", "projection=embedding", "--labels", str(folder / "names.txt"), "--quiet"]
    assert main([*command, *options, "--out", str(folder / "out")]) == 0
    return folder


def test_export_says_what_each_output_is(exported: Path) -> None:
    rows = json.loads((exported / "out" / "report.json").read_text())["artifacts"]
    for row in rows:
        kinds = {output["name"]: output["kind"] for output in row["outputs"]}
        assert kinds == {"class": "classes", "projection": "embedding"} and row["ok"]
        assert row["top1_agreement"] == row["agreement"] == 1.0


def test_verify_prints_a_line_for_each_output(exported: Path, capsys: Any) -> None:
    artefact, model = str(exported / "out" / "heads_weight_int8.tflite"), str(exported / "heads.keras")
    assert main(["verify", artefact, "--model", model]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("✓ heads_weight_int8.tflite (weight_int8): same class in 8 of 8 photographs")
    assert lines[1].startswith("  class, classes: 100.0% the same decision, SQNR of a photograph: median")
    assert lines[2].startswith(
        "  projection, embedding: nearest neighbour 100.0% the same, SQNR of a photograph"
    )
    assert main(["verify", artefact, "--model", model, "--kind", "projection=logits", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert [output["kind"] for output in row["outputs"]] == ["classes", "logits"]
    assert row["shown_agreement"] == pytest.approx(0.688, abs=1e-3)


@pytest.mark.parametrize("name", ["heads.keras", "out/heads_float32.onnx", "out/heads_weight_int8.tflite"])
def test_predict_of_several_outputs_is_one_clear_line(exported: Path, name: str, capsys: Any) -> None:
    path = str(exported / name)
    assert_refused(
        ["predict", PHOTOGRAPH, "--model", path], "with 2: class, projection. Name the one", capsys
    )


def test_predict_of_features_is_one_clear_line(tmp_path: Path, capsys: Any) -> None:
    base = build_nano()
    keras.Model(base.input, base.get_layer("avg_pool").output).save(tmp_path / "features.keras")
    command = ["predict", PHOTOGRAPH, "--model", str(tmp_path / "features.keras")]
    assert_refused(command, "one output of classes. Received: ", capsys)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["class"], "Expected --kind to be one of classes, sigmoid"),
        (["a=classes", "a=map"], "--kind OUTPUT=KIND once for each output"),
        (["a=classes", "map"], "--kind OUTPUT=KIND once for each output"),
    ],
)
def test_kind_that_there_is_not_is_refused_at_once(
    kinds: list[str], message: str, tmp_path: Path, capsys: Any
) -> None:
    assert_refused(["export", "b0", "--kind", *kinds, "--out", str(tmp_path / "out")], message, capsys)
    assert not (tmp_path / "out").exists()


def test_kind_of_an_output_that_there_is_not_is_refused(exported: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["export", str(exported / "heads.keras"), "--to", "onnx", "--kind", "clas=classes", "--quiet"]
    assert_refused([*command, "--out", str(tmp_path / "out")], "Did you mean 'class'?", capsys)
