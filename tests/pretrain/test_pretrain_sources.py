"""Where pictures for pretraining come from, and what is done to them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from colours import COLOURS, picture
from material import assert_refused, encoded, exif
from PIL import Image

from keras_effnet import load_image
from keras_effnet.errors import EffNetWarning, InvalidInputError
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import read_listing
from keras_effnet.pretrain import examples
from keras_effnet.pretrain.batches import Equalization, training_batches, validation_batches
from keras_effnet.pretrain.examples import Examples
from keras_effnet.pretrain.recipe import Recipe
from keras_effnet.system.devices import Share


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


def test_tfrecords_with_names_and_an_offset_of_their_own(records: str, tmp_path: Path) -> None:
    import tensorflow as tf

    names = examples.RecordFeatures(image="jpeg", label="y", offset=0)
    with tf.io.TFRecordWriter(str(tmp_path / "x-0")) as writer:
        feature = {
            "jpeg": tf.train.Feature(
                bytes_list=tf.train.BytesList(value=[encoded(picture("red", 0), "PNG")])
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


def test_missing_tfds_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[pretrain\]'"):
        examples.from_tfds("mnist", "train")


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
