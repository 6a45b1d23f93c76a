"""From folders and CSV files to a split list of photographs; nothing is trained here."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import ROOT, as_stored, encoded, exif
from PIL import Image

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures import prefetching
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import SPLITS, read_listing
from keras_effnet.train.batches import (
    Augmentation,
    Course,
    augmentation,
    evaluation_batches,
    training_batches,
)
from keras_effnet.train.checkpoints import EpochCheckpoint
from keras_effnet.train.folder import trained_model
from keras_effnet.train.results import reason_for_result
from keras_effnet.train.settings import Settings
from keras_effnet.train.splits import class_weights, imbalance, scan, split_listing


def _picture(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 36), (value % 256, 90, 60)).save(path)
    return path


def _folders(root: Path, counts: dict[str, int], prefix: str = "") -> Path:
    for name, count in counts.items():
        (root / prefix / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            _picture(root / prefix / name / f"{index:03d}.png", index)
    return root


def test_listing_reads_a_folder_per_class(tmp_path: Path) -> None:
    listing = read_listing(_folders(tmp_path, {"dog": 3, "cat": 2}))
    assert listing.classes == ("cat", "dog")
    assert listing.files == ["cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png", "dog/002.png"]
    assert listing.labels.tolist() == [0, 0, 1, 1, 1]
    assert set(listing.splits) == {-1}


def test_listing_counts_nested_folders_to_their_class(tmp_path: Path) -> None:
    _folders(tmp_path, {"cat": 1, "dog": 1})
    _picture(tmp_path / "cat" / "2024" / "may" / "a.jpg")
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    assert read_listing(tmp_path).files == ["cat/000.png", "cat/2024/may/a.jpg", "dog/000.png"]


def test_listing_keeps_the_splits_it_finds(tmp_path: Path) -> None:
    for prefix in ("train", "valid", "test"):
        _folders(tmp_path, {"cat": 2, "dog": 2}, prefix)
    listing = split_listing(read_listing(tmp_path), validation=0.5, test=0.5, seed=0)
    assert [len(listing.of(split)) for split in SPLITS] == [4, 4, 4]
    assert all(listing.files[index].startswith("valid/") for index in listing.of("validation"))


def test_listing_reads_csv_with_and_without_splits(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        _picture(tmp_path / "pics" / f"{name}.png")
    text = "file,label,split\npics/a.png,x,train\npics/b.png,y,train\npics/c.png,x,val\npics/d.png,y,validation\n"
    (tmp_path / "data.csv").write_text(text)
    listing = split_listing(read_listing(tmp_path / "data.csv"), validation=0.2, test=0.2, seed=0)
    assert [len(listing.of(split)) for split in SPLITS] == [2, 2, 0]
    assert scan(listing).broken == ()
    (tmp_path / "data.csv").write_text("file,label\npics/a.png,x\npics/b.png,y\n")
    assert set(read_listing(tmp_path / "data.csv").splits) == {-1}


def test_split_is_stratified_and_follows_the_seed(tmp_path: Path) -> None:
    listing = read_listing(_folders(tmp_path, {"a": 40, "b": 20, "c": 3}))
    first = split_listing(listing, validation=0.2, test=0.1, seed=4)
    assert first.counts("validation").tolist() == [8, 4, 1]
    assert first.counts("test").tolist() == [4, 2, 1]
    assert first.counts("train").tolist() == [28, 14, 1]
    again = split_listing(listing, validation=0.2, test=0.1, seed=4)
    other = split_listing(listing, validation=0.2, test=0.1, seed=5)
    assert np.array_equal(first.splits, again.splits) and not np.array_equal(first.splits, other.splits)


def test_split_takes_validation_from_training_when_only_that_is_missing(tmp_path: Path) -> None:
    _folders(tmp_path, {"a": 10, "b": 10}, "train")
    _folders(tmp_path, {"a": 4, "b": 4}, "test")
    listing = split_listing(read_listing(tmp_path), validation=0.2, test=0.2, seed=0)
    assert [len(listing.of(split)) for split in SPLITS] == [16, 4, 8]


def test_class_weights_make_the_classes_equal(tmp_path: Path) -> None:
    listing = split_listing(
        read_listing(_folders(tmp_path, {"a": 30, "b": 10})), validation=0.1, test=0, seed=0
    )
    assert imbalance(listing) == 3.0
    weights = class_weights(listing)
    np.testing.assert_allclose(weights * listing.counts("train"), 18.0)


def test_scan_finds_what_cannot_be_read(tmp_path: Path) -> None:
    _folders(tmp_path, {"a": 3, "b": 3})
    whole = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(whole).save(tmp_path / "a" / "cut.jpg")
    content = (tmp_path / "a" / "cut.jpg").read_bytes()
    (tmp_path / "a" / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "b" / "text.png").write_text("not a picture")
    (tmp_path / "b" / "empty.png").write_bytes(b"")
    listing = read_listing(tmp_path)
    (tmp_path / "b" / "000.png").unlink()
    broken = {listing.files[index]: reason for index, reason in scan(listing).broken}
    assert set(broken) == {"a/cut.jpg", "b/text.png", "b/empty.png", "b/000.png"}
    assert broken["b/000.png"] == "no such file"
    assert broken["b/text.png"] == "no picture in it, or of a kind that cannot be read"
    assert "truncated" in broken["a/cut.jpg"] and broken["b/empty.png"]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"only": 3}, "Expected at least two classes to tell apart. Received: only"),
        ({}, "Expected at least two classes to tell apart. Received: none"),
        ({"a": 2, "b": 0}, r"Expected photographs in every class folder. Received: .*b', which has none"),
    ],
)
def test_listing_refuses_folders_without_classes(tmp_path: Path, counts: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_listing(_folders(tmp_path, counts))


def test_listing_points_at_the_folder_meant(tmp_path: Path) -> None:
    _folders(tmp_path, {"a": 2, "b": 2}, "photos")
    with pytest.raises(InvalidInputError, match=r"one folder, 'photos', with 2 folders in it. Pass .*photos"):
        read_listing(tmp_path)


def test_listing_refuses_classes_that_disagree(tmp_path: Path) -> None:
    _folders(tmp_path, {"a": 2, "b": 2}, "train")
    _folders(tmp_path, {"a": 2, "stranger": 2}, "test")
    with pytest.raises(InvalidInputError, match="Received without training photographs: stranger"):
        read_listing(tmp_path)
    with pytest.raises(InvalidInputError, match=r"Received none for: c\. The folders are: a, b"):
        read_listing(tmp_path, ["a", "c"])
    _folders(tmp_path, {"c": 2}, "train")
    assert read_listing(tmp_path, ["c", "a"]).classes == ("c", "a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,class\na.png,x\n", "Expected the columns file and label .* Received: name, class"),
        ("file,label\na.png,\n", "Expected a file and a label in line 2"),
        ("file,label\n\na.png, \n", "Expected a file and a label in line 3"),
        ("file,label\na.png,x\nb.png,y\na.png,y\n", r"each photograph once .* again in line 4: 'a\.png'"),
        ("file,label,split\na.png,x,train\n./a.png,x,test\n", r"again in line 3: '\./a\.png'"),
        ("file,label,split\na.png,x,later\n", "in line 2 .* Received: 'later'"),
    ],
)
def test_listing_refuses_other_csv_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        read_listing(tmp_path / "data.csv")


def test_listing_ignores_spaces_around_the_cells_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("file, label, split\na.png, x, train\nb.png ,x ,train\nc.png,y,\n")
    listing = read_listing(tmp_path / "data.csv")
    assert listing.classes == ("x", "y") and listing.files == ["a.png", "b.png", "c.png"]
    assert listing.splits.tolist() == [0, 0, -1]


def test_listing_takes_a_class_called_train_when_other_classes_lie_beside_it(tmp_path: Path) -> None:
    listing = read_listing(_folders(tmp_path, {"train": 2, "car": 2, "bus": 2}))
    assert listing.classes == ("bus", "car", "train") and len(listing.files) == 6


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ("train/a", "train/b", "extra/c"),
            r"Received: extra beside 'train', which has folders in it. Move it",
        ),
        (("train/a", "train/b", "val/a", "valid/a"), "Expected one folder for each split .* val and valid"),
        (("val/a", "val/b", "test/a", "test/b"), r"Expected a folder train .* Received: test, val alone"),
        (("train", "test"), r"at least two classes .* \(4 pictures in no class folder, '.*000\.png' say\)"),
    ],
)
def test_listing_refuses_folders_that_can_be_understood_in_two_ways(
    tmp_path: Path, folders: tuple[str, ...], message: str
) -> None:
    _folders(tmp_path, dict.fromkeys(folders, 2))
    with pytest.raises(InvalidInputError, match=message):
        read_listing(tmp_path)


def test_listing_tells_which_pictures_it_leaves_out(tmp_path: Path) -> None:
    _folders(tmp_path, {"train/a": 2, "train/b": 2, "test": 1})
    _picture(tmp_path / "cover.jpg")
    (tmp_path / "train" / "a" / "more").mkdir()
    (tmp_path / "train" / "a" / "more" / "IMG_1.HEIC").write_bytes(b"heic")
    (tmp_path / "train" / "a" / "notes.txt").write_text("no picture")
    listing = read_listing(tmp_path)
    assert len(listing.files) == 4
    reasons = dict(listing.left_out)
    assert set(reasons) == {"cover.jpg", "test/000.png", "train/a/more/IMG_1.HEIC"}
    assert reasons["cover.jpg"] == reasons["test/000.png"] == "in no class folder"
    assert "convert it" in reasons["train/a/more/IMG_1.HEIC"]


def test_listing_of_a_class_with_other_kinds_only_says_so(tmp_path: Path) -> None:
    _folders(tmp_path, {"a": 2, "b": 0})
    (tmp_path / "b" / "1.heic").write_bytes(b"heic")
    with pytest.raises(InvalidInputError, match=r"b', which has none .*, and 1 that cannot be used\. Remove"):
        read_listing(tmp_path)


def test_listing_follows_links_and_ends_at_a_loop(tmp_path: Path) -> None:
    _folders(tmp_path / "elsewhere", {"b": 2})
    root = _folders(tmp_path / "data", {"a": 2})
    (root / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (root / "a" / "again").symlink_to(root / "a")
    (root / "a" / "self").symlink_to("self")
    listing = read_listing(root)
    assert listing.files == ["a/000.png", "a/001.png", "b/000.png", "b/001.png"]
    assert listing.left_out == (("a/again", "a link to a folder that is listed already"),)


def test_listing_names_a_folder_that_it_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _folders(tmp_path, {"a": 2, "b": 2})
    real = os.scandir

    def scandir(place: Any) -> Any:
        if Path(place).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(place)

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(
        InvalidInputError, match=r"b'\. The system said: Permission denied\. Change its permissions"
    ):
        read_listing(tmp_path)


def test_listing_refuses_a_class_whose_name_is_not_utf8(tmp_path: Path) -> None:
    _folders(tmp_path, {"a": 2, os.fsdecode(b"caf\xe9"): 2})
    with pytest.raises(InvalidInputError, match=r"class names in UTF-8\. Received: 'caf\\udce9'\. Rename"):
        read_listing(tmp_path)


def test_split_refuses_a_class_with_one_photograph(tmp_path: Path) -> None:
    listing = read_listing(_folders(tmp_path, {"many": 5, "one": 1, "two": 2}))
    with pytest.raises(
        InvalidInputError, match=r"Expected at least 3 readable .* Received: one \(1\), two \(2\)"
    ):
        split_listing(listing, validation=0.2, test=0.2, seed=0)
    with pytest.raises(InvalidInputError, match=r"Expected at least 2 readable .* Received: one \(1\)\. Add"):
        split_listing(listing, validation=0.2, test=0, seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"augment": "strong"}, "Expected augment to be one of none, light, standard, randaugment"),
        ({"validation_share": 0.6, "test_share": 0.4}, "something left to train on"),
        ({"learning_rate": 0.0}, "Expected a learning rate above 0"),
        ({"ema": 1.0}, r"Expected ema to lie in \[0, 1\)"),
        ({"epochs": -1}, "Expected epochs of at least 0"),
    ],
)
def test_settings_refuse_values_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Settings(data="x", **values)


def test_settings_survive_json() -> None:
    settings = Settings(data="x", classes=("a", "b"), mixup=0.2, preprocessing=((0.4,), (0.2,)))
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_hundred_thousand_files_are_listed_once_in_flat_memory(tmp_path: Path) -> None:
    """A thousand pictures under a hundred names each: a pipeline must not hold the names or the pixels again."""
    import tracemalloc

    import tensorflow  # noqa: F401 - its own objects are not to be counted

    picture = _picture(tmp_path / "pic.png")
    (tmp_path / "d00").mkdir()
    for index in range(1000):
        os.link(picture, tmp_path / "d00" / f"{index:03d}.png")
    for folder in range(1, 100):
        (tmp_path / f"d{folder:02d}").symlink_to("d00")
    names = (f"d{index // 1000:02d}/{index % 1000:03d}.png" for index in range(100_000))
    lines = ["file,label\n", *(f"{name},{'ab'[index % 2]}\n" for index, name in enumerate(names))]
    (tmp_path / "data.csv").write_text("".join(lines))
    del lines
    tracemalloc.start()
    listing = split_listing(read_listing(tmp_path / "data.csv"), validation=0.1, test=0.1, seed=0)
    batches = training_batches(
        Course(listing),
        Augmentation(lambda pixels, labels: (pixels, labels)),
        32,
        Framing("bilinear"),
        batch_size=8,
        seed=0,
        epochs=range(1),
    )
    for _, (pixels, labels) in zip(range(4), batches, strict=False):
        assert pixels.shape == (8, 32, 32, 3) and labels.shape == (8, 2)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 30e6  # a name takes about 60 bytes, the two arrays 5, the order of an epoch 8


def test_batches_hold_the_right_pictures_in_an_order_of_seed_and_epoch(tmp_path: Path) -> None:
    listing = split_listing(
        read_listing(_folders(tmp_path, {"a": 12, "b": 12})), validation=0.1, test=0, seed=0
    )
    framing = Framing("bilinear")

    def values(start: int) -> list[int]:
        batches = training_batches(
            Course(listing),
            Augmentation(lambda pixels, labels: (pixels, labels)),
            32,
            framing,
            batch_size=5,
            seed=3,
            epochs=range(start, 2),
        )
        return [int(value) for pixels, _ in batches for value in np.asarray(pixels)[:, 0, 0, 0]]

    both, second = values(0), values(1)
    count = len(listing.of("train"))
    assert both[count:] == second  # a resumed run goes on with the very same order
    assert both[:count] != second and sorted(both[:count]) == sorted(second)
    pixels, labels = next(
        iter(evaluation_batches(listing, listing.of("validation"), 32, framing, batch_size=5))
    )
    expected = [int(Path(listing.files[i]).stem) for i in listing.of("validation")]
    assert np.asarray(pixels)[:, 0, 0, 0].tolist() == expected
    assert np.asarray(labels).argmax(1).tolist() == listing.labels[listing.of("validation")].tolist()


@pytest.mark.parametrize("name", ["none", "light", "standard", "randaugment"])
def test_augmentation_changes_more_than_the_side_unless_it_is_none(name: str) -> None:
    augment = augmentation(Settings(data="x", augment=name), 32, None, seed=1)
    picture = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    batch = np.repeat(picture, 16, axis=0)
    pixels, _ = augment.graph(augment.prepared(batch), np.eye(2, dtype=np.float32)[np.zeros(16, int)])
    mirrored = {picture.tobytes(), picture[:, :, ::-1].tobytes()}
    kept = [np.asarray(one, np.uint8)[np.newaxis].tobytes() in mirrored for one in np.asarray(pixels)]
    assert np.asarray(pixels).shape == (16, 32, 32, 3)
    assert all(kept) if name == "none" else not any(kept)


@pytest.mark.parametrize(
    ("accuracy", "kept", "before"),
    # Keras counts in single precision: 41 of 50 are .82 to the head and .81999999 to the epochs
    [(0.79, False, 0.8), (0.8, True, 0.8), (0.9, True, 0.8), (0.8199999928474426, True, 41 / 50)],
)
def test_fine_tuning_counts_when_it_gets_no_fewer_photographs_right(
    tmp_path: Path, accuracy: float, kept: bool, before: float
) -> None:
    checkpoint = EpochCheckpoint(tmp_path, to_beat=before, patience=3)
    assert not checkpoint.improved
    checkpoint.best_epoch, checkpoint.history = 2, {"val_accuracy": [0.95, accuracy]}
    assert checkpoint.improved == kept


def test_photographs_of_all_orientations_are_trained_on_upright(tmp_path: Path) -> None:
    _folders(tmp_path, {"a": 0, "b": 1})
    corners = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    upright = Image.fromarray(corners).resize((64, 48))
    for orientation in range(1, 9):
        for order in "<>":
            stored = encoded(as_stored(upright, orientation), "PNG", exif=exif(orientation, order=order))
            (tmp_path / "a" / f"{orientation}{'i' if order == '<' else 'm'}.png").write_bytes(stored)
    listing, framing = read_listing(tmp_path), Framing("bilinear")
    (batch, _) = next(iter(evaluation_batches(listing, np.arange(16), 32, framing, batch_size=16)))
    expected = framing.read(encoded(upright, "PNG"), 32)
    assert all((pixels == expected).all() for pixels in np.asarray(batch))


def test_photographs_with_malformed_exif_pass_the_scan_and_are_read_upright(tmp_path: Path) -> None:
    _folders(tmp_path, {"a": 2, "b": 2})
    lying = Image.new("RGB", (64, 48), (200, 0, 0))
    lying.paste((0, 0, 200), (0, 0, 32, 48))  # blue on the left: below, once it is turned
    (tmp_path / "a" / "x.jpg").write_bytes(encoded(lying, "JPEG", exif=exif(8, malformed=True)))
    listing = split_listing(read_listing(tmp_path), validation=0.2, test=0, seed=0)
    found = scan(listing)
    assert found.broken == found.faulty == ()
    index = np.array([listing.files.index("a/x.jpg")])
    pixels, _ = next(iter(evaluation_batches(listing, index, 32, Framing("bilinear", 0), batch_size=1)))
    assert np.asarray(pixels)[0, -1].mean(0).argmax() == 2 and np.asarray(pixels)[0, 0].mean(0).argmax() == 0


def test_gray_of_twelve_bits_is_learned_as_bright_as_it_is_and_told(tmp_path: Path) -> None:
    _folders(tmp_path, {"a": 2, "b": 2})
    levels = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "a" / "deep.png")
    listing = read_listing(tmp_path)
    index = listing.files.index("a/deep.png")
    (told,) = scan(listing).faulty
    assert told[0] == index and "taken for 12 bits" in told[1]
    batch = next(
        iter(evaluation_batches(listing, np.array([index]), 32, Framing("bilinear", 0), batch_size=1))
    )
    assert np.asarray(batch[0]).mean() == pytest.approx(127.5, abs=2)


DROPPED = """
import gc, sys, time
import numpy as np, tensorflow as tf
from keras_effnet.pictures.prefetching import dataset_of

def make():
    for number in range(40):
        if number == 20:
            raise ValueError("a picture that is gone")
        time.sleep(0.002)
        yield (np.zeros((2, 8, 8, 3), np.float32),)

for round in range(8):
    batches = dataset_of(make, [tf.TensorSpec((2, 8, 8, 3))], 40).map(lambda pixels: pixels[:, ::-1])
    try:
        for number, batch in enumerate(batches):
            if round % 2 and number == 7:
                break
    except tf.errors.InvalidArgumentError as error:
        assert "a picture that is gone" in str(error) and number == 19
    gc.collect()
print("ended")
"""


def test_batches_that_are_dropped_in_the_middle_or_fail_never_hang() -> None:
    """With the threads of tf.data calling Python one in a few such ends waited for itself for ever."""
    result = subprocess.run(
        [sys.executable, "-c", DROPPED], capture_output=True, text=True, check=False, timeout=240, cwd=ROOT
    )
    assert result.stdout.split() == ["ended"], result.stderr[-2000:]


@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_batches_are_made_when_they_are_asked_for_by_no_thread_of_the_pipeline(
    kind: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """Threads of tf.data that call Python ahead waited for ever when their iterator was dropped, as by an error."""
    listing = read_listing(_folders(tmp_path, {"a": 4, "b": 4}))
    listing = replace(listing, splits=np.zeros(8, np.int8))
    indices, framing = np.arange(8), Framing("bilinear", 0)
    asked = []
    answer = prefetching._Following.__call__
    monkeypatch.setattr(
        prefetching._Following,
        "__call__",
        lambda self, number: (asked.append(number), answer(self, number))[1],
    )
    if kind == "training":
        augment = augmentation(Settings(data="x"), 32, None, 0)
        batches = training_batches(
            Course(listing), augment, 32, framing, batch_size=1, seed=0, epochs=range(1)
        )
    else:
        batches = evaluation_batches(listing, indices, 32, framing, batch_size=1)
    batches = iter(batches.map(lambda pixels, labels: (pixels, 1 - labels)))  # what is built upon it
    for count in (1, 2, 3):
        next(batches)
        time.sleep(0.1)  # in which a thread that works ahead would ask
        assert len(asked) == count


def test_one_place_lets_tensorflow_call_python() -> None:
    calls = re.compile(r"\b(py_function|numpy_function|from_generator|py_func)\(")
    found = {
        path.name
        for folder in ("keras_effnet", "export")
        for path in (ROOT / folder).rglob("*.py")
        if calls.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"prefetching.py"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "the fine-tuned network of epoch 2: it got 0.900 of the validation photographs right, the head alone 0.800"),
        ({"best_epoch": 0}, "the head alone on the pretrained network: it got 0.800 .* the best fine-tuned epoch 0.900"),
        ({"fine_tuning": None}, "the head alone .* nothing was fine-tuned"),
        ({"head": None}, "the network of epoch 2, which had the lowest validation loss and got 0.900"),
        ({"head": {"validation_accuracy": 0.9}}, "the fine-tuned .* alone 0.900; of equal ones the fine-tuned network is kept"),
        ({"refit": {"epochs": 2}}, "the refitted network, .* for 2 epochs, as many as got 0.900 .* 0.800"),
    ],
    ids=["fine-tuned", "head was better", "head alone", "random weights", "a tie", "refitted"],
)  # fmt: skip
def test_run_says_which_network_it_kept_and_why(changes: dict[str, Any], message: str) -> None:
    history = {"val_accuracy": [0.7, float(np.float32(0.9)), 0.9], "val_loss": [2.0, 1.0, 1.5]}
    tuned = {"best_epoch": changes.pop("best_epoch", 2), "history": history}
    metrics = {"head": {"validation_accuracy": 0.8}, "fine_tuning": tuned, "refit": None} | changes
    assert re.fullmatch(message + ".*", reason_for_result(metrics))


def test_folder_of_a_run_tells_its_model_or_that_it_has_none_yet(tmp_path: Path) -> None:
    assert trained_model(tmp_path) is None
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InvalidInputError, match=r"one that has no model\.keras yet"):
        trained_model(tmp_path)
    (tmp_path / "model.keras").write_bytes(b"")
    assert trained_model(tmp_path) == (tmp_path / "model.keras", tmp_path / "labels.txt")
