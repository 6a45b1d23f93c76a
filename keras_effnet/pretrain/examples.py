"""Labelled pictures for training from scratch: folders, TFRecords with ImageNet's features, tfds.

Nothing is decoded here. An example is (path or encoded picture, class index); only paths, or the
records of the shuffle buffer, are in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError, require
from keras_effnet.pictures.folders import IMAGE_SUFFIXES

ENCODED, LABEL = "image/encoded", "image/class/label"  # ImageNet's own names
DECODABLE = IMAGE_SUFFIXES - {".tif", ".tiff", ".webp"}  # by tf.io.decode_image


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Where pictures and labels come from.

    Attributes:
        records: a `tf.data.Dataset` of (string, int64): path or encoded picture, class index.
        are_paths: whether the strings are paths.
        count: number of examples.
        labels: class names in the order of their indices.
    """

    records: Any
    are_paths: bool
    count: int
    labels: tuple[str, ...]


def from_folders(directory: str | os.PathLike[str]) -> Examples:
    """One folder of pictures for each class; class indices in the sorted order of their names.

    Raises:
        InvalidInputError: not a directory, fewer than two classes, or a class without pictures.
    """
    import tensorflow as tf

    root = Path(directory)
    if not root.is_dir():
        raise InvalidInputError(
            f"Expected a directory with a folder for each class. Received: {str(root)!r}."
        )
    labels = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
    if len(labels) < 2:
        raise InvalidInputError(
            f"Expected at least two folders, one for each class, in {str(root)!r}. Received: {len(labels)}."
        )
    paths: list[str] = []
    indices: list[int] = []
    for index, label in enumerate(labels):
        before = len(paths)
        paths.extend(_pictures(root / label))
        if len(paths) == before:
            raise InvalidInputError(
                f"Expected pictures ({' '.join(sorted(DECODABLE))}) of class {label!r} in "
                f"{str(root / label)!r}. Received: none. Remove the folder or fill it."
            )
        indices.extend([index] * (len(paths) - before))
    records = tf.data.Dataset.from_tensor_slices((paths, tf.constant(indices, tf.int64)))
    return Examples(records=records, are_paths=True, count=len(paths), labels=tuple(labels))


def from_tfrecords(
    pattern: str, classes: int, *, count: int | None = None, labels: tuple[str, ...] | None = None
) -> Examples:
    """TFRecord files with ImageNet's features: `image/encoded`, and `image/class/label` from 1.

    Args:
        pattern: of the files, `/data/train-*`.
        classes: number of classes; labels in the files are 1 … `classes`.
        count: number of records; None reads all files once to count them.
        labels: class names.

    Raises:
        InvalidInputError: no such file, or no such records in the files.
    """
    import tensorflow as tf

    files = sorted(tf.io.gfile.glob(pattern))
    if not files:
        raise InvalidInputError(
            f"Expected TFRecord files at {pattern!r}. Received: none. Quote the pattern: '/data/train-*'."
        )
    features = {ENCODED: tf.io.FixedLenFeature([], tf.string), LABEL: tf.io.FixedLenFeature([], tf.int64)}

    def parse(record: Any) -> Any:
        found = tf.io.parse_single_example(record, features)
        return found[ENCODED], found[LABEL] - 1

    raw = tf.data.TFRecordDataset(files)
    try:
        next(iter(raw.map(parse)))
        total = _count(raw) if count is None else count
    except (tf.errors.OpError, StopIteration) as error:
        message = str(getattr(error, "message", "") or "empty file").splitlines()[0]
        raise InvalidInputError(
            f"Expected records with {ENCODED!r} and {LABEL!r} in {files[0]!r}. Received: {message}."
        ) from error
    names = labels or tuple(f"class {index}" for index in range(classes))
    return Examples(
        records=raw.map(parse, num_parallel_calls=tf.data.AUTOTUNE),
        are_paths=False,
        count=total,
        labels=names,
    )


def from_tfds(name: str, split: str, *, data_dir: str | os.PathLike[str] | None = None) -> Examples:
    """A data set of tensorflow-datasets that is prepared already; nothing is downloaded.

    Args:
        name: of an image classification data set, `"imagenet2012"`.
        split: `"train"`, `"validation"`, `"train[:90%]"` ….
        data_dir: where it was prepared; None for tfds' own default.

    Raises:
        MissingExtraError: tensorflow-datasets is not installed.
        InvalidInputError: no such data set or split there, or not pictures with labels.
    """
    tfds = require("tensorflow_datasets", "pretrain")
    advice = "Prepare it with tfds.builder(name, data_dir=…).download_and_prepare()."
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        image, label = builder.info.supervised_keys or ("image", "label")
        features = [builder.info.features[key] for key in (image, label)]
        count = int(builder.info.splits[split].num_examples)
        encoded = builder.as_dataset(split=split, decoders={image: tfds.decode.SkipDecoding()})
    except Exception as error:  # tfds raises many kinds, with messages of many lines
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InvalidInputError(
            f"Expected the prepared data set {name!r}, split {split!r}, in "
            f"{str(data_dir or 'the default folder of tfds')!r}. Received: {first}. {advice}"
        ) from error
    kinds = [type(feature).__name__ for feature in features]
    if kinds != ["Image", "ClassLabel"]:
        raise InvalidInputError(
            f"Expected a data set of pictures with labels (Image, ClassLabel). Received {name!r} with {kinds}."
        )
    records = encoded.map(lambda example: (example[image], example[label]))
    return Examples(records=records, are_paths=False, count=count, labels=tuple(features[1].names))


def _pictures(folder: Path) -> Iterator[str]:
    """Paths of the pictures below a folder, sorted, without holding more than one listing."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if Path(name).suffix.lower() in DECODABLE and name[0] != ".":
                yield str(Path(root) / name)


def _count(raw: Any) -> int:
    from tqdm import tqdm

    batches = raw.batch(1024)
    total = 0
    with tqdm(desc="counting records", unit=" records", disable=None, leave=False) as bar:
        for batch in batches:
            total += int(batch.shape[0])
            bar.update(int(batch.shape[0]))
    return total
