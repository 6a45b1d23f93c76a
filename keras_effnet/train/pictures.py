"""Photographs from disk into batches: a scan for broken ones, and `tf.data` pipelines.

A pipeline knows photographs by their index in the one `Listing`; nothing here holds more than a few
batches of pixels, however many photographs there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.framing import Framing
from keras_effnet.system.files import system_said
from keras_effnet.train.listing import Listing

THREADS = 4
_WINDOW = 256  # photographs being scanned at a time
_THUMB = 32  # JPEG decodes straight to an eighth of its size, and still reads every byte


def scan(listing: Listing, progress: Callable[[int], None] = lambda _: None) -> list[tuple[int, str]]:
    """Decode every photograph once.

    Args:
        listing: the photographs.
        progress: called with the number of photographs done since the last call.

    Returns:
        (index, reason) for each photograph that cannot be read.
    """
    broken: list[tuple[int, str]] = []
    todo = iter(range(len(listing.files)))
    with ThreadPoolExecutor(THREADS) as pool:
        while window := list(islice(todo, _WINDOW)):
            reasons = pool.map(lambda index: _reason(listing.path(index)), window)
            broken += [(index, why) for index, why in zip(window, reasons, strict=True) if why]
            progress(len(window))
    return broken


def _reason(path: str) -> str:
    """Why a photograph cannot be read; empty if it can."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (_THUMB, _THUMB))
            picture.load()
    except FileNotFoundError:
        return "no such file"
    except UnidentifiedImageError:
        return "no picture in it, or of a kind that cannot be read"
    except Exception as error:  # Pillow's plugins raise whatever their formats make them
        if isinstance(error, OSError) and error.errno:
            return system_said(error)
        return f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return ""


def evaluation_batches(
    listing: Listing,
    indices: npt.NDArray[np.int64],
    size: int,
    framing: Framing,
    *,
    batch_size: int,
) -> Any:
    """Photographs with the evaluation crop, in the order of `indices`.

    Args:
        listing, indices: the photographs.
        size: side of the pictures in pixels.
        framing: how they are read.
        batch_size: photographs per batch.

    Returns:
        A `tf.data.Dataset` of (uint8 `[n, size, size, 3]`, float32 one-hot `[n, classes]`).
    """
    import tensorflow as tf

    order = tf.data.Dataset.from_tensor_slices(np.asarray(indices, np.int64))
    pictures = order.map(_reader(listing, size, framing), num_parallel_calls=tf.data.AUTOTUNE)
    return pictures.batch(batch_size).prefetch(2)


def training_batches(
    listing: Listing,
    indices: npt.NDArray[np.int64],
    augment: Callable[[Any, Any], tuple[Any, Any]],
    size: int,
    framing: Framing,
    *,
    batch_size: int,
    seed: int,
    epochs: range,
) -> Any:
    """Photographs in a new order each epoch, one epoch after the other, augmented.

    The order of an epoch depends on `seed` and the epoch alone: a resumed run goes on with the one that
    an uninterrupted run would have had.

    Args:
        listing, indices: the photographs to train on.
        augment: from (uint8 `[n, size, size, 3]`, one-hot) to (float32 `[n, size, size, 3]`, labels).
        size: of the pictures.
        framing: how they are read.
        batch_size: photographs per step; the last batch of an epoch may be smaller.
        seed: of the order.
        epochs: the epochs to come.

    Returns:
        A `tf.data.Dataset` of batches; use it with `steps_per_epoch`.
    """
    import tensorflow as tf

    indices = np.asarray(indices, np.int64)

    def order(epoch: Any) -> npt.NDArray[np.int64]:
        return np.random.default_rng((seed, int(epoch))).permutation(indices)

    def one_epoch(epoch: Any) -> Any:
        shuffled = tf.numpy_function(order, [epoch], tf.int64, stateful=False)
        shuffled.set_shape([len(indices)])
        pictures = tf.data.Dataset.from_tensor_slices(shuffled).map(
            _reader(listing, size, framing), num_parallel_calls=tf.data.AUTOTUNE
        )
        return pictures.batch(batch_size)

    batches = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(one_epoch)
    # one call at a time: the random layers draw one after the other, so a seed gives the same pictures
    return batches.map(augment).prefetch(2)


def _reader(listing: Listing, size: int, framing: Framing) -> Any:
    """A mapping for tf.data from an index to (pixels, one-hot label)."""
    import tensorflow as tf

    classes = len(listing.classes)

    def read(index: Any) -> Any:
        return framing.read(listing.path(int(index)), size)

    def mapping(index: Any) -> tuple[Any, Any]:
        pixels = tf.numpy_function(read, [index], tf.uint8, stateful=False)
        pixels.set_shape([size, size, 3])
        label = tf.numpy_function(lambda i: listing.labels[int(i)], [index], tf.int32, stateful=False)
        return pixels, tf.one_hot(tf.ensure_shape(label, []), classes)

    return mapping


def arrays(
    listing: Listing,
    indices: npt.NDArray[np.int64],
    size: int,
    framing: Framing,
    *,
    limit: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Photographs as one array, uint8 `[N, size, size, 3]`, at most `limit` of them, evenly spread."""
    if limit is not None and len(indices) > limit:
        indices = indices[np.linspace(0, len(indices) - 1, limit).round().astype(int)]
    if len(indices) == 0:
        raise InvalidInputError("Expected at least one photograph. Received none.")
    return framing.read_all((listing.path(int(index)) for index in indices), size)


def in_chunks(indices: npt.NDArray[np.int64], count: int) -> Iterator[npt.NDArray[np.int64]]:
    """`indices` in pieces of at most `count`."""
    for start in range(0, len(indices), count):
        yield indices[start : start + count]
