"""Labelled pictures for training from scratch: folders, CSV files, TFRecords, tfds.

Nothing is decoded here. An example is (path or encoded picture, class index); only paths, or the
records of the shuffle buffer, are in memory.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, require
from keras_effnet.pictures.listing import SPLITS, UNDECIDED, Listing, read_listing


@dataclass(frozen=True, kw_only=True)
class RecordFeatures:
    """What the records of TFRecord files call their parts; the defaults are ImageNet's own names.

    Attributes:
        image: feature with the encoded picture.
        label: feature with the class index.
        offset: index of the first class: 1 where labels count from 1.
    """

    image: str = "image/encoded"
    label: str = "image/class/label"
    offset: int = 1


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
    """The pictures to train on of a folder or CSV file, see `pictures.listing`."""
    return from_listing(read_listing(directory, several=False))


def from_listing(listing: Listing, split: str = "train") -> Examples:
    """The pictures of a split; see `in_split`, also for what it raises."""
    import tensorflow as tf

    indices = in_split(listing, split)
    paths = [os.fsencode(str(listing.source(int(index)))) for index in indices]  # none is a part of a file
    records = tf.data.Dataset.from_tensor_slices((paths, listing.labels[indices].astype(np.int64)))
    return Examples(records=records, are_paths=True, count=len(paths), labels=listing.classes)


def in_split(listing: Listing, split: str) -> npt.NDArray[np.intp]:
    """The places of a split's pictures in a listing; photographs without a split are to train on.

    Raises:
        InvalidInputError: there are none, or they lie within files.
    """
    if listing.packed:
        raise InvalidInputError(
            f"Expected a folder or a CSV file of pictures. Received: pictures within files of {str(listing.root)!r}. "
            "Pass the data set's name with --format tfds, or a pattern of files with --format tfrecords."
        )
    chosen = listing.splits == SPLITS.index(split)
    if split == "train":
        chosen |= listing.splits == UNDECIDED
    indices = np.flatnonzero(chosen)
    if not len(indices):
        raise InvalidInputError(
            f"Expected pictures of the split {split!r} in {str(listing.root)!r}. Received none."
        )
    return indices


def check_records(pattern: str) -> None:
    """Make sure that a pattern of TFRecord files on this machine finds some; TensorFlow is not imported."""
    if "://" not in pattern and not glob.glob(pattern):  # noqa: PTH207 - Path.glob takes no absolute pattern
        raise _no_records(pattern)


def _no_records(pattern: str) -> InvalidInputError:
    return InvalidInputError(
        f"Expected TFRecord files at {pattern!r}. Received: none. Check the path; in a shell, quote the "
        "pattern: '/data/train-*'."
    )


def from_tfrecords(
    pattern: str,
    classes: int,
    *,
    count: int | None = None,
    labels: tuple[str, ...] | None = None,
    features: RecordFeatures | None = None,
) -> Examples:
    """TFRecord files.

    Args:
        pattern: of the files, `/data/train-*`.
        classes: number of classes; labels in the files are `offset` … `offset + classes - 1`.
        count: number of records; None reads all files once to count them.
        labels: class names.
        features: what the parts of a record are called; None for ImageNet's names, with labels from 1.

    Raises:
        InvalidInputError: no such file, or no such records in the files.
    """
    import tensorflow as tf

    names = features or RecordFeatures()
    check_records(pattern)
    files = sorted(tf.io.gfile.glob(pattern))
    if not files:
        raise _no_records(pattern)
    parts = {
        names.image: tf.io.FixedLenFeature([], tf.string),
        names.label: tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(record: Any) -> Any:
        found = tf.io.parse_single_example(record, parts)
        return found[names.image], found[names.label] - names.offset

    raw = tf.data.TFRecordDataset(files)
    try:
        next(iter(raw.map(parse)))
        total = _count(raw) if count is None else count
    except (tf.errors.OpError, StopIteration) as error:
        message = str(getattr(error, "message", "") or "empty file").splitlines()[0]
        raise InvalidInputError(
            f"Expected records with {names.image!r} and {names.label!r} in {files[0]!r}. Received: {message}. "
            "Say what yours are called with --image-feature and --label-feature."
        ) from error
    return Examples(
        records=raw.map(parse, num_parallel_calls=tf.data.AUTOTUNE),
        are_paths=False,
        count=total,
        labels=labels or tuple(f"class {index}" for index in range(classes)),
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
    count = count_tfds(name, split, data_dir=data_dir)
    tfds = require("tensorflow_datasets", "pretrain")
    with _plain_errors(name, split, data_dir):
        builder = tfds.builder(name, data_dir=data_dir)
        image, label = builder.info.supervised_keys or ("image", "label")
        features = [builder.info.features[key] for key in (image, label)]
        encoded = builder.as_dataset(split=split, decoders={image: tfds.decode.SkipDecoding()})
    kinds = [type(feature).__name__ for feature in features]
    if kinds != ["Image", "ClassLabel"]:
        raise InvalidInputError(
            f"Expected a data set of pictures with labels (Image, ClassLabel). Received {name!r} with {kinds}."
        )
    records = encoded.map(lambda example: (example[image], example[label]))
    return Examples(records=records, are_paths=False, count=count, labels=tuple(features[1].names))


def count_tfds(name: str, split: str, *, data_dir: str | os.PathLike[str] | None = None) -> int:
    """How many examples a prepared split has; TensorFlow is not imported. Arguments and errors of `from_tfds`."""
    tfds = require("tensorflow_datasets", "pretrain")
    with _plain_errors(name, split, data_dir):
        return int(tfds.builder(name, data_dir=data_dir).info.splits[split].num_examples)


@contextmanager
def _plain_errors(name: str, split: str, data_dir: str | os.PathLike[str] | None) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # tfds raises many kinds, with messages of many lines
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InvalidInputError(
            f"Expected the prepared data set {name!r}, split {split!r}, in "
            f"{str(data_dir or 'the default folder of tfds')!r}. Received: {first}. "
            "Prepare it with tfds.builder(name, data_dir=…).download_and_prepare()."
        ) from error


def _count(raw: Any) -> int:
    from tqdm import tqdm

    batches = raw.batch(1024)
    total = 0
    with tqdm(desc="counting records", unit=" records", disable=None, leave=False) as bar:
        for batch in batches:
            total += int(batch.shape[0])
            bar.update(int(batch.shape[0]))
    return total
