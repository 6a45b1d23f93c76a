"""`keras-effnet predict` with many pictures, and with every kind of model that it takes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import assert_refused, randomize
from PIL import Image

from keras_effnet import EfficientNet, load_image
from keras_effnet.cli import main
from keras_effnet.commands.flags import read_photographs
from keras_effnet.errors import EffNetWarning
from keras_effnet.export import load, scoring
from keras_effnet.export.scoring.parts import Parts
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.labels import labels_layer_name
from keras_effnet.weights.convert import convert

LABELS = ("dark", "bright")


def _brightness(shape: tuple[int | None, int | None, int]) -> keras.Model:
    """A classifier that tells bright pictures from dark ones."""
    inputs = keras.Input(shape)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = keras.layers.Dense(2, activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    share = np.full((shape[2], 1), 1 / shape[2], np.float32)
    model.layers[-1].set_weights([share * [[-20, 20]], np.array([10, -10], np.float32)])
    return model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, two of them broken, and the same small classifier in many places."""
    place = tmp_path_factory.mktemp("place")
    pictures = place / "pictures"
    (pictures / "more").mkdir(parents=True)
    for name, value in (("a.png", 250), ("b.png", 5), ("more/c.png", 250)):
        Image.fromarray(np.full((40, 50, 3), value, np.uint8)).save(pictures / name)
    (pictures / "broken.jpg").write_bytes(b"no picture")
    (pictures / "more" / "empty.png").write_bytes(b"")
    model = _brightness((32, 32, 3))
    model.save(place / "m.keras")
    model.save(place / "m.h5")
    (place / "run").mkdir()
    shutil.copy(place / "m.keras", place / "run" / "model.keras")
    (place / "run" / "run.json").write_text("{}")
    (place / "run" / "labels.txt").write_text("\n".join(LABELS) + "\n")
    _brightness((None, None, 3)).save(place / "open.keras")
    _brightness((32, 48, 3)).save(place / "wide.keras")
    (place / "names.txt").write_text("\n".join(LABELS) + "\n")
    return place


@pytest.fixture(autouse=True)
def _inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_one_bad_picture_costs_only_itself(capsys: Any) -> None:
    assert main(["predict", "pictures", "--model", "m.keras", "--labels", "names.txt", "--json"]) == 1
    out, error = capsys.readouterr()
    results = {result["file"]: result for result in json.loads(out)}
    assert list(results) == [
        f"pictures/{name}" for name in ("a.png", "b.png", "broken.jpg", "more/c.png", "more/empty.png")
    ]
    best = {file: row["predictions"][0]["label"] for file, row in results.items() if "predictions" in row}
    assert best == {"pictures/a.png": "bright", "pictures/b.png": "dark", "pictures/more/c.png": "bright"}
    assert "cannot be decoded" in results["pictures/broken.jpg"]["error"]
    assert "'pictures/broken.jpg'" in error and "'pictures/more/empty.png'" in error
    assert error.endswith("keras-effnet: 2 of 5 pictures could not be read\n")


def test_missing_file_among_others_costs_only_itself(capsys: Any) -> None:
    assert main(["predict", "pictures/a.png", "absent.png", "--model", "m.keras", "--top", "1"]) == 1
    out, error = capsys.readouterr()
    assert "pictures/a.png" in out and "class 1" in out
    assert "'absent.png'. Received: no such file" in error


@pytest.mark.parametrize("command", [["absent.png", "gone.jpg"], ["pictures/broken.jpg"]])
def test_no_picture_at_all_is_wrong_use(command: list[str], capsys: Any) -> None:
    assert_refused(["predict", *command, "--model", "m.keras"], repr(command[0]), capsys)


def test_one_picture_is_one_photograph(tmp_path: Path, capsys: Any) -> None:
    out = str(tmp_path / "scores.csv")
    assert main(["predict", "pictures/a.png", "--model", "m.keras", "--out", out]) == 0
    assert capsys.readouterr().out == f"1 photograph: {out}\n"


def test_csv_has_a_row_for_each_guess_and_each_fault(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "new" / "scores.csv"
    command = ["predict", "pictures", "--model", "run", "--out", str(out)]
    assert main(command) == 1
    assert capsys.readouterr().out == f"3 photographs: {out}\n"
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["rank"], row["label"]) for row in rows if not row["error"]] == [
        ("pictures/a.png", "1", "bright"),
        ("pictures/a.png", "2", "dark"),
        ("pictures/b.png", "1", "dark"),
        ("pictures/b.png", "2", "bright"),
        ("pictures/more/c.png", "1", "bright"),
        ("pictures/more/c.png", "2", "dark"),
    ]
    assert [row["file"] for row in rows if row["error"]] == ["pictures/broken.jpg", "pictures/more/empty.png"]
    assert float(rows[0]["probability"]) > 0.99 and rows[0]["class_index"] == "1"
    assert_refused(command, "--force", capsys)
    assert main([*command, "--force"]) == 1


def test_json_lines_have_a_line_for_each_picture(tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    assert main(["predict", "pictures/b.png", "pictures/a.png", "--model", "run", "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["file"] for line in lines] == ["pictures/b.png", "pictures/a.png"]
    assert [line["predictions"][0]["label"] for line in lines] == ["dark", "bright"]


@pytest.mark.parametrize(
    ("model", "label"), [("m.keras", "class 1"), ("m.h5", "class 1"), ("run", "bright"), ("./run/", "bright")]
)
def test_every_whole_keras_model_is_taken(model: str, label: str, capsys: Any) -> None:
    assert main(["predict", "pictures/a.png", "--model", model, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["predictions"][0]["label"] == label


def test_size_is_asked_for_and_taken_where_the_model_leaves_it_open(capsys: Any) -> None:
    command = ["predict", "pictures/a.png", "--model", "open.keras"]
    assert_refused(command, "Expected --size N for 'open.keras'", capsys)
    assert main([*command, "--size", "40"]) == 0
    assert_refused([*command[:-1], "m.keras", "--size", "40"], "Expected --size 32", capsys)


def test_model_that_is_not_square_is_one_clear_line(capsys: Any) -> None:
    command = ["predict", "pictures/a.png", "--model", "wide.keras"]
    assert_refused(command, "'wide.keras' with 32 × 48 pixels", capsys)
    assert_refused(["verify", "wide.keras", "--model", "wide.keras"], "with 32 × 48 pixels", capsys)


def test_labels_of_another_number_are_refused(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one\n")
    command = ["predict", "pictures/a.png", "--model", "m.keras", "--labels", str(tmp_path / "one.txt")]
    assert_refused(command, "Expected 2 class names", capsys)


def test_weight_file_tells_its_variant_and_its_classes(tmp_path: Path, capsys: Any) -> None:
    model = EfficientNet("lite1", weights=None, classes=10, input_shape=(32, 32, 3))
    randomize(model)
    model.save(tmp_path / "ten.keras")
    convert(tmp_path / "ten.keras", tmp_path / "ten.safetensors")
    weights = ["--weights", str(tmp_path / "ten.safetensors"), "--top", "10", "--json"]
    assert main(["predict", "pictures/a.png", *weights]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert sorted(guess["label"] for guess in result["predictions"]) == [f"class {i}" for i in range(10)]
    refused = ["predict", "pictures/a.png", "--model", "lite0", *weights]
    assert_refused(refused, "which are of lite1. Pass other --weights, or --model lite1.", capsys)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_predict_computes_on_either_backend_without_chatter(backend: str, place: Path) -> None:
    pytest.importorskip(backend)
    ran = subprocess.run(
        [sys.executable, "-m", "keras_effnet", "predict", "pictures/a.png", "--model", "run", "--json"],
        capture_output=True,
        text=True,
        cwd=place,
        env=os.environ | {"KERAS_BACKEND": backend},
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)[0]["predictions"][0]["label"] == "bright"


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_model_gets_gray_pictures(channels: int, tmp_path: Path, capsys: Any) -> None:
    _brightness((32, 32, channels)).save(tmp_path / "m.keras")
    assert main(["predict", "pictures/a.png", "--model", str(tmp_path / "m.keras"), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["predictions"][0]["class_index"] == 1


def test_gray_model_is_exported_and_verified_on_gray_pictures(tmp_path: Path, capsys: Any) -> None:
    _brightness((32, 32, 1)).save(tmp_path / "gray.keras")
    model, out = str(tmp_path / "gray.keras"), str(tmp_path / "out")
    (tmp_path / "bad").mkdir()
    shutil.copy("pictures/more/empty.png", tmp_path / "bad")
    bad = ["--images", str(tmp_path / "bad"), "--no-html", "--out", out, "--quiet"]
    assert_refused(["export", model, "--to", "saved_model", *bad], "bad/empty.png'", capsys)
    assert main(["export", model, "--to", "saved_model", "--no-html", "--out", out]) == 0
    assert main(["verify", f"{out}/gray_saved_model", "--model", model]) == 0
    assert main(["predict", "pictures/b.png", "--model", f"{out}/gray_saved_model", "--top", "1"]) == 0
    assert "class 0" in capsys.readouterr().out


def test_predict_of_a_single_sigmoid_names_either_class(tmp_path: Path, capsys: Any) -> None:
    """Before, the probability of the second class stood beside the first one's name."""
    layers = keras.layers
    body = [keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), layers.GlobalAveragePooling2D()]
    named = layers.Identity(name=labels_layer_name(["cat", "dog"]))
    model = keras.Sequential([*body, named, layers.Dense(1, "sigmoid")])
    model.layers[-1].bias.assign([9.0])
    model.layers[-1].kernel.assign(np.zeros((3, 1)))
    model.save(tmp_path / "m.keras")
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    assert main(["predict", str(tmp_path / "x.png"), "--model", str(tmp_path / "m.keras"), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert [guess["label"] for guess in answer["predictions"]] == ["dog", "cat"]
    assert answer["predictions"][0]["probability"] > 0.999


def test_all_values_go_into_any_kind_of_file_and_into_json(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    command = ["predict", "pictures/a.png", "pictures/b.png", "--model", "run", "--all"]
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [list(row) for row in rows] == [["file", "probabilities"]] * 2
    assert rows[0]["probabilities"][1] > 0.99 and rows[1]["probabilities"][0] > 0.99
    assert main([*command, "--out", str(tmp_path / "all.parquet")]) == 0
    table = parquet.read_table(tmp_path / "all.parquet")
    assert table.column("probabilities").to_pylist() == [pytest.approx(row["probabilities"]) for row in rows]
    assert json.loads(table.schema.metadata[b"labels"]) == list(LABELS)


def test_interrupted_command_goes_on_when_it_is_repeated(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "RUN", 1)
    out = str(tmp_path / "scores.jsonl")
    command = [
        "predict",
        "pictures/a.png",
        "pictures/b.png",
        "--model",
        "run",
        "--workers",
        "0",
        "--out",
        out,
    ]
    record = Parts.record

    def interrupted(self: Parts, start: int, answers: Any) -> None:
        if start:
            raise KeyboardInterrupt
        record(self, start, answers)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "record", interrupted)
        assert main(command) == 130
    assert capsys.readouterr().err == "keras-effnet: interrupted; the same command goes on where it stopped\n"
    assert_refused([*command, "--top", "1"], "Received: other options", capsys)
    assert main(command) == 0
    assert len(Path(out).read_text(encoding="utf-8").splitlines()) == 2
    assert os.listdir(tmp_path) == ["scores.jsonl"]  # noqa: PTH208


def test_processes_for_a_model_in_memory_are_refused(capsys: Any) -> None:
    refused = ["predict", "pictures/a.png", "--model", "lite0", "--weights", "none", "--workers", "2"]
    assert_refused(refused, "Expected a file that other processes can open", capsys)


def test_pictures_of_other_kinds_are_told(tmp_path: Path, capsys: Any) -> None:
    shutil.copy("pictures/a.png", tmp_path / "a.png")
    (tmp_path / "phone.HEIC").write_bytes(b"heic")
    assert main(["predict", str(tmp_path), "--model", "m.keras"]) == 0
    out, error = capsys.readouterr()
    assert "a.png" in out and "1 picture of other kinds is left out, 'phone.HEIC' say" in error


def test_unreadable_photographs_for_calibration_are_left_out_and_named(place: Path) -> None:
    framing = Framing()
    with pytest.warns(EffNetWarning, match=r"2 pictures left out of 5: .*broken\.jpg"):
        pictures, files = read_photographs(place / "pictures", 32, framing)
    assert [file.name for file in files] == ["a.png", "b.png", "c.png"] and pictures.shape == (3, 32, 32, 3)
    for picture, file in zip(pictures, files, strict=True):
        assert np.array_equal(picture, framing.read(file, 32))


def test_photographs_are_read_as_an_opened_file_says(place: Path, brightness: Path) -> None:
    runner = load(brightness)
    pixels = load_image(place / "pictures" / "a.png", runner)
    assert np.array_equal(pixels, runner.framing.read(place / "pictures" / "a.png", 32))
