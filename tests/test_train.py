"""`keras-effnet train`: whole runs on tiny pictures, kills included."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import ROOT
from PIL import Image

from keras_effnet.cli import main
from keras_effnet.errors import InvalidInputError

pytest.importorskip("sklearn")
pytest.importorskip("tensorboard")

SIZE = "64"
BROKEN = os.fsdecode(b"broken \xe9.jpg")  # a name in Latin-1, as old archives unpack them
COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours, twelve noisy pictures each, one in a nested folder; a broken one and one of no class."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for index in range(12):
            noise = generator.normal(0, 40, (48, 40, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            path = root / name / ("more" if index == 0 else "") / f"{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (root / "red" / BROKEN).write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (root / "cover.heic").write_bytes(b"of no class")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an untrained network: its features still tell three colours apart. It does not say its preprocessing."""
    import keras

    from keras_effnet import EfficientNet

    keras.utils.set_random_seed(3)
    model = EfficientNet("lite0", weights=None, input_shape=(32, 32, 3), preprocessing=(0.4, 0.2))
    path = tmp_path_factory.mktemp("weights") / "lite0.weights.h5"
    model.save_weights(path)
    return path


@pytest.fixture(scope="module")
def options(data: Path, weights: Path) -> list[str]:
    return [
        "train", str(data), "--weights", str(weights), "--preprocessing", "0.4,0.2", "--image-size", SIZE,
        "--batch-size", "8",
        "--unfreeze", "block7", "--patience", "9", "--head-epochs", "30",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs that nobody disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*options, "--epochs", "3", "--out", str(out)]) == 0
    return out


def _child(arguments: list[str], **kwargs: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "keras_effnet.cli", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **kwargs,
    )


def _wait_for(child: subprocess.Popen[str], happened: Any) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _state(out: Path, phase: str = "fine_tuning") -> dict[str, Any]:
    try:
        return dict(json.loads((out / "work" / phase / "state.json").read_text()))
    except FileNotFoundError:
        return {"epoch": 0}


def test_train_leaves_what_it_promises(finished: Path, data: Path) -> None:
    import keras

    from keras_effnet.network.conventions import get_convention
    from keras_effnet.weights.facts import built_with

    names = {path.name for path in finished.iterdir()}
    assert names == {
        "run.json", "data.csv", "data.json", "skipped.csv", "labels.txt", "model.keras", "metrics.json", "report.html", "logs",
    }  # fmt: skip
    assert (finished / "labels.txt").read_text().split() == ["blue", "green", "red"]
    metrics = json.loads((finished / "metrics.json").read_text())
    assert [row["file"] for row in metrics["data"]["skipped"]] == [f"red/{BROKEN}", "cover.heic"]
    with (finished / "skipped.csv").open(errors="surrogateescape") as stream:
        assert list(csv.reader(stream))[2] == ["cover.heic", "in no class folder"]
    assert metrics["fine_tuning"]["epochs"] == 3
    assert len(metrics["test"]["confusion_matrix"]) == 3
    assert set(metrics["test"]["per_class"]["red"]) == {"precision", "recall", "f1", "photographs"}
    with (finished / "data.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 36 and {row["split"] for row in rows} == {"train", "validation", "test"}
    assert any((finished / "logs").rglob("events.*"))
    model = keras.saving.load_model(finished / "model.keras", compile=False)
    assert built_with(model)["preprocessing"].same_as(get_convention((0.4, 0.2)))  # as was asked for
    assert data.is_dir()


def _judged(run: Path, data: Path) -> tuple[list[str], list[str], list[str]]:
    """Classes, truths and guesses on the test photographs, with nothing but Keras and the saved files."""
    import keras

    from keras_effnet import load_image

    model = keras.saving.load_model(run / "model.keras")
    with (run / "data.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    labels = (run / "labels.txt").read_text().split()
    pixels = np.stack(
        [load_image(data / row["file"], 64, interpolation="bilinear", margin=0) for row in rows]
    )
    guesses = [labels[index] for index in model.predict(pixels, verbose=0).argmax(1)]
    return labels, [row["label"] for row in rows], guesses


def test_trained_model_agrees_with_its_metrics(finished: Path, data: Path) -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix

    labels, truth, guesses = _judged(finished, data)
    figures = json.loads((finished / "metrics.json").read_text())["test"]
    assert figures["accuracy"] == pytest.approx(accuracy_score(truth, guesses))
    assert figures["confusion_matrix"] == confusion_matrix(truth, guesses, labels=labels).tolist()
    assert figures["accuracy"] > 0.5  # three plain colours


def test_report_stands_alone(finished: Path) -> None:
    import keras

    page = (finished / "report.html").read_text()
    assert page.count("<svg") == 6  # two curves for each phase, the confusion matrix, the reliability
    assert not re.search(r"""(src|href)=["'](?!data:|#|export/)""", page.replace("xlink:href", "href"))
    assert f"keras {keras.__version__} · scikit-learn " in page
    assert "red/broken \N{REPLACEMENT CHARACTER}.jpg" in page
    mistakes = json.loads((finished / "metrics.json").read_text())["test"]
    wrong = round(mistakes["photographs"] * (1 - mistakes["accuracy"]))
    assert page.count("data:image/jpeg") == 2 * min(wrong, 12)


def test_killed_run_resumes_after_its_last_whole_epoch(
    options: list[str], finished: Path, tmp_path: Path
) -> None:
    import keras

    out = tmp_path / "killed"
    arguments = [*options, "--epochs", "3", "--out", str(out)]
    child = _child(arguments)
    _wait_for(child, lambda: _state(out)["epoch"] >= 1)
    child.kill()  # SIGKILL: nothing of ours runs any more
    child.communicate()
    assert not (out / "model.keras").exists()
    before = _state(out)
    assert main([*arguments, "--resume"]) == 0
    resumed = json.loads((out / "metrics.json").read_text())
    whole = json.loads((finished / "metrics.json").read_text())
    # the epochs that were done are kept, and the history has no gap and no repetition
    history = resumed["fine_tuning"]["history"]
    assert len(history["loss"]) == 3
    done = before["epoch"]
    np.testing.assert_allclose(history["loss"][:done], before["history"]["loss"])
    assert resumed["head"]["validation_accuracy"] == whole["head"]["validation_accuracy"]
    assert keras.saving.load_model(out / "model.keras").count_params() > 0
    assert not (out / "work").exists()


def test_refit_uses_validation_photographs_too_also_when_it_was_killed(
    options: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "refit"
    # so slow that validation cannot find fault with it
    arguments = [*options, "--epochs", "3", "--learning-rate", "1e-6", "--refit", "--out", str(out)]
    child = _child(arguments)
    _wait_for(child, lambda: _state(out, "refit")["epoch"] >= 1)
    child.kill()
    child.communicate()
    validated = json.loads((out / "work" / "validated.json").read_text())
    assert main([*arguments, "--resume"]) == 0
    assert "refitted to 30 training and validation photographs" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    counts = {split: metrics["data"][split] for split in ("train", "validation", "test")}
    chosen, refit = metrics["fine_tuning"], metrics["refit"]
    assert counts == {"train": 24, "validation": 6, "test": 6}
    assert (chosen["photographs"], refit["photographs"]) == (24, 30)
    assert refit["epochs"] == chosen["best_epoch"] > 0
    assert "val_loss" in chosen["history"] and "val_loss" not in refit["history"]
    # the refitted network knows the validation photographs: their figures are of the one before
    assert metrics["validation"] == validated
    assert validated["accuracy"] == chosen["history"]["val_accuracy"][chosen["best_epoch"] - 1]
    _, truth, guesses = _judged(out, data)
    assert metrics["test"]["accuracy"] == np.mean(np.array(truth) == np.array(guesses))
    assert "30" in (out / "report.html").read_text().split("in the refit")[0][-200:]


def test_refit_says_that_it_is_left_out_when_the_head_was_better(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main([*options, "--epochs", "1", "--learning-rate", "5", "--refit", "--out", str(out)]) == 0
    assert "no refit: fine-tuning got fewer" in capsys.readouterr().err
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["fine_tuning"]["best_epoch"] == 0 and metrics["refit"] is None


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--test-share", "0"], "Expected test photographs to judge a refit by"),
        (["--epochs", "0"], "Expected something to refit"),
    ],
    ids=["no test photographs", "head alone"],
)
def test_refit_is_refused_when_nothing_could_judge_it_or_be_refitted(
    options: list[str], extra: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main([*options, *extra, "--refit", "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not (out / "run.json").exists()


def test_sigterm_leaves_a_run_that_resumes(options: list[str], tmp_path: Path) -> None:
    """The line that it prints is the whole command: spaces quoted, exports and all."""
    out = tmp_path / "stopped run"
    exports = ["--export", "saved_model", "onnx:int8", "--keep-failed", "--min-agreement", "0.9"]
    arguments = [*options, "--epochs", "0", "--out", str(out), *exports]
    child = _child(arguments)
    _wait_for(child, (out / "run.json").exists)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 143
    told = errors.strip().splitlines()[-1].partition("keras-effnet: interrupted; go on with: ")[2]
    program, *line = shlex.split(told)
    assert program == "keras-effnet" and line == ["train", "--resume", *arguments[1:]]
    assert main([*line[: -len(exports)], "--quiet"]) == 0
    assert json.loads((out / "metrics.json").read_text())["fine_tuning"] is None


def test_full_disk_is_one_line_and_leaves_no_half_file(options: list[str], tmp_path: Path) -> None:
    out = tmp_path / "full"

    def limit() -> None:
        # no file may grow beyond 5 MB: the model of 14 MB cannot be saved
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))

    child = _child([*options, "--epochs", "0", "--out", str(out)], preexec_fn=limit)
    _, errors = child.communicate(timeout=300)
    assert child.returncode == 2
    assert "Expected to write" in errors and "model.keras" in errors and "Traceback" not in errors
    assert not (out / "model.keras").exists() and not list(out.glob(".*"))
    assert main([*options, "--epochs", "0", "--out", str(out), "--resume", "--quiet"]) == 0
    assert (out / "model.keras").exists()


def test_existing_run_is_refused_and_other_settings_too(
    options: list[str], finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*options, "--epochs", "3", "--out", str(finished)]) == 2
    assert "which holds a run. Choose another --out, or pass --resume" in capsys.readouterr().err
    assert main([*options, "--epochs", "3", "--seed", "5", "--out", str(finished), "--resume"]) == 2
    assert "Received: seed 5 instead of 0. Give what it was begun with" in capsys.readouterr().err
    assert main([*options, "--out", str(tmp_path / "none"), "--resume"]) == 2
    assert "Expected a run to resume" in capsys.readouterr().err
    (tmp_path / "mine.txt").write_text("precious")
    assert main([*options, "--out", str(tmp_path)]) == 2
    assert "which holds something else" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_wrong_use_is_answered_before_any_work(
    options: list[str], data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    for extra, message in (
        (["--unfreeze", "block9"], "Expected unfreeze to be one of stem, block1,"),
        (["--weights", "imagnet"], "Did you mean 'imagenet'"),
        (["--weights", "advprop"], "Expected a published set of weights of lite0"),
        (["--weights", str(tmp_path / "none.h5")], "no such file"),
        (["--model", "lite1"], "which are of lite0. Pass other --weights, or --model lite0"),
        (["--augment", "strong"], "Expected augment to be one of"),
        (["--model", "b9"], "Expected variant to be one of"),
        (["--export", "tflite:int4"], "Expected target to be one of"),
        (["--learning-rate", "-1"], "Expected a learning rate above 0"),
    ):
        assert main([*options, *extra, "--out", out]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not Path(out).exists()
    assert main(["train", str(data / "nowhere"), "--out", out]) == 2
    assert "nowhere', which does not exist" in capsys.readouterr().err
    assert not Path(out).exists()


def test_exports_are_verified_and_labelled_as_the_run_was_when_the_folder_has_changed(
    finished: Path, options: list[str], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More photographs and another class came after the run: an export must not be judged by them."""
    pytest.importorskip("ai_edge_litert")
    from keras_effnet.export import load

    before = {name: (finished / name).read_bytes() for name in ("data.csv", "data.json", "metrics.json")}
    added = [data / "red" / "00_new.png", data / "yellow" / "00.png", data / "yellow" / "01.png"]
    arguments = [*options, "--epochs", "3", "--out", str(finished), "--resume", "--json"]
    try:
        for path in added:
            path.parent.mkdir(exist_ok=True)
            shutil.copy(data / "red" / "01.png", path)
        assert main([*arguments[:-1], "--export", "tflite:float32"]) == 0
        assert '<a href="export/report.html">' in (finished / "report.html").read_text()
        assert (finished / "export" / "report.html").is_file()
    finally:
        for path in added:
            path.unlink()
        (data / "yellow").rmdir()
    assert {name: (finished / name).read_bytes() for name in before} == before
    said = capsys.readouterr().out.splitlines()
    file = finished / "export" / "lite0_float32.tflite"
    assert said[-2] == f"export: {file}: the model's class for 100.0% of 6 test photographs"
    assert said[-1].startswith(f"page:   keras-effnet bundle web {file} --out {finished / 'site'} ")
    assert re.fullmatch(r"kept: the (head alone|fine-tuned network of epoch \d).* right, .*", said[-5])
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    runner = load(finished / "export" / "lite0_float32.tflite")
    assert runner.labels == ("blue", "green", "red")
    report = json.loads((finished / "export" / "report.json").read_text())
    assert report["artifacts"][0]["ok"] and report["artifacts"][0]["images"] == 6
    assert printed["artifacts"] == report["artifacts"] and printed["test"]["photographs"] == 6
    assert "lite0_float32.tflite" in (finished / "report.html").read_text()


def test_data_that_cannot_be_used_give_the_folder_back(
    weights: Path, data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ["--weights", str(weights), "--preprocessing", "0.4,0.2", "--out", str(out)]
    assert main(["train", str(data / "red"), *arguments]) == 2
    assert "Expected at least two classes" in capsys.readouterr().err
    assert not out.exists()


def test_photographs_that_cannot_be_read_are_listed_when_too_few_remain(
    weights: Path, data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A CSV with another base folder: every name is wrong."""
    out, table = tmp_path / "run", tmp_path / "list.csv"
    table.write_text("file,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(8)))
    arguments = ["--weights", str(weights), "--preprocessing", "0.4,0.2", "--out", str(out), "--quiet"]
    assert main(["train", str(table), *arguments]) == 2
    error = capsys.readouterr().err
    assert "Received: a (0), b (0)" in error and error.count("\n") == 1
    assert f"8 of 8 could not be used, '0.png' for example: no such file. All are listed in '{out}" in error
    assert [path.name for path in out.iterdir()] == ["skipped.csv"]
    assert (out / "skipped.csv").read_text().splitlines()[8] == "7.png,no such file"
    assert main(["train", str(data / "red"), *arguments]) == 2  # the folder can be used again
    assert "Expected at least two classes" in capsys.readouterr().err


def test_run_folder_takes_its_path_as_text(tmp_path: Path) -> None:
    from keras_effnet.train import RunFolder, Settings

    made = RunFolder.create(str(tmp_path / "run"), Settings(data="photographs"))
    assert made == RunFolder.resume(str(tmp_path / "run")) and made.model == tmp_path / "run" / "model.keras"


def test_resume_removes_what_a_killed_writer_left(finished: Path, tmp_path: Path) -> None:
    from keras_effnet.system.files import staged
    from keras_effnet.train import RunFolder

    shutil.copy(finished / "run.json", tmp_path / "run.json")
    places = [tmp_path / "model.keras", tmp_path / "work" / "fine_tuning" / "state.json"]
    for place in places:
        with staged(place) as temporary:
            temporary.write_text("half")
            os.link(temporary, f"{temporary}.kept")
        os.rename(f"{temporary}.kept", temporary)  # noqa: PTH104
    temporary.with_suffix(".weights.h5").write_text("half")
    (tmp_path / ".export-ab12cd34").mkdir()
    mine = tmp_path / ".notes.part"
    mine.write_text("no staged file")
    RunFolder.resume(tmp_path, {})
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {mine, tmp_path / "run.json", *places} and not (tmp_path / ".export-ab12cd34").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.csv", "file,label,split\nred/01.png,yellow,train\n", "Received: KeyError: 'yellow'"),
        ("data.csv", "", "Received: ValueError: data.csv is empty"),
        ("data.json", None, "Received: no data.json"),
    ],
)
def test_finished_run_with_damaged_lists_is_refused(
    finished: Path, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    from keras_effnet.train import RunFolder

    for copied in ("run.json", "data.csv", "data.json", "skipped.csv", "model.keras"):
        shutil.copy(finished / copied, tmp_path / copied)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        RunFolder.resume(tmp_path, {}).read_listing()


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra",
    [
        ["--strategy", "mirrored", "--ema", "0.9"],
        ["--precision", "mixed_bfloat16", "--augment", "randaugment", "--class-weights"],
        ["--mixup", "0.2", "--cutmix", "1.0", "--class-weights", "--crop-margin", "0"],
    ],
    ids=lambda extra: extra[1],
)
def test_options_train_and_save_float32(options: list[str], tmp_path: Path, extra: list[str]) -> None:
    import keras

    out = tmp_path / "run"
    assert main([*options, "--epochs", "1", "--quiet", *extra, "--out", str(out)]) == 0
    model = keras.saving.load_model(out / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert json.loads((out / "metrics.json").read_text())["fine_tuning"]["epochs"] == 1
    assert os.listdir(out / "logs" / "fine_tuning")  # noqa: PTH208


def test_train_without_its_extra_names_it(tmp_path: Path, data: Path) -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from keras_effnet.cli import main\n"
        f"sys.exit(main(['train', {str(data)!r}, '--out', {str(tmp_path / 'run')!r}]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.returncode == 2
    assert "pip install '.[train]'" in result.stderr
    assert not (tmp_path / "run").exists()
