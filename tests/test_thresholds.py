"""Thresholds: "none of these" in the model, in every file, and in what people see of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import build_nano, outputs
from PIL import Image

from keras_effnet import export, transfer
from keras_effnet.cli import main
from keras_effnet.errors import InvalidInputError
from keras_effnet.export.closeness import measure, missed
from keras_effnet.export.outputs import Output
from keras_effnet.export.targets import Tolerance

NAMES = ("cat", "dog", "fish")


def _labelled(activation: str = "softmax", classes: int = 3) -> Any:
    """The nano network with names for its classes; of its probabilities for any picture none is near 1."""
    nano = build_nano()
    pooled = nano.get_layer("avg_pool").output
    x = keras.layers.Identity(name="labels." + ".".join(NAMES[: max(classes, 2)]))(pooled)
    head = keras.layers.Dense(classes, activation=activation, name="predictions")
    model = keras.Model(nano.input, head(x), name="nano")
    head.set_weights([np.zeros((8, classes), "float32"), np.log(np.arange(1, classes + 1)).astype("float32")])
    return model


@pytest.fixture(scope="module")
def cautious() -> Any:
    """It says 1/6, 1/3 and 1/2 of every picture, and accepts a class from .6 on."""
    return transfer.with_thresholds(_labelled(), 0.6)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "gray.png"
    Image.new("RGB", (40, 40), (90, 90, 90)).save(path)
    return path


def test_thresholds_survive_saving_and_change_no_number(cautious: Any, pixels32: Any, tmp_path: Path) -> None:
    cautious.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert transfer.thresholds_of(loaded) == (0.6,) and transfer.labels_of(loaded) == NAMES
    assert np.array_equal(outputs(loaded, pixels32), outputs(_labelled(), pixels32))
    assert transfer.thresholds_of(transfer.with_thresholds(loaded, [0.1, 0.25, 1])) == (0.1, 0.25, 1.0)
    bare = transfer.with_thresholds(loaded, [])
    assert transfer.thresholds_of(bare) == () and len(bare.layers) == len(loaded.layers) - 1


@pytest.mark.parametrize("thresholds", [1.5, [0.5, 0.5], [0.5, 0.5, "high"], [float("nan")] * 3])
def test_thresholds_that_do_not_fit_are_refused(thresholds: Any, cautious: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"Expected (thresholds as|one threshold)"):
        transfer.with_thresholds(cautious, thresholds)


def test_thresholds_for_logits_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"gives probabilities.*'linear'"):
        transfer.with_thresholds(_labelled("linear"), 0.5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_temperature_divides_the_logits_and_keeps_their_order(activation: str, pixels32: Any) -> None:
    model = build_nano()
    model.get_layer("predictions").activation = keras.activations.get(activation)
    with_logits = build_nano()
    with_logits.get_layer("predictions").activation = keras.activations.linear
    transfer.scale_temperature(model, 2.5)
    expected = keras.activations.get(activation)(outputs(with_logits, pixels32) / 2.5)
    assert np.allclose(outputs(model, pixels32), expected, atol=1e-6)
    with pytest.raises(InvalidInputError, match=r"temperature above 0. Received: 0"):
        transfer.scale_temperature(model, 0)


def test_every_file_carries_the_thresholds(cautious: Any, pixels32: Any, tmp_path: Path) -> None:
    files = [
        export.to_saved_model(cautious, tmp_path / "saved"),
        export.to_tflite(cautious, tmp_path / "int8.tflite", "int8", calibration=pixels32),
        export.to_onnx(cautious, tmp_path / "nano.onnx"),
    ]
    for file in files:
        runner = export.load(file)
        assert runner.outputs[0].thresholds == (0.6,), file
        assert (runner.labels, runner.outputs[0].kind) == (NAMES, "classes")
    assert export.verify(cautious, files[1], pixels32).ok
    assert b"\x9a\x99\x19\x3f" in files[1].read_bytes()  # 0.6 as a float32: what clients of the schema read
    assert export.load(export.to_onnx(_labelled(), tmp_path / "bold.onnx")).info.outputs == ()


def test_thresholds_of_several_outputs_stay_with_their_own(tmp_path: Path) -> None:
    several = _labelled("sigmoid")
    decided = transfer.with_thresholds(several, [0.3, 0.4, 0.5])
    both = keras.Model(
        decided.input, {"what": decided.output, "features": decided.get_layer("avg_pool").output}
    )
    told = {each.name: each for each in export.load(export.to_onnx(both, tmp_path / "two.onnx")).outputs}
    assert told["what"].thresholds == (0.3, 0.4, 0.5) and told["what"].labels == NAMES
    assert told["features"].thresholds == ()


def test_predict_says_none_of_these_and_what_is_nearest(
    cautious: Any, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tmp_path / "model.keras")
    cautious.save(model)
    assert main(["predict", str(picture), "--model", model, "--top", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == ["  none of these", "   50.00%  ██████████            fish  (below its threshold)"]
    assert main(["predict", str(picture), "--model", model, "--json", "--quiet"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["none_of_these"] is True and [guess["accepted"] for guess in row["predictions"]] == [False] * 3
    assert (
        main(["predict", str(picture), "--model", model, "--out", str(tmp_path / "rows.csv"), "--quiet"]) == 0
    )
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["accepted"] for row in rows] == ["False"] * 3 and list(rows[0])[-2:] == ["accepted", "error"]


def test_score_lists_accepted_classes_first(picture: Path, tmp_path: Path) -> None:
    """The least probable class is the only one that reaches its threshold."""
    model = transfer.with_thresholds(_labelled(), [0.1, 0.9, 0.9])
    file = export.to_onnx(model, tmp_path / "nano.onnx")
    scores = export.score(file, [picture], top=2, workers=0)
    (row,) = scores
    assert [(guess["label"], guess["accepted"]) for guess in row["predictions"]] == [
        ("cat", True),
        ("fish", False),
    ]
    assert row["none_of_these"] is False
    table = scores.table().to_pylist()[0]
    assert table["accepted"] == [True, False] and table["none_of_these"] is False


def test_a_single_sigmoid_is_accepted_on_either_side(picture: Path, tmp_path: Path) -> None:
    for bias, label in ((-3.0, "cat"), (3.0, "dog"), (0.2, None)):
        model = _labelled("sigmoid", 1)
        model.get_layer("predictions").set_weights([np.zeros((8, 1), "float32"), np.array([bias], "float32")])
        file = export.to_onnx(transfer.with_thresholds(model, 0.9), tmp_path / f"{label}.onnx")
        (row,) = export.score(file, [picture], workers=0)
        accepted = [guess["label"] for guess in row["predictions"] if guess["accepted"]]
        assert accepted == ([label] if label else []) and row["none_of_these"] is (label is None)


SAID = np.array([[0.2, 0.75], [0.35, 0.85], [0.6, 0.95], [0.05, 0.1]], np.float32)


def test_agreement_of_sigmoids_is_that_of_the_decisions_at_their_thresholds() -> None:
    """At 0.5 nothing would differ; the first class says yes from 0.3 on, and the file denies one of two."""
    values = SAID + np.array([[0, 0], [-0.1, 0], [0, 0], [0, 0]], np.float32)
    at_half = measure(Output(name="x", kind="sigmoids"), SAID, values)
    assert at_half.agreement == 1.0 and at_half.thresholds == ()
    found = measure(Output(name="x", kind="sigmoids", thresholds=(0.3, 0.8)), SAID, values)
    # yes: 3 of 4 kept; no: 4 of 4; 0.35 is not near 0.3 by the odds, 0.35 · 0.7 : 0.65 · 0.3 = 1.26 : 1, but for 0.75
    assert found.agreement == pytest.approx((3 / 4 + 1) / 2) and found.judged_by == 4
    assert found.thresholds == (0.3, 0.8) and found.agreement_but_near_ties == 1.0
    values[2, 0] = 0.1  # no near-tie
    output = Output(name="x", kind="sigmoids", thresholds=(0.3, 0.8))
    (sentence,) = missed(measure(output, SAID, values), Tolerance(top1_agreement=0.95))
    assert sentence.startswith(
        "Agreement of the decisions at the thresholds of the classes: 0.750, required 0.95"
    )


def test_agreement_of_a_single_sigmoid_is_that_of_either_side_or_neither() -> None:
    reference = np.array([[0.95], [0.85], [0.06], [0.5]], np.float32)
    values = np.array([[0.91], [0.92], [0.2], [0.6]], np.float32)
    output = Output(name="x", kind="sigmoid", labels=NAMES[:2], thresholds=(0.9,))
    found = measure(output, reference, values)
    assert found.agreement == 0.5 and found.judged_by == 4  # accepted, and no longer refused; not accepted
    assert measure(Output(name="x", kind="sigmoid"), reference, values).agreement == 0.75


def test_verification_says_at_which_thresholds_it_decided(pixels32: Any, tmp_path: Path) -> None:
    model = transfer.with_thresholds(_labelled("sigmoid"), [0.3, 0.4, 0.5])
    file = export.to_onnx(model, tmp_path / "nano.onnx")
    bolder = transfer.with_thresholds(model, [0.9, 0.9, 0.9])
    (found,) = export.verify(bolder, file, pixels32).outputs
    assert found.thresholds == (0.3, 0.4, 0.5) and found.agreement == 1.0
