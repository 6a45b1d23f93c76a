"""Training from scratch end to end on tiny data: each source of pictures, resume, the command."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from colours import COLOURS, picture
from material import ROOT, needs_keras_alone, slim_lite, slim_variant

from keras_effnet.cli import main
from keras_effnet.errors import InvalidInputError
from keras_effnet.network.variants import VARIANTS
from keras_effnet.pictures.framing import Framing
from keras_effnet.pretrain import examples, pretrain
from keras_effnet.pretrain.batches import training_batches
from keras_effnet.pretrain.examples import Examples
from keras_effnet.pretrain.recipe import Recipe

# runs of a few steps cannot have an average that is good for anything; the tests look at other things
pytestmark = pytest.mark.filterwarnings("ignore:Expected more than:keras_effnet.errors.EffNetWarning")

QUICK = Recipe(
    epochs=4,
    batch_size=8,
    learning_rate=0.02,
    warmup_epochs=0,
    ema=0.6,
    drop_connect_rate=0,
    augment_ops=0,
    crop_area=0.5,
)


@pytest.fixture(scope="module")
def small() -> Any:
    """One block without dropout, so that a few steps tell."""
    return replace(slim_variant(1), name="small", dropout=0.0)


ONE_EPOCH = replace(QUICK, epochs=1)


def _check_run(out: Path, found: Examples, small: Any) -> None:
    assert found.count == 24 and found.records.element_spec[0].dtype == "string"
    pretrain(small, found, out=out, recipe=ONE_EPOCH, verbose=0)
    (row,) = csv.DictReader((out / "history.csv").open())
    assert np.isfinite(float(row["loss"])) and (out / "model.keras").is_file()


def test_pretrain_learns_from_folders(folders: Path, small: Any, tmp_path: Path) -> None:
    found = examples.from_folders(folders)
    assert found.labels == ("blue", "green", "red")
    out = tmp_path / "run"
    pretrain(small, found, found, out=out, recipe=QUICK, verbose=0)
    assert sorted(path.name for path in out.iterdir()) == [
        "history.csv",
        "labels.txt",
        "model.keras",
        "recipe.json",
    ]
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    losses = [float(row["loss"]) for row in rows]
    assert min(losses[1:]) < losses[0], losses  # so few steps of so small batches do not fall steadily
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    assert json.loads((out / "recipe.json").read_text())["learning_rate"] == 0.02
    assert (tmp_path / "run" / "labels.txt").read_text() == "blue\ngreen\nred\n"
    assert needs_keras_alone(out / "model.keras")
    assert keras.models.load_model(out / "model.keras").output_shape == (None, 3)


def test_pretrain_learns_from_tfrecords(records: str, small: Any, tmp_path: Path) -> None:
    found = examples.from_tfrecords(records, 3)
    assert found.labels == ("class 0", "class 1", "class 2")
    _check_run(tmp_path / "run", found, small)


def test_pretrain_learns_from_tfds(prepared: str, small: Any, tmp_path: Path) -> None:
    found = examples.from_tfds("colours", "train", data_dir=prepared)
    assert found.labels == ("blue", "green", "red")
    assert examples.from_tfds("colours", "validation", data_dir=prepared).count == 3
    _check_run(tmp_path / "run", found, small)


def test_pretraining_reads_as_its_variant_is_used_later(
    folders: Path, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    framings: list[Framing] = []

    def batches(*_: Any, framing: Framing, **__: Any) -> Any:
        framings.append(framing)
        raise InvalidInputError("seen")

    monkeypatch.setattr(importlib.import_module("keras_effnet.pretrain.run"), "training_batches", batches)
    for variant in (small, "lite0"):
        with pytest.raises(InvalidInputError, match="seen"):
            pretrain(variant, examples.from_folders(folders), out=tmp_path / "run", verbose=0)
    assert [framing.interpolation for framing in framings] == ["bicubic", "bilinear"]


class _Stop(keras.callbacks.Callback):
    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.at:
            raise KeyboardInterrupt


def test_resume_goes_on_after_the_last_whole_epoch(
    folders: Path, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, out, recipe = examples.from_folders(folders), tmp_path / "run", replace(QUICK, epochs=2)
    seeds: list[int] = []

    def batches(*given: Any, seed: int, **named: Any) -> Any:
        seeds.append(seed)
        return training_batches(*given, seed=seed, **named)

    monkeypatch.setattr(importlib.import_module("keras_effnet.pretrain.run"), "training_batches", batches)
    with pytest.raises(KeyboardInterrupt):
        pretrain(small, found, out=out, recipe=recipe, callbacks=[_Stop(0)], verbose=0)
    with pytest.raises(KeyboardInterrupt):  # no whole epoch yet: it begins again
        pretrain(small, found, out=out, recipe=recipe, callbacks=[_Stop(1)], resume=True, verbose=0)
    assert not (out / "model.keras").exists() and (out / ".state").is_dir()
    with pytest.raises(InvalidInputError, match=r"does not exist yet.*resume"):
        pretrain(small, found, out=out, recipe=recipe, verbose=0)
    for other, message in (
        ({"recipe": replace(recipe, batch_size=4)}, r"batch_size = 8\. Received: 4\. Give those"),
        ({"recipe": recipe, "seed": 3}, r"seed = 0\. Received: 3"),
        ({"recipe": recipe, "train": replace(found, count=20)}, r"pictures = 24\. Received: 20"),
        (
            {"recipe": recipe, "train": replace(found, labels=("a", "b", "c"))},
            r"classes = 3 \(blue, green, red\)\. Received: 3 \(a, b, c\)",
        ),
        ({"recipe": recipe, "strategy": "mirrored"}, r"strategy = 'none'\. Received: 'mirrored'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            pretrain(small, **({"train": found, "out": out, "resume": True} | other))
    del seeds[2:]
    model = pretrain(small, found, out=out, recipe=recipe, resume=True, verbose=0)
    assert int(model.optimizer.iterations) == 6  # both epochs, three steps each
    assert seeds == [0, 0, 1]  # the second epoch does not repeat the first one's order
    assert [int(row["epoch"]) for row in csv.DictReader((out / "history.csv").open())] == [1, 2]
    assert (out / "model.keras").exists() and not (out / ".state").exists()
    for again in (True, False):  # neither advises the other
        with pytest.raises(InvalidInputError, match=r"which holds a finished run\. Choose another folder\."):
            pretrain(small, found, out=out, recipe=recipe, resume=again, verbose=0)


@pytest.mark.parametrize(
    ("number", "code", "begun"),
    [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, True), (signal.SIGTERM, 143, False)],
)
def test_stopped_pretrain_says_how_to_go_on(
    number: int, code: int, begun: bool, folders: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    out = tmp_path / "my run"

    def interrupted(*_: Any, **__: Any) -> None:
        if begun:
            out.mkdir()
        signal.raise_signal(number)

    monkeypatch.setattr(importlib.import_module("keras_effnet.pretrain"), "pretrain", interrupted)
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: pytest.fail("not handled"))
    try:
        assert (
            main(
                ["pretrain", str(folders), "--out", str(out), "--batch-size", "4", "--epochs", "2", "--quiet"]
            )
            == code
        )
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    line = f"pretrain --resume {folders} --out '{out}' --batch-size 4 --epochs 2 --quiet"
    told = f"go on with: keras-effnet {line}" if begun else "nothing was written yet"
    assert capsys.readouterr().err == f"keras-effnet: interrupted; {told}\n"


def test_average_that_is_too_slow_is_told(folders: Path, small: Any, tmp_path: Path) -> None:
    recipe = replace(QUICK, ema=0.9999, epochs=1)
    with pytest.warns(UserWarning, match="Expected more than 3 steps"):
        pretrain(small, examples.from_folders(folders), out=tmp_path / "run", recipe=recipe, verbose=0)


def test_loss_that_is_not_finite_ends_without_a_model(folders: Path, small: Any, tmp_path: Path) -> None:
    recipe = replace(QUICK, learning_rate=1e30, ema=0.0)
    with pytest.raises(InvalidInputError, match="lower learning rate"):
        pretrain(small, examples.from_folders(folders), out=tmp_path / "run", recipe=recipe, verbose=0)
    assert not (tmp_path / "run" / "model.keras").exists()


def test_broken_picture_and_wrong_label_are_told_in_one_line(
    folders: Path, records: str, small: Any, tmp_path: Path
) -> None:
    for index, label in enumerate(COLOURS):
        (tmp_path / "data" / label).mkdir(parents=True)
        for copy in range(3):
            picture(label, index).save(tmp_path / "data" / label / f"{copy}.png")
    (tmp_path / "data" / "red" / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(InvalidInputError, match="pictures that can be decoded"):
        pretrain(small, examples.from_folders(tmp_path / "data"), out=tmp_path / "a", recipe=QUICK, verbose=0)
    two = examples.from_tfrecords(records, 2)
    with pytest.raises(InvalidInputError, match="class index outside"):
        pretrain(small, two, out=tmp_path / "b", recipe=QUICK, verbose=0)


def test_mirrored_strategy_trains_on_two_devices(folders: Path, tmp_path: Path) -> None:
    code = (
        "import sys, tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "real = tf.distribute.MirroredStrategy\n"
        "made = []\n"
        "tf.distribute.MirroredStrategy = lambda: made.append(real(['CPU:0', 'CPU:1'])) or made[-1]\n"
        "from keras_effnet.pretrain import examples\nfrom keras_effnet.pretrain import pretrain\n"
        "from keras_effnet.pretrain.recipe import Recipe\nfrom material import slim_variant\n"
        "recipe = Recipe(epochs=1, batch_size=8, augment_ops=0, ema=0)\n"
        "pretrain(slim_variant(1), examples.from_folders(sys.argv[1]), out='run', recipe=recipe, strategy='mirrored',"
        " verbose=0)\n"
        "print(made[0].num_replicas_in_sync)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(folders)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split()[-1] == "2"
    assert (tmp_path / "run" / "model.keras").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "folder with a folder of photographs per class"),
        (["ONE"], "at least two classes"),
        (["EMPTY"], "EMPTY/b', which has none (.bmp .gif .jpeg .jpg .png .tif .tiff .webp)"),
        (["DATA", "--label-offset", "0"], "Expected --format tfrecords with"),
        (["DATA", "--batch-size", "25"], "at least 25 pictures"),
        (["DATA", "--ema", "1"], "Expected ema in [0, 1)"),
        (["DATA", "--model", "b99"], "Expected variant to be one of"),
        (["DATA", "--validation", "TWO"], "the same classes for validation"),
        (["DATA", "--resume"], "Expected an interrupted run"),
        (["DATA", "--strategy", "multi"], "invalid choice: 'multi'"),
        (["DATA", "--hosts", "2"], "Expected --coordinator HOST:PORT"),
        (["DATA", "--process-id", "1"], "Expected --hosts N"),
        (["DATA", "--hosts", "2", "--coordinator", "here"], "host:port of process 0"),
        (["DATA", "--hosts", "2", "--process-id", "2", "--coordinator", "a:1"], "process id between 0 and 1"),
        (["DATA", "--hosts", "2", "--coordinator", "a:1"], "JAX backend"),
        (
            ["none-*", "--format", "tfrecords"],
            "none. Check the path; in a shell, quote the pattern: '/data/train-*'",
        ),
        (["absent", "--format", "tfds", "--data-dir", "EMPTY"], "the prepared data set 'absent'"),
    ],
)
def test_wrong_use_ends_with_two_and_one_line(
    arguments: list[str], message: str, folders: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    for name in ("ONE/a", "EMPTY/a", "EMPTY/b", "TWO/a", "TWO/b"):
        Path(name).mkdir(parents=True)
        if name != "EMPTY/b":
            picture("red", 0).save(Path(name) / "0.png")
    given = [str(folders) if item == "DATA" else item for item in arguments]
    try:
        code: Any = main(["pretrain", "--out", "OUT", "--batch-size", "8", "--quiet", *given])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err.splitlines()
    assert code == 2
    assert message in error[-1]
    assert len([line for line in error if "warning" not in line]) == 1
    assert not Path("OUT").exists()


def test_pretrain_command_trains(folders: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(os.environ, "TF_CPP_MIN_LOG_LEVEL", "3")
    out = tmp_path / "run"
    recipe = ["--epochs", "1", "--batch-size", "8", "--augment-ops", "0", "--ema", "0", "--size", "32"]
    monkeypatch.setitem(VARIANTS, "slim", slim_lite())
    assert main(["pretrain", str(folders), "--model", "slim", "--out", str(out), *recipe]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(out / "model.keras")
    assert re.search(r"^pretraining: epoch 1 of 1, accuracy 0\.\d+, loss \d", told.err, re.M)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", told.out + told.err)  # as a pipe gets it
    assert keras.models.load_model(out / "model.keras").output_shape == (None, 3)
