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
from material import ROOT, assert_refused, encoded, exif, needs_keras_alone, slim_variant
from PIL import Image

from keras_effnet import load_image
from keras_effnet.cli import main
from keras_effnet.errors import EffNetWarning, InvalidInputError
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import read_listing
from keras_effnet.pretrain import examples, pretrain
from keras_effnet.pretrain.batches import Equalization, training_batches, validation_batches
from keras_effnet.pretrain.examples import Examples
from keras_effnet.pretrain.recipe import Recipe
from keras_effnet.system.devices import Share

# runs of a few steps cannot have an average that is good for anything; the tests look at other things
pytestmark = pytest.mark.filterwarnings("ignore:Expected more than:keras_effnet.errors.EffNetWarning")

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 40, 40)}
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
    """Without dropout, so that a few steps tell."""
    return replace(slim_variant(), name="small", dropout=0.0)


def _picture(label: str, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 25, (48, 60, 3))
    return Image.fromarray(np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colours")
    for position, label in enumerate(COLOURS):
        (root / label).mkdir()
        for index in range(8):
            suffix = "png" if index % 2 else "jpg"
            _picture(label, 10 * position + index).save(root / label / f"{index}.{suffix}")
    (root / "red" / "notes.txt").write_text("not a picture")
    (root / ".cache").mkdir()
    return root


@pytest.fixture(scope="module")
def records(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same pictures as ImageNet's TFRecords: encoded, labels from 1, in two files."""
    import tensorflow as tf

    root = tmp_path_factory.mktemp("records")
    paths = sorted(path for path in folders.rglob("*") if path.suffix in {".png", ".jpg"})
    for shard in range(2):
        with tf.io.TFRecordWriter(str(root / f"train-0000{shard}-of-00002")) as writer:
            for path in paths[shard::2]:
                label = sorted(COLOURS).index(path.parent.name) + 1
                feature = {
                    "image/encoded": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[path.read_bytes()])
                    ),
                    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                writer.write(
                    tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
                )
    return str(root / "train-*")


@pytest.fixture(scope="module")
def prepared(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tfds data set, written here: no internet."""
    tfds = pytest.importorskip("tensorflow_datasets")
    root = tmp_path_factory.mktemp("tfds")
    info_features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=sorted(COLOURS))}
    )
    rows = [
        (10 * position + index, {"image": np.asarray(_picture(label, 10 * position + index)), "label": label})
        for position, label in enumerate(sorted(COLOURS))
        for index in range(8)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="colours",
        version="1.0.0",
        features=info_features,
        split_datasets={"train": rows, "validation": rows[:3]},
        data_dir=str(root),
        disable_shuffling=True,
    )
    return str(root)


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


def test_the_three_sources_hold_the_same_examples(folders: Path, records: str, prepared: str) -> None:
    sources = (
        examples.from_folders(folders),
        examples.from_tfrecords(records, 3),
        examples.from_tfds("colours", "train", data_dir=prepared),
    )
    means = []
    for found in sources:
        pixels, labels = next(iter(validation_batches(found, Recipe(batch_size=24), 32)))
        assert pixels.shape == (24, 32, 32, 3) and labels.shape == (24, 3)
        order = np.argsort(np.argmax(labels, axis=1), kind="stable")
        means.append(np.asarray(pixels).mean(axis=(1, 2))[order].reshape(3, 8, 3).mean(axis=1))
    np.testing.assert_allclose(means[0], list(COLOURS.values()), atol=8)
    np.testing.assert_allclose(means[1], means[0], atol=1e-3)
    np.testing.assert_allclose(means[2], means[0], atol=1)  # written from pixels, not from JPEG files


def _of_class(root: Path, files: dict[str, bytes]) -> Examples:
    """Examples of two classes, the files in the first one."""
    for name, content in {**files, "../b/x.png": encoded(Image.new("RGB", (8, 8)), "PNG")}.items():
        path = root / "a" / name
        (root / "a").mkdir(exist_ok=True)
        path.parent.resolve().mkdir(exist_ok=True)
        path.write_bytes(content)
    return examples.from_folders(root)


def test_pretraining_tells_once_of_pictures_that_it_uses_with_a_fault(tmp_path: Path) -> None:
    whole = encoded(Image.linear_gradient("L").resize((64, 48)), "JPEG", quality=95)
    levels = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    deep = encoded(Image.fromarray(levels), "PNG")
    found = _of_class(tmp_path, {"cut.jpg": whole[:-2], "also.jpg": whole[:-1], "deep.png": deep})
    recipe = Recipe(batch_size=found.count, crop_area=0.5, augment_ops=0)
    for batches in (validation_batches(found, recipe, 32), training_batches(found, recipe, 32)):
        with pytest.warns(
            EffNetWarning, match=r"\.(jpg|png)', which (lacks its last|has 16-bit gray)"
        ) as said:
            for _ in range(2):
                next(iter(batches))
        assert len([each for each in said if each.category is EffNetWarning]) == 1


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pictures_of_all_kinds_and_orientations_are_those_of_load_image(
    interpolation: str, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((64, 48))
    files = {
        f"{orientation}{'i' if order == '<' else 'm'}.jpg": encoded(
            picture, "JPEG", exif=exif(orientation, order=order)
        )
        for orientation in range(1, 9)
        for order in "<>"
    }
    grain = np.random.default_rng(1).integers(0, 256, (450, 600, 3), dtype=np.uint8)
    files["large.jpg"] = encoded(Image.fromarray(grain), "JPEG")  # decoded at half its size
    veiled = picture.convert("RGBA")
    veiled.putalpha(Image.linear_gradient("L").resize(veiled.size))
    kinds = {"png": "PNG", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP", "gif": "GIF", "tiff": "TIFF"}
    files |= {
        f"x.{suffix}": encoded(picture if kind in {"BMP", "GIF"} else veiled, kind)
        for suffix, kind in kinds.items()
    }
    found = _of_class(tmp_path, files)
    assert found.count == len(files) + 1 == 24
    framing = Framing(interpolation)
    whole = Recipe(batch_size=found.count, crop_area=1, augment_ops=0)
    batches = (
        validation_batches(found, whole, 32, framing=framing),
        training_batches(found, whole, 32, framing=framing),
    )
    expected = {load_image(path, 32, interpolation=interpolation).tobytes() for path in tmp_path.rglob("*.*")}
    for data in batches:
        seen = {np.asarray(one).astype(np.uint8).tobytes() for one in next(iter(data))[0]}
        assert seen == expected


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


def test_tfrecords_with_names_and_an_offset_of_their_own(records: str, tmp_path: Path) -> None:
    import tensorflow as tf

    names = examples.RecordFeatures(image="jpeg", label="y", offset=0)
    with tf.io.TFRecordWriter(str(tmp_path / "x-0")) as writer:
        feature = {
            "jpeg": tf.train.Feature(
                bytes_list=tf.train.BytesList(value=[encoded(_picture("red", 0), "PNG")])
            ),
            "y": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
        }
        writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    found = examples.from_tfrecords(str(tmp_path / "x-*"), 3, features=names)
    pixels, labels = next(iter(validation_batches(found, Recipe(batch_size=1), 32)))
    assert np.asarray(labels).tolist() == [[1.0, 0.0, 0.0]]
    np.testing.assert_allclose(np.asarray(pixels).mean((0, 1, 2)), COLOURS["red"], atol=10)
    with pytest.raises(InvalidInputError, match=r"records with 'jpeg' and 'y'.*--image-feature"):
        examples.from_tfrecords(records, 3, features=names)


def test_csv_and_split_folders_are_sources_too(folders: Path, tmp_path: Path) -> None:
    rows = ["blue/0.jpg,b,train", "red/0.jpg,r,", "blue/1.png,b,validation", "red/1.png,r,test"]
    (folders / "list.csv").write_text("\n".join(["file,label,split", *rows]) + "\n")
    try:
        listing = read_listing(folders / "list.csv")
    finally:
        (folders / "list.csv").unlink()
    assert examples.from_listing(listing).count == 2
    assert examples.from_listing(listing, "validation").count == 1
    assert examples.from_listing(listing).labels == ("b", "r")


def test_slices_of_several_processes_are_the_batch_of_one(folders: Path) -> None:
    found, recipe = examples.from_folders(folders), Recipe(batch_size=8, augment_ops=0)
    whole = training_batches(found, recipe, 32, seed=3)
    parts = [
        training_batches(found, recipe, 32, seed=3, share=Share(index=index, count=2)) for index in range(2)
    ]
    first = next(iter(training_batches(found, recipe, 32, seed=3)))[0]
    for (pixels, labels), *halves in zip(whole.take(4), *(part.take(4) for part in parts), strict=True):
        np.testing.assert_array_equal(np.concatenate([half[0] for half in halves]), pixels)
        np.testing.assert_array_equal(np.concatenate([half[1] for half in halves]), labels)
    again = next(iter(training_batches(found, recipe, 32, seed=3)))[0]
    other = next(iter(training_batches(found, recipe, 32, seed=4)))[0]
    np.testing.assert_array_equal(again, first)
    assert np.abs(again - other).max() > 20


def test_equalization_is_that_of_keras() -> None:
    gray = np.random.default_rng(0).normal(90, 30, (32, 32, 3)).clip(0, 255).round().astype(np.float32)
    wanted = np.asarray(keras.layers.Equalization(value_range=(0, 255))(gray))
    assert np.abs(wanted - gray).mean() > 5
    np.testing.assert_array_equal(np.asarray(Equalization(value_range=(0, 255))(gray)), wanted)


@pytest.mark.parametrize("kind", ["autoaugment", "randaugment"])
def test_augmentation_changes_the_pictures_within_their_range(folders: Path, kind: str) -> None:
    found = examples.from_folders(folders)
    plain, strong = (
        np.asarray(next(iter(training_batches(found, Recipe(batch_size=8, augment=each), 32)))[0])
        for each in ("none", kind)
    )
    assert plain.shape == strong.shape == (8, 32, 32, 3)
    assert np.abs(plain - strong).mean() > 5
    assert strong.min() >= 0 and strong.max() <= 255


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
            _picture(label, index).save(tmp_path / "data" / label / f"{copy}.png")
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
        "pretrain(slim_variant(), examples.from_folders(sys.argv[1]), out='run', recipe=recipe, strategy='mirrored',"
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
            _picture("red", 0).save(Path(name) / "0.png")
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tfds:colours:validation"], "at least 8 pictures, one batch. Received: 3."),
        (["tfds:colours", "--batch-size", "25"], "at least 25 pictures, one batch. Received: 24."),
        (["tfds:colours:validation", "--split", "train"], "Expected one split to train on"),
        (
            ["tfds:colours", "--validation", "tfds:others:test"],
            "a split of the same data set, tfds:colours:SPLIT",
        ),
        (["tfds:absent"], "the prepared data set 'absent', split 'train'"),
    ],
)
def test_tfds_is_named_as_train_names_it(
    arguments: list[str], message: str, prepared: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", prepared)
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    command = ["pretrain", "--out", str(tmp_path / "out"), "--batch-size", "8", "--quiet", *arguments]
    assert_refused(command, message, capsys)
    assert not (tmp_path / "out").exists()


def test_missing_tfds_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[pretrain\]'"):
        examples.from_tfds("mnist", "train")


def test_pretrain_command_trains(folders: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(os.environ, "TF_CPP_MIN_LOG_LEVEL", "3")
    out = tmp_path / "run"
    recipe = ["--epochs", "1", "--batch-size", "8", "--augment-ops", "0", "--ema", "0", "--size", "32"]
    assert main(["pretrain", str(folders), "--model", "lite0", "--out", str(out), *recipe]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(out / "model.keras")
    assert re.search(r"^pretraining: epoch 1 of 1, accuracy 0\.\d+, loss \d", told.err, re.M)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", told.out + told.err)  # as a pipe gets it
    assert keras.models.load_model(out / "model.keras").output_shape == (None, 3)
