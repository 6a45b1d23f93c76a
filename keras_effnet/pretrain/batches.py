"""From labelled pictures to batches for `fit`: shuffled, cropped, augmented, one-hot.

Which examples a batch has, and the random numbers of their crops, come from tf.data; the pictures are read by
the package's one reader, in threads of Python (see `pictures.prefetching`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, warn
from keras_effnet.pictures.decoding import UnreadablePictureError, decode_picture
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.prefetching import READING_THREADS, Batch, dataset_of, mapped_in_threads
from keras_effnet.pretrain.autoaugment import autoaugment
from keras_effnet.pretrain.examples import Examples
from keras_effnet.pretrain.recipe import Recipe
from keras_effnet.system.devices import Share

SHUFFLE_RECORDS = 4096  # encoded pictures in memory, about 0.5 GB of ImageNet
ASPECTS = (3 / 4, 4 / 3)  # of random crops, as in the reference

_Read = Callable[..., npt.NDArray[Any]]  # from a picture and what else an example has to `[size, size, 3]`


def training_batches(
    examples: Examples,
    recipe: Recipe,
    size: int,
    *,
    seed: int = 0,
    share: Share | None = None,
    framing: Framing | None = None,
) -> Any:
    """A `tf.data.Dataset` of (pictures, one-hot labels): one epoch, in another order each time.

    Order and random crops depend on `seed` and on TensorFlow's global seed, not on the number of
    processes: call `keras.utils.set_random_seed` with the same number on each. RandAugment has random
    numbers of its own; AutoAugment's come with those of the crops.

    Returns:
        float32 `[batch, size, size, 3]`, 0–255, and float32 `[batch, classes]`; of each global batch
        this process's slice.

    Raises:
        InvalidInputError: fewer pictures than one batch takes, or a batch that cannot be divided.
    """
    import tensorflow as tf

    share, framing = share or Share(), framing or Framing()
    local = share.local_batch(recipe.batch_size)
    recipe.check_count(examples.count)
    buffer = examples.count if examples.are_paths else min(examples.count, SHUFFLE_RECORDS)
    records = examples.records.shuffle(buffer, seed=seed)
    seeds = tf.data.Dataset.random(seed=seed).batch(2)
    numbered = tf.data.Dataset.zip(records, seeds).map(lambda record, number: (*record, number))
    steps = examples.count // recipe.batch_size
    whole = numbered.batch(recipe.batch_size, drop_remainder=True).take(steps)

    def read(picture: Any, number: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if recipe.crop_area == 1:
            pixels = framing.square(picture, size)
        else:
            pixels = _random_crop(picture, size, recipe, framing, number)
        if recipe.augmentation == "autoaugment":
            pixels = autoaugment(pixels, np.random.default_rng(number.astype(np.uint64)))
        return pixels

    return _batches(
        examples, share.of_batches(whole), read, size, (local, steps), _augmentation(recipe, size)
    )


def validation_batches(
    examples: Examples,
    recipe: Recipe,
    size: int,
    *,
    share: Share | None = None,
    framing: Framing | None = None,
) -> Any:
    """A `tf.data.Dataset` of (pictures, one-hot labels) with the evaluation crop, in order.

    Several processes leave out the last batch when it is not full, because they could not share it.

    Raises:
        InvalidInputError: with several processes: fewer pictures than one batch takes.
    """
    share, framing = share or Share(), framing or Framing()
    local = share.local_batch(recipe.batch_size)
    shared = share.count > 1
    if shared and examples.count < recipe.batch_size:
        raise InvalidInputError(
            f"Expected at least {recipe.batch_size} pictures for validation by {share.count} processes. "
            f"Received: {examples.count}."
        )
    whole = examples.records.batch(recipe.batch_size, drop_remainder=shared)

    def read(picture: Any) -> npt.NDArray[Any]:
        return framing.square(picture, size)

    steps = examples.count // recipe.batch_size if shared else -(-examples.count // recipe.batch_size)
    return _batches(examples, share.of_batches(whole), read, size, (local if shared else None, steps))


def _batches(
    examples: Examples,
    records: Any,
    read: _Read,
    size: int,
    counts: tuple[int | None, int],
    augment: Callable[[Any], Any] | None = None,
) -> Any:
    """Batches of pictures from batches of (source, class index, more that `read` takes).

    The data set has a known length: Keras starts it anew for each epoch. Of one that it takes for endless,
    `fit` on several processes loses the batch that it builds the model with, and one process does not.
    """
    import tensorflow as tf

    local, steps = counts
    classes = len(examples.labels)
    one_hot = np.eye(classes, dtype=np.float32)
    told = threading.Event()

    def read_one(source: bytes, *more: Any) -> npt.NDArray[Any]:
        given = os.fsdecode(source) if examples.are_paths else source
        what = repr(given) if examples.are_paths else "a record"
        try:
            decoded = decode_picture(given)
        except UnreadablePictureError as error:
            raise _unusable(f"{what}, {error.reason}") from error
        if decoded.remarks and not told.is_set():
            told.set()  # of a million pictures one is enough to know that there are such
            warn(
                f"Expected pictures without a fault. Received {what}, which {decoded.remarks[0]}. Others are not told."
            )
        picture = read(decoded.picture, *more).astype(np.float32)
        # one by one: of a batch RandAugment would treat all pictures alike
        return picture if augment is None else np.asarray(augment(picture))

    def make() -> Iterator[Batch]:
        done = 0
        with ThreadPoolExecutor(READING_THREADS) as readers:
            for sources, labels, *more in _arrays(records):
                if wrong := [int(label) for label in labels if not 0 <= label < classes]:
                    raise _unusable(f"a class index outside of 0 … {classes - 1}, {wrong[0]}")
                pictures = mapped_in_threads(read_one, sources, *more, readers=readers)
                yield pictures, one_hot[labels]
                done += 1
        if done < steps:
            raise InvalidInputError(
                f"Expected {steps} batches of pictures, by their count. Received: {done}."
            )

    kinds = [tf.TensorSpec((local, size, size, 3)), tf.TensorSpec((local, classes))]
    return dataset_of(make, kinds, steps)


def _arrays(records: Any) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    import tensorflow as tf

    try:
        yield from records.as_numpy_iterator()
    except tf.errors.OpError as error:  # of damaged record files, say
        raise _unusable(str(error.message).strip().splitlines()[0][:300].rstrip(".")) from error


def _unusable(received: str) -> InvalidInputError:
    return InvalidInputError(
        f"Expected pictures that can be decoded and class indices in range. Received: {received}. "
        "Remove or repair that picture and resume."
    )


class Equalization(keras.layers.Equalization):
    """On JAX Keras spells the histogram out, 256 comparisons for each channel, also in a graph of TensorFlow as
    this one: tracing it took 33 s."""

    def _custom_histogram_fixed_width(self, values: Any, value_range: Any, nbins: int) -> Any:
        import tensorflow as tf

        low, high = value_range
        bins = tf.cast((values - low) * (nbins - 1) / (high - low), tf.int32)
        return tf.math.bincount(tf.reshape(tf.clip_by_value(bins, 0, nbins - 1), [-1]), minlength=nbins)


def _augmentation(recipe: Recipe, size: int) -> Callable[[Any], Any] | None:
    if recipe.augmentation != "randaugment":
        return None
    import tensorflow as tf

    layer = keras.layers.RandAugment(
        value_range=(0, 255), num_ops=recipe.augment_ops, factor=recipe.augment_strength
    )
    layer.equalization = Equalization(value_range=(0, 255))

    def augment(picture: Any) -> Any:
        return layer(picture, training=True)

    traced: Callable[[Any], Any] = tf.function(augment, input_signature=[tf.TensorSpec((size, size, 3))])
    return traced


def _random_crop(
    picture: Any, size: int, recipe: Recipe, framing: Framing, number: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """A random part of the picture, flipped half of the time (`distorted_bounding_box_crop`)."""
    import tensorflow as tf
    from PIL import Image

    with tf.device("CPU:0"):
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            (picture.height, picture.width, 3),
            bounding_boxes=[[[0.0, 0.0, 1.0, 1.0]]],
            seed=number,
            min_object_covered=0.1,
            aspect_ratio_range=ASPECTS,
            area_range=(recipe.crop_area, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        mirrored = tf.random.stateless_uniform([], seed=number + 1) < 0.5
    top, left, _ = begin.numpy().tolist()
    height, width, _ = extent.numpy().tolist()
    part = picture.resize(
        (size, size),
        resample=Image.Resampling[framing.interpolation.upper()],
        box=(left, top, left + width, top + height),
    )
    pixels = np.asarray(part)
    return pixels[:, ::-1] if mirrored else pixels
