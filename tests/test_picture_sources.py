"""Sources of labelled photographs: each gives the same list, whose pictures one reader reads."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_effnet.errors import InvalidInputError, MissingExtraError
from keras_effnet.pictures.decoding import Part
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import (
    Listing,
    find_data,
    full_name,
    photographs_in,
    read_judged,
    read_listing,
)
from keras_effnet.pictures.sources import transfer_sets
from keras_effnet.pretrain.examples import in_split
from keras_effnet.train.folder import RunFolder
from keras_effnet.train.settings import Settings

GREYS = {"dark": 40, "light": 200}


def _png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 7), (shade,) * 3).save(stream, "PNG")
    return stream.getvalue()


def _save(path: Path, shade: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (shade,) * 3).save(path)


def _shades(listing: Listing) -> list[tuple[str, int]]:
    """The class and the shade of each photograph, as they are read."""
    framing = Framing(margin=0)
    return [
        (listing.classes[label], int(framing.read(listing.source(place), 8)[0, 0, 0]))
        for place, label in enumerate(listing.labels)
    ]


def _example(**features: Any) -> bytes:
    import tensorflow as tf

    made = {
        name.replace("__", "/"): tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        if isinstance(value, int)
        else tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in features.items()
    }
    return bytes(tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString())


def _write(path: Path, examples: list[bytes]) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of tfds with the set `shades`: two training photographs, three for validation."""
    tfds = pytest.importorskip("tensorflow_datasets")
    root = tmp_path_factory.mktemp("tfds")
    names = sorted(GREYS)
    rows = [
        (
            place,
            {
                "image": np.full((7, 9, 3), GREYS[names[place % 2]] + place, np.uint8),
                "label": names[place % 2],
            },
        )
        for place in range(3)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="shades",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=names)}
        ),
        split_datasets={"train": rows[:2], "validation": rows},
        data_dir=str(root),
        disable_shuffling=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(root))
        yield root


def test_tfds_gives_its_own_pictures_classes_and_splits(prepared: Path) -> None:
    listing = read_listing("tfds:shades")
    assert listing.classes == ("dark", "light") and len(listing.of("train")) == 2
    judged = read_judged("tfds:shades")
    assert judged.split_called() == "validation"
    assert _shades(judged) == [("dark", 40), ("light", 201), ("dark", 42)]
    assert _shades(read_judged("tfds:shades:validation[1:]")) == [("light", 201), ("dark", 42)]
    assert isinstance(judged.source(0), Part) and photographs_in(["tfds:shades"])[0] == judged.source(0)
    with pytest.raises(InvalidInputError, match="--format tfds"):
        in_split(listing, "train")  # to train from scratch


def test_run_reads_its_packed_photographs_again(prepared: Path, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", Settings(data=full_name("tfds:shades")))
    listing = read_listing("tfds:shades")
    folder.write_listing(listing)
    folder.write_skipped([])
    again, _ = folder.read_listing() or pytest.fail("nothing was kept")
    assert _shades(again) == _shades(listing)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("tfds:absent", r"the data set 'absent' prepared in .*Received: none"),
        ("tfds:shades:test", r"a split of 'shades': train, validation.*Received: 'test'"),
        ("flowers", r"345 MB to fetch \(no licence is stated; https.*fetches and prepares it"),
        ("aircraft", r"2,750 MB to fetch \(for non-commercial research.*unpack it so that"),
        ("birdsnap", r"whose owners keep their rights"),
        ("no/train-*", r"TFRecord files at 'no/train-\*'\. Received: none"),
        ("nowhere", r"Received: 'nowhere', which does not exist"),
    ],
)
def test_data_that_are_not_there_are_one_line(prepared: Path, data: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as caught:
        read_judged(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "data", "extra"), [("tensorflow_datasets", "tfds:shades", "tfds"), ("datasets", "hf:x", "hf")]
)
def test_missing_library_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, data: str, extra: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=re.escape(f"pip install '.[{extra}]'")):
        find_data(data)


def test_tfrecords_with_imagenets_names_count_from_one_where_no_word_says_the_class(tmp_path: Path) -> None:
    _write(tmp_path / "train-00000-of-00001", [_example(image__encoded=_png(40), image__class__label=1)])
    numbers = {"image__encoded": _png(200), "image__class__label": 2, "image__class__synset": b"n01443537"}
    _write(tmp_path / "validation-00000-of-00001", [_example(**numbers)])
    everything = read_judged(str(tmp_path / "*-of-*"), split="all")
    assert _shades(everything) == [("0", 40), ("n01443537", 200)]
    assert _shades(read_judged(str(tmp_path / "*-of-*"))) == [("n01443537", 200)]


def test_damaged_tfrecords_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    _write(path, [_example(image=_png(40), label=0)] * 2)
    whole = path.read_bytes()
    for content, said in (
        (whole[:-20], "ends behind the file"),
        (b"\x1f\x8b" + whole, "a compressed file"),
        (b"no records at all, but quite long", "Received"),
    ):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=said):
            read_judged(str(path))
    _write(path, [_example(picture=_png(40), label=0)])
    with pytest.raises(InvalidInputError, match="records with 'label', 'picture'"):
        read_judged(str(path))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `save_to_disk` of Hugging Face's datasets wrote."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=sorted(GREYS))}
    )
    rows = {"image": [{"bytes": _png(40 + place), "path": None} for place in range(3)], "label": [0, 1, 0]}
    root = tmp_path_factory.mktemp("hf") / "shades"
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": made, "test": made.select([1, 2])}).save_to_disk(
        root, num_shards={"train": 2, "test": 1}
    )
    return root


def test_hugging_faces_pictures_are_read_from_its_files(saved: Path) -> None:
    assert _shades(read_judged(f"hf:{saved}")) == [("light", 41), ("dark", 42)]
    assert _shades(read_judged(f"hf:{saved}:train")) == [("dark", 40), ("light", 41), ("dark", 42)]
    assert read_listing(f"hf:{saved}").counts("train").tolist() == [2, 1]
    with pytest.raises(InvalidInputError, match=r"a split of .*: train, test\. Received: 'nope'"):
        read_judged(f"hf:{saved}:nope")


def test_hugging_faces_data_set_that_is_not_here_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(InvalidInputError, match="on this machine") as caught:
        read_judged(f"hf:{tmp_path / 'nothing'}")
    assert "\n" not in str(caught.value)


def _flat_validation(folder: Path, count: int = 3) -> None:
    for number in range(1, count + 1):
        _save(folder / f"ILSVRC2012_val_{number:08}.JPEG")


OFFICIAL = ["n01751748", "n09193705", "n02105855"]  # of the first three validation photographs


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (None, ""),
        ("val/ILSVRC2012_validation_ground_truth.txt", "490\n361\n171\n822\n"),  # the challenge's own numbers
        ("imagenet_2012_validation_synset_labels.txt", "\n".join(OFFICIAL)),
        (
            "val/val.txt",
            "ILSVRC2012_val_00000002.JPEG 970\nILSVRC2012_val_00000001.JPEG 65\nILSVRC2012_val_00000003.JPEG 230",
        ),
    ],
)
def test_imagenets_flat_folder_has_its_classes_from_any_of_the_usual_files(
    tmp_path: Path, name: str | None, lines: str
) -> None:
    _flat_validation(tmp_path / "val")
    if name:
        (tmp_path / name).write_text(lines)
    listing = read_judged(tmp_path / "val")
    assert [listing.classes[label] for label in listing.labels] == OFFICIAL


def test_truth_that_does_not_fit_the_photographs_is_one_line(tmp_path: Path) -> None:
    _flat_validation(tmp_path)
    (tmp_path / "val.txt").write_text("n01751748\nn09193705\n")
    with pytest.raises(InvalidInputError, match=r"none for 'ILSVRC2012_val_00000003\.JPEG', and 2"):
        read_judged(tmp_path)
    (tmp_path / "val.txt").write_text("7\n7\n8\n")
    with pytest.raises(InvalidInputError, match="one class each"):
        read_judged(tmp_path)


def _aircraft(place: Path) -> None:
    for split, image in (("train", "0034309"), ("val", "0034958"), ("test", "0037511")):
        _save(place / "data" / "images" / f"{image}.jpg")
        (place / "data" / f"images_variant_{split}.txt").write_text(
            f"{image} F-16A/B\n{image[::-1]} Boeing 717\n"
        )
        _save(place / "data" / "images" / f"{image[::-1]}.jpg")


def _birdsnap(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "species.txt").write_text(
        "id\tcommon\tscientific\tdir\n1\tAcadian Flycatcher\tEmpidonax virescens\tAcadian_Flycatcher\n"
        "2\tBlue Jay\tCyanocitta cristata\tBlue_Jay\n"
    )
    paths = ["Acadian_Flycatcher/1.jpg", "Blue_Jay/2.jpg", "Blue_Jay/3.jpg", "Blue_Jay/gone.jpg"]
    rows = [f"http://x\tmd5\t{path}\t{1 + path.startswith('Blue')}\t1\t2\t3\t4" for path in paths]
    (place / "images.txt").write_text(
        "url\tmd5\tpath\tspecies_id\tbb_x1\tbb_y1\tbb_x2\tbb_y2\n" + "\n".join(rows)
    )
    (place / "test_images.txt").write_text(f"path\n{paths[2]}\n")
    for path in paths[:3]:
        _save(place / "download" / "images" / path)


def test_aircraft_and_birdsnap_are_read_as_their_archives_unpack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    manual = tmp_path / "downloads" / "manual"
    _aircraft(manual / "fgvc-aircraft-2013b")
    _birdsnap(manual / "birdsnap")
    planes = read_listing("aircraft")
    assert planes.classes == ("Boeing 717", "F-16A/B")
    assert [len(planes.of(split)) for split in ("train", "validation", "test")] == [2, 2, 2]
    birds = read_listing(manual / "birdsnap")  # by its path
    assert birds.classes == ("Acadian Flycatcher", "Blue Jay")
    assert [len(birds.of(split)) for split in ("train", "validation", "test")] == [2, 0, 1]
    assert read_judged("birdsnap").files == ["Blue_Jay/3.jpg"]
    for listing in (planes, birds):
        assert len(_shades(listing)) == len(listing.files)


def test_transfer_sets_are_those_of_the_papers_table() -> None:
    table = {
        name: (each.train, each.test, each.classes) for name, each in transfer_sets.TRANSFER_SETS.items()
    }
    assert table == {
        "cifar10": (50_000, 10_000, 10),
        "cifar100": (50_000, 10_000, 100),
        "birdsnap": (47_386, 2_443, 500),
        "cars": (8_144, 8_041, 196),
        "flowers": (2_040, 6_149, 102),
        "aircraft": (6_667, 3_333, 100),
        "pets": (3_680, 3_369, 37),
        "food101": (75_750, 25_250, 101),
    }


def test_short_name_takes_the_splits_of_its_tfds_set(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Food-101's test split is called `validation` by tfds."""
    shades = transfer_sets.TransferSet(
        name="shades",
        title="Shades",
        classes=2,
        train=2,
        test=3,
        source="shades",
        splits=("train", "", "validation"),
        licence="none",
        home="here",
    )
    monkeypatch.setitem(transfer_sets.TRANSFER_SETS, "shades", shades)
    listing = read_listing("shades")
    assert [len(listing.of(split)) for split in ("train", "validation", "test")] == [2, 0, 3]
    assert read_judged("shades").split_called() == "test"


def test_folder_with_a_list_in_it_is_read_by_the_list(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        _save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,wnid\na.png,n01443537\nb.png,n01484850\n")
    assert read_judged(tmp_path).classes == ("n01443537", "n01484850")


def test_photographs_to_judge_by_are_of_the_test_split_the_one_asked_for_or_all(tmp_path: Path) -> None:
    for split, shade in (("train", 10), ("val", 20), ("test", 30)):
        _save(tmp_path / split / "a" / "1.png", shade)
    assert _shades(read_judged(tmp_path)) == [("a", 30)]
    assert _shades(read_judged(tmp_path, split="validation")) == [("a", 20)]
    assert [shade for _, shade in _shades(read_judged(tmp_path, split="all"))] == [30, 10, 20]
    (tmp_path / "val").rename(tmp_path / "other")
    with pytest.raises(InvalidInputError, match=r"Received: other beside 'test'"):
        read_judged(tmp_path, split="validation")


def test_papers_setting_gives_way_to_what_is_said_besides() -> None:
    """Section 5.3: a quarter of ImageNet's learning rate, which is 0.016 for 256 photographs."""
    from keras_effnet.cli import parser
    from keras_effnet.commands.train import given_settings

    command = ["train", "flowers", "--out", "run", "--paper"]
    settings = Settings(**given_settings(parser().parse_args(command)))
    assert settings.learning_rate == 0.0005 and settings.optimizer == "rmsprop" and settings.refit
    assert (settings.unfreeze, settings.crop_margin, settings.image_size) == ("stem", 32, None)
    said = ["--batch-size", "64", "--unfreeze", "top"]
    settings = Settings(**given_settings(parser().parse_args([*command, *said])))
    assert settings.learning_rate == 0.001 and settings.unfreeze == "top"
