"""The same pictures as folders, as TFRecords and as a tfds data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from colours import COLOURS, picture


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colours")
    for position, label in enumerate(COLOURS):
        (root / label).mkdir()
        for index in range(8):
            suffix = "png" if index % 2 else "jpg"
            picture(label, 10 * position + index).save(root / label / f"{index}.{suffix}")
    (root / "red" / "notes.txt").write_text("not a picture")
    (root / ".cache").mkdir()
    return root


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def prepared(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tfds data set, written here: no internet."""
    tfds = pytest.importorskip("tensorflow_datasets")
    root = tmp_path_factory.mktemp("tfds")
    info_features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=sorted(COLOURS))}
    )
    rows = [
        (10 * position + index, {"image": np.asarray(picture(label, 10 * position + index)), "label": label})
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
