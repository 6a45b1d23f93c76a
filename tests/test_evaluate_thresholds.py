"""`evaluate` of models that may say "none of these", and of several labels for a photograph."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import assert_refused, build_colours
from PIL import Image

import keras_effnet
from keras_effnet import export, transfer
from keras_effnet.cli import main
from keras_effnet.errors import InvalidInputError
from keras_effnet.evaluation.confidence import told_of

pytest.importorskip("sklearn")
pytest.importorskip("onnxruntime")

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}
GRAY = (120, 120, 120)


@pytest.fixture(scope="module")
def colours() -> Any:
    """It is sure of pure colours, and of gray it says a third each."""
    kernel = 8 * np.eye(3)[::-1]
    return transfer.with_thresholds(build_colours(kernel, [0, 0, 0], "softmax", tuple(COLOURS)), 0.6)


@pytest.fixture(scope="module")
def file(colours: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.to_onnx(colours, tmp_path_factory.mktemp("file") / "colours.onnx")


def _picture(path: Path, colour: tuple[int, int, int]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 36), colour).save(path)
    return path.name


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of each colour; one red one is blue, which is a mistake, and one green one gray, which is refused."""
    root = tmp_path_factory.mktemp("photographs")
    for name, colour in COLOURS.items():
        for number in range(2):
            _picture(root / name / f"{number}.png", colour)
    _picture(root / "red" / "blue.png", COLOURS["blue"])
    _picture(root / "green" / "gray.png", GRAY)
    return root


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three gray ones, and one that looks like red."""
    root = tmp_path_factory.mktemp("strangers")
    for number in range(3):
        _picture(root / "deeper" / f"{number}.png", (90 + number, 90, 90))
    _picture(root / "rust.png", (250, 3, 3))
    return root


def test_told_is_the_best_accepted_class() -> None:
    rows = np.array([[0.5, 0.3, 0.2], [0.2, 0.35, 0.45], [0.4, 0.25, 0.35]], np.float32)
    assert told_of(rows, (0.4,)).tolist() == [0, 2, 0]
    assert told_of(rows, (0.9, 0.3, 0.5)).tolist() == [1, 1, -1]


def test_evaluate_counts_what_is_accepted_and_how_many_strangers_are_refused(
    colours: Any, file: Path, photographs: Path, strangers: Path, tmp_path: Path
) -> None:
    found = keras_effnet.evaluate([colours, file], photographs, strangers=strangers)
    for row in found.as_dict()["results"]:
        assert row["top1"] == 6 / 8 and row["thresholds"] == [0.6]
        worth = row["accepted"]
        assert worth["photographs"] == 7 and worth["coverage"] == 7 / 8
        assert worth["precision"] == pytest.approx(6 / 7)
        assert (worth["strangers"], worth["refused"]) == (4, 0.75)
        assert worth["precision_among_strangers"] == pytest.approx((6 / 8) / (7 / 8 + 1 / 4))
    assert found.as_dict()["strangers"] == 4
    page = found.write(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "None of these" in page and "75.0 %" in page and "87.5 %" in page


def test_evaluate_command_tells_thresholds_and_strangers_that_cannot_be_read(
    file: Path, photographs: Path, strangers: Path, tmp_path: Path, capsys: Any
) -> None:
    assert main(["evaluate", str(file), str(photographs), "--none", str(strangers), "--quiet"]) == 0
    told = capsys.readouterr().out
    assert [word for word in ("accepted", "right of these", "strangers refused") if word in told.splitlines()[0]] == [
        "accepted", "right of these", "strangers refused",
    ]  # fmt: skip
    assert told.splitlines()[2].split()[-3:] == ["87.5%", "85.7%", "75.0%"] and "4 strangers of" in told
    (tmp_path / "more").mkdir()
    _picture(tmp_path / "more" / "gray.png", GRAY)
    (tmp_path / "more" / "broken.png").write_bytes(b"no picture")
    asked = ["evaluate", str(file), str(photographs), "--none", str(tmp_path / "more"), "--json", "--quiet"]
    assert_refused(asked, "Received 1 that are among those of the classes too", capsys)
    _picture(tmp_path / "more" / "gray.png", (91, 90, 93))
    assert main(asked) == 1
    told = capsys.readouterr()
    report = json.loads(told.out)
    assert report["strangers"] == 1 and report["results"][0]["accepted"]["refused"] == 1
    assert report["unreadable"][0]["file"] == "broken.png" and "1 of 10 pictures" in told.err


def test_strangers_are_refused_by_files_with_thresholds_alone(
    colours: Any, photographs: Path, strangers: Path
) -> None:
    with pytest.raises(InvalidInputError, match=r"Expected a model with thresholds.*which accepts all"):
        keras_effnet.evaluate(transfer.with_thresholds(colours, []), photographs, strangers=strangers)
    found = keras_effnet.evaluate(transfer.with_thresholds(colours, []), photographs)
    assert found.as_dict()["results"][0]["accepted"] is None and found.as_dict()["strangers"] is None


def test_evaluate_judges_a_single_sigmoid_by_both_sides_of_its_threshold(
    photographs: Path, strangers: Path, tmp_path: Path
) -> None:
    """Gray is 0.507 red and refused; the blue one among the red ones is wrong."""
    names = ("cold", "red")
    model = transfer.with_thresholds(build_colours([[16], [0], [0]], [-7.5], "sigmoid", names), 0.9)
    rows = ["file,label"]
    rows += [
        f"{path},{'red' if path.parent.name == 'red' else 'cold'}" for path in photographs.glob("*/*.png")
    ]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    file = export.to_onnx(model, tmp_path / "red.onnx")
    (row,) = keras_effnet.evaluate(file, tmp_path / "list.csv", strangers=strangers).as_dict()["results"]
    assert row["top1"] == 6 / 8 and row["per_class"]["red"]["recall"] == pytest.approx(2 / 3)
    assert row["accepted"]["coverage"] == 7 / 8 and row["accepted"]["precision"] == pytest.approx(6 / 7)
    # three gray ones of 90 to 92: sigmoid(16 · 90 / 255 - 7.5) = 0.14, of which the other side is 0.86
    assert row["accepted"]["refused"] == 0.75


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one or two colours; of the last one a colour is said that it does not have."""
    root = tmp_path_factory.mktemp("mixed")
    rows = [
        (_picture(root / "a.png", (255, 255, 0)), "red|green"),
        (_picture(root / "b.png", (255, 0, 255)), "blue|red"),
        (_picture(root / "c.png", COLOURS["green"]), "green"),
        (_picture(root / "d.png", COLOURS["blue"]), "blue | red"),
    ]
    with (root / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "label"), *rows])
    return root / "list.csv"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sigmoid for each colour."""
    model = build_colours(16 * np.eye(3)[::-1], [-8, -8, -8], "sigmoid", tuple(COLOURS))
    model = transfer.with_thresholds(model, [0.3, 0.4, 0.5])
    return export.to_onnx(model, tmp_path_factory.mktemp("several") / "several.onnx")


def test_evaluate_judges_several_labels_at_the_thresholds_of_the_file(
    several: Path, mixed: Path, strangers: Path, tmp_path: Path
) -> None:
    found = keras_effnet.evaluate([several, several], mixed, strangers=strangers)
    row = found.as_dict()["results"][0]
    assert row["exact"] == 3 / 4 and row["exact_low"] < 3 / 4 < row["exact_high"]
    assert row["accuracy"] == 11 / 12 and "top1" not in row
    # red: two of two, and the third among two that are equally improbable
    assert row["mean_average_precision"] == pytest.approx((1 + 1 + 11 / 12) / 3)
    assert row["per_class"]["red"] == {
        "precision": 1.0, "recall": pytest.approx(2 / 3), "f1": pytest.approx(0.8),
        "average_precision": pytest.approx(11 / 12),
        "threshold": 0.5, "photographs": 3,
    }  # fmt: skip
    assert row["thresholds"] == [0.3, 0.4, 0.5]
    assert row["accepted"]["precision"] == 1 and row["accepted"]["refused"] == 0.75
    assert row["worst"] == [
        {
            "file": "d.png",
            "truth": "blue|red",
            "guess": "not red",
            "probability": pytest.approx(0.99966, abs=1e-4),
        }
    ]
    ((_, compared),) = found.differences()
    assert compared.difference == 0 and compared.same_guess == 1
    page = found.write(tmp_path / "several.html").read_text(encoding="utf-8")
    assert "mean average precision" in page and "not red" in page


def test_evaluate_command_shows_several_labels(several: Path, mixed: Path, capsys: Any) -> None:
    assert main(["evaluate", str(several), str(mixed), "--quiet"]) == 0
    header, _, row, *_ = capsys.readouterr().out.splitlines()
    assert "mean average precision" in header and "all labels right" in header and "top-1" not in header
    assert row.split()[2:5] == ["97.2%", "75.0%", "91.7%"]


def test_folders_have_one_label_each_for_a_model_of_several(several: Path, photographs: Path) -> None:
    (result,) = keras_effnet.evaluate(several, photographs)
    assert result.figures["photographs"] == 8 and result.exact == 6 / 8  # the blue one and the gray one


def test_models_of_one_class_and_of_several_are_not_mixed(
    several: Path, file: Path, mixed: Path, photographs: Path
) -> None:
    with pytest.raises(InvalidInputError, match=r"all give one class, or all several labels"):
        keras_effnet.evaluate([file, several], photographs)
    with pytest.raises(
        InvalidInputError, match=r"classes that 'colours\.onnx' knows.*Received also: blue \| red"
    ):
        keras_effnet.evaluate(file, mixed)


def test_labels_that_are_one_name_stay_one_for_a_model_of_one_class(mixed: Path) -> None:
    """A softmax may have been trained on them (`--answers softmax`)."""
    names = ("blue | red", "blue|red", "green", "red|green")
    kernel = [[0, 8, -8, 8], [0, -8, 0, 8], [8, 8, 0, -8]]
    (row,) = keras_effnet.evaluate(build_colours(kernel, [0] * 4, "softmax", names), mixed).as_dict()[
        "results"
    ]
    assert row["images"] == 4 and row["top1"] >= 0.5
