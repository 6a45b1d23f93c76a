"""From labelled pictures to batches for `fit`: shuffled, cropped, augmented, one-hot."""

from __future__ import annotations

from typing import Any

import keras

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.framing import crop_fraction
from keras_effnet.pretrain.examples import Examples
from keras_effnet.pretrain.recipe import Recipe
from keras_effnet.system.devices import Share

SHUFFLE_RECORDS = 4096  # encoded pictures in memory, about 0.5 GB of ImageNet
ASPECTS = (3 / 4, 4 / 3)  # of random crops, as in the reference


def training_batches(
    examples: Examples, recipe: Recipe, size: int, *, seed: int = 0, share: Share | None = None
) -> Any:
    """A `tf.data.Dataset` of (pictures, one-hot labels): one epoch, in another order each time.

    Order and random crops depend on `seed` and on TensorFlow's global seed, not on the number of
    processes: call `keras.utils.set_random_seed` with the same number on each. RandAugment has random
    numbers of its own.

    Args:
        examples: where the pictures come from.
        recipe: batch size, crops and augmentation.
        size: side of the pictures, in pixels.
        seed: of order and crops.
        share: this process among several.

    Returns:
        float32 `[batch, size, size, 3]`, 0–255, and float32 `[batch, classes]`; of each global batch
        this process's slice.

    Raises:
        InvalidInputError: fewer pictures than one batch takes, or a batch that cannot be divided.
    """
    import tensorflow as tf

    share = share or Share()
    local = share.local_batch(recipe.batch_size)
    if examples.count < recipe.batch_size:
        raise InvalidInputError(
            f"Expected at least {recipe.batch_size} pictures, one batch. Received: {examples.count}. "
            "Choose a smaller batch size."
        )
    buffer = examples.count if examples.are_paths else min(examples.count, SHUFFLE_RECORDS)
    records = examples.records.shuffle(buffer, seed=seed)
    seeds = tf.data.Dataset.random(seed=seed).batch(2)
    numbered = tf.data.Dataset.zip(records, seeds).map(lambda record, number: (*record, number))
    steps = examples.count // recipe.batch_size
    whole = numbered.batch(recipe.batch_size, drop_remainder=True).take(steps)
    mine = share.of_batches(whole).unbatch()
    augment = _augmentation(recipe)
    classes = len(examples.labels)

    def load(source: Any, label: Any, number: Any) -> Any:
        pixels = _decode(source, is_path=examples.are_paths)
        picture = _train_crop(pixels, size, recipe, number)
        picture = tf.ensure_shape(picture, (size, size, 3))
        if augment is not None:
            picture = tf.ensure_shape(augment(picture, training=True), (size, size, 3))
        return picture, _one_hot(label, classes)

    batches = mine.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(local, drop_remainder=True)
    return _of_known_length(batches, steps).prefetch(tf.data.AUTOTUNE)


def validation_batches(examples: Examples, recipe: Recipe, size: int, *, share: Share | None = None) -> Any:
    """A `tf.data.Dataset` of (pictures, one-hot labels) with the evaluation crop, in order.

    Several processes leave out the last batch when it is not full, because they could not share it.

    Raises:
        InvalidInputError: with several processes: fewer pictures than one batch takes.
    """
    import tensorflow as tf

    share = share or Share()
    local = share.local_batch(recipe.batch_size)
    shared = share.count > 1
    if shared and examples.count < recipe.batch_size:
        raise InvalidInputError(
            f"Expected at least {recipe.batch_size} pictures for validation by {share.count} processes. "
            f"Received: {examples.count}."
        )
    whole = examples.records.batch(recipe.batch_size, drop_remainder=shared)
    classes = len(examples.labels)

    def load(source: Any, label: Any) -> Any:
        pixels = _decode(source, is_path=examples.are_paths)
        return _evaluation_crop(pixels, size), _one_hot(label, classes)

    mine = share.of_batches(whole).unbatch()
    batches = mine.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(local)
    steps = examples.count // recipe.batch_size if shared else -(-examples.count // recipe.batch_size)
    return _of_known_length(batches, steps).prefetch(tf.data.AUTOTUNE)


def _of_known_length(batches: Any, steps: int) -> Any:
    """Keras starts a data set of known length anew for each epoch. Of one that it takes for endless, `fit`
    on several processes loses the batch that it builds the model with, and one process does not.
    """
    import tensorflow as tf

    return batches.apply(tf.data.experimental.assert_cardinality(steps))


def _augmentation(recipe: Recipe) -> Any:
    if not recipe.augment_ops or not recipe.augment_strength:
        return None
    return keras.layers.RandAugment(
        value_range=(0, 255), num_ops=recipe.augment_ops, factor=recipe.augment_strength
    )


def _decode(source: Any, *, is_path: bool) -> Any:
    import tensorflow as tf

    encoded = tf.io.read_file(source) if is_path else source
    return tf.ensure_shape(tf.io.decode_image(encoded, channels=3, expand_animations=False), (None, None, 3))


def _train_crop(pixels: Any, size: int, recipe: Recipe, number: Any) -> Any:
    """A random part of the picture, flipped half of the time (`distorted_bounding_box_crop`)."""
    import tensorflow as tf

    if recipe.crop_area == 1:
        return _evaluation_crop(pixels, size)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(pixels),
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=number,
        min_object_covered=0.1,
        aspect_ratio_range=ASPECTS,
        area_range=(recipe.crop_area, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    crop = tf.slice(pixels, begin, extent)
    picture = tf.image.resize(crop, (size, size), method="bicubic")
    picture = tf.image.stateless_random_flip_left_right(picture, seed=number + 1)
    return tf.clip_by_value(picture, 0.0, 255.0)


def _evaluation_crop(pixels: Any, size: int) -> Any:
    """The central square of `size / (size + 32)` of the shorter side."""
    import tensorflow as tf

    shape = tf.shape(pixels)
    side = tf.cast(tf.cast(tf.minimum(shape[0], shape[1]), tf.float32) * crop_fraction(size), tf.int32)
    side = tf.maximum(side, 1)
    crop = tf.image.crop_to_bounding_box(
        pixels, (shape[0] - side + 1) // 2, (shape[1] - side + 1) // 2, side, side
    )
    picture = tf.image.resize(crop, (size, size), method="bicubic", antialias=True)
    return tf.clip_by_value(tf.ensure_shape(picture, (size, size, 3)), 0.0, 255.0)


def _one_hot(label: Any, classes: int) -> Any:
    import tensorflow as tf

    known = tf.logical_and(label >= 0, label < classes)
    check = tf.debugging.Assert(known, ["a class index outside of 0 …", classes - 1, "was", label])
    with tf.control_dependencies([check]):
        return tf.one_hot(label, classes)
