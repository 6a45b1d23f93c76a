"""Probabilities that can be believed, and "none of these", from a training run."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import assert_refused, slim_variant
from PIL import Image

from keras_effnet.cli import main
from keras_effnet.errors import InvalidInputError
from keras_effnet.evaluation import drawings
from keras_effnet.evaluation.confidence import (
    at_temperature,
    coverage_of,
    fitted_temperature,
    least_threshold,
)
from keras_effnet.network.variants import VARIANTS

pytest.importorskip("sklearn")
pytest.importorskip("tensorboard")

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def _softmax(logits: Any) -> Any:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_temperature_is_what_the_labels_were_drawn_with(true: float) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (4000, 4))
    labels = np.array([generator.choice(4, p=p) for p in _softmax(logits / true)])
    assert fitted_temperature(logits, labels) == pytest.approx(true, rel=0.06)
    marks = generator.random(logits.shape) < 1 / (1 + np.exp(-logits / true))
    assert fitted_temperature(logits, marks) == pytest.approx(true, rel=0.06)


def test_temperature_stays_finite_when_every_guess_is_right() -> None:
    logits = np.eye(3)[[0, 1, 2, 0]] * 4
    assert 0.1 < fitted_temperature(logits, np.array([0, 1, 2, 0])) < 1


def test_another_temperature_is_that_of_the_logits() -> None:
    logits = np.random.default_rng(1).normal(0, 4, (5, 3))
    assert np.allclose(at_temperature(_softmax(logits), 2.5), _softmax(logits / 2.5), atol=1e-6)


def test_threshold_is_the_least_that_reaches_the_precision() -> None:
    confidences = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([True, True, False, True, False])
    assert least_threshold(confidences, right, 1.0) == pytest.approx(0.75)
    assert least_threshold(confidences, right, 0.75) == pytest.approx(0.55)
    assert least_threshold(confidences, right, 0.6) == pytest.approx(0.5)  # never below what was seen
    strangers_weigh_double = np.array([1, 1, 2, 1, 2.0])
    assert least_threshold(confidences, right, 0.75, strangers_weigh_double) == pytest.approx(0.75)


@pytest.mark.parametrize("right", [[False, True], [False, False]])
def test_precision_that_no_guess_reaches_is_refused(right: list[bool]) -> None:
    with pytest.raises(
        InvalidInputError, match=r"Expected a precision.*Received: 90\.0%.*reach (50|0)\.0% on 2"
    ):
        least_threshold(np.array([0.9, 0.8]), np.array(right), 0.9)


def test_coverage_counts_the_surest_first() -> None:
    found = coverage_of(np.array([0.5, 0.9, 0.7]), np.array([False, True, True]))
    assert np.allclose(found.coverage, [1 / 3, 2 / 3, 1]) and np.allclose(found.accuracy, [1, 1, 2 / 3])


def _noise(path: Path, colour: tuple[int, int, int], generator: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(np.array(colour) + generator.normal(0, 40, (32, 32, 3)), 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module", autouse=True)
def _slim() -> Iterator[None]:
    """A network of three blocks goes by a name: a run on it takes seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(VARIANTS, "slim", slim_variant())
        patched.setattr(drawings, "MISTAKES", 1)  # each is explained, which takes longer than all else
        yield


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a run of the slim network, which has learned nothing; its features tell colours apart all the same."""
    import keras

    from keras_effnet import EfficientNet

    keras.utils.set_random_seed(3)
    weights = tmp_path_factory.mktemp("weights") / "slim.weights.h5"
    EfficientNet("slim", weights=None).save_weights(weights)
    return [
        "--model", "slim", "--weights", str(weights), "--preprocessing", "lite", "--unfreeze", "block2", "--quiet",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def command(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three colours, twelve pictures each; gray ones of none of the classes lie beside them."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for index in range(12):
            _noise(root / "colours" / name / f"{index:02d}.png", colour, generator)
    for index in range(9):
        _noise(root / "gray" / f"{index}.png", (110, 110, 110), generator)
    (root / "gray" / "broken.png").write_bytes(b"no picture")
    (root / "empty").mkdir()
    return ["train", str(root / "colours"), *options, "--epochs", "0"]


@pytest.fixture(scope="module")
def beside(command: list[str]) -> Path:
    return Path(command[1]).parent


def test_train_refuses_strangers_that_it_cannot_use_and_leaves_nothing(
    command: list[str], beside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    asked = [*command, "--out", str(out), "--none"]
    assert_refused([*asked, str(beside / "empty")], "which holds none", capsys)
    for size in ("31", "32"):
        asked_size = [*command, "--out", str(out), "--fix-size", size]
        assert_refused(asked_size, f"other than the 32 that the network has. Received: {size}", capsys)
    (tmp_path / "same").mkdir()
    for name in ("0.png", "1.png"):
        (tmp_path / "same" / name).write_bytes((beside / "colours" / "red" / f"0{name}").read_bytes())
    assert_refused(
        [*asked, str(tmp_path / "same")], "Received 2 that are among those of the classes too", capsys
    )
    assert not out.exists()


def test_train_decides_below_what_it_is_none_of_these(
    command: list[str],
    beside: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A precision that is not reached loses nothing: the run goes on with another one."""
    import keras

    from keras_effnet import transfer
    from keras_effnet.train import certainty

    def never(*args: Any) -> float:
        raise InvalidInputError("Expected a precision that the surest guesses reach. Received: 99.0%.")

    out = tmp_path / "run"
    asked = [*command, "--fix-size", "48", "--fix-epochs", "1", "--out", str(out), "--wanted-precision"]
    with monkeypatch.context() as patched:
        patched.setattr(certainty, "least_threshold", never)
        assert_refused([*asked, "0.99"], "Nothing is lost: resume with a lower --wanted-precision", capsys)
    assert (out / "work" / "head.npz").is_file()
    assert_refused([*asked, "1", "--resume", "--fix-size", "64"], "fix_size 64 instead of 48", capsys)
    assert main([*asked, "1", "--none", str(beside / "gray"), "--resume", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    decided = metrics["certainty"]
    assert (decided["strangers"], decided["accepted"]["strangers"]) == (5, 4)
    assert decided["photographs"] == metrics["data"]["validation"]
    settings = json.loads((out / "run.json").read_text())
    assert (settings["strangers"], settings["wanted_precision"]) == (str(beside / "gray"), 1.0)
    model = keras.saving.load_model(out / "model.keras", compile=False)
    assert list(transfer.thresholds_of(model)) == decided["thresholds"]
    assert model.input_shape == (None, 48, 48, 3) and metrics["model"]["image_size"] == 48
    fixing = metrics["fixing"]
    assert (fixing["trained_at"], fixing["size"], fixing["epochs"]) == (32, 48, 1)
    assert set(fixing["as_trained"]) == set(fixing["before"]) == {"validation_accuracy", "test_accuracy"}
    report = (out / "report.html").read_text()
    assert (
        "none of these below" in report and "accuracy at 48 px, to which the last layers were fixed" in report
    )
    assert_refused([*asked, "0.6", "--resume"], "wanted_precision 0.6 instead of 1.0", capsys)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of pictures with one or two of three colours, and of a third of them half as many."""
    root = tmp_path_factory.mktemp("halves")
    generator = np.random.default_rng(1)
    rows = ["file,label"]
    names = sorted(COLOURS)
    for index in range(40):
        shown = names[:1] if index % 4 == 0 else [names[index % 3], names[(index + 1) % 3]]
        parts = [np.full((32, 32 // len(shown), 3), COLOURS[name]) for name in shown]
        pixels = np.clip(np.concatenate(parts, axis=1) + generator.normal(0, 20, (32, 32, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{index:02d}.png")
        rows.append(f"{index:02d}.png,{'|'.join(shown)}")
    (root / "list.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def test_train_on_several_labels_answers_each_and_says_how_well(
    halves: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    from keras_effnet import transfer

    out = tmp_path / "run"
    asked = [
        "train",
        str(halves / "list.csv"),
        *options,
        "--epochs",
        "1",
        "--augment",
        "none",
        "--focal",
        "2",
    ]
    assert main([*asked, "--balanced-sampling", "--label-smoothing", "0", "--out", str(out), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    model = keras.saving.load_model(out / "model.keras", compile=False)
    assert model.layers[-1].activation is keras.activations.sigmoid and model.output_shape == (None, 3)
    assert transfer.labels_of(model) == ("blue", "green", "red")
    assert len(transfer.thresholds_of(model)) == 3
    figures = metrics["test"]
    assert figures["mean_average_precision"] > 0.6  # of labels that are true for a half to two thirds
    assert [row["threshold"] for row in figures["per_class"].values()] == pytest.approx(
        list(transfer.thresholds_of(model))
    )
    assert sum(metrics["data"]["train_per_class"].values()) > metrics["data"]["train"]
    assert "mean average precision" in (out / "report.html").read_text()
    with (out / "data.csv").open(encoding="utf-8") as file:
        assert {row["label"] for row in csv.DictReader(file)} == {
            "blue",
            "blue|green",
            "green|red",
            "blue|red",
        }
    assert main(["predict", str(halves / "01.png"), "--model", str(out), "--json", "--quiet"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    guesses = {guess["label"]: guess for guess in row["predictions"]}
    least = dict(zip(transfer.labels_of(model), transfer.thresholds_of(model), strict=True))
    assert all(guess["accepted"] == (guess["probability"] >= least[name]) for name, guess in guesses.items())
    assert_refused(
        [*asked, "--answers", "sigmoid", "--out", str(tmp_path / "x")], "two classes for a single", capsys
    )


def test_train_with_a_single_sigmoid_decides_between_two_classes(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    out = tmp_path / "run"
    asked = [*command, "--classes", "red", "blue", "--answers", "sigmoid", "--out", str(out), "--json"]
    assert main([*asked, "--wanted-precision", "0.9"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    model = keras.saving.load_model(out / "model.keras", compile=False)
    assert model.output_shape == (None, 1)
    assert metrics["test"]["accuracy"] == 1.0 and np.trace(metrics["test"]["confusion_matrix"]) == 4
    assert 0.5 <= metrics["certainty"]["thresholds"][0] <= 1
    red = str(Path(command[1]) / "red" / "00.png")
    assert main(["predict", red, "--model", str(out), "--json", "--quiet"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["predictions"][0]["label"] == "red" and row["predictions"][0]["accepted"]
