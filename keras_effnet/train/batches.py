"""Photographs in batches: with the evaluation crop, or in a new order each epoch and randomly changed.

A batch is made from the indices of the one `Listing`; nothing here holds more than a few batches of pixels,
however many photographs there are. The random changes are layers of Keras. Photographs come in as the
evaluation frames them and are moved, turned and zoomed from there, so a network sees things about as large
in training as afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.distortions import randaugment
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import Listing
from keras_effnet.pictures.prefetching import READING_THREADS, Batch, dataset_of, mapped_in_threads
from keras_effnet.train.settings import Settings

# of what is computed or decoded once and used in every epoch: 20,000 Lite0 pictures, or validation maps of 3,500
KEPT_BYTES = 1 << 30
SHIFT = 0.07  # of the side, in any direction: what a random crop of 224 from 256 pixels amounts to
TURN = 0.05  # of a full turn, either way
ZOOM = (0.85, 1.05)  # side of what is seen, as a share of the photograph's


def evaluation_batches(
    listing: Listing,
    indices: npt.NDArray[np.int64],
    size: int,
    framing: Framing,
    *,
    batch_size: int,
) -> Any:
    """Photographs with the evaluation crop, in the order of `indices`.

    Returns:
        A `tf.data.Dataset` of (uint8 `[n, size, size, 3]`, float32 one-hot `[n, classes]`).
    """
    chunks = list(in_chunks(np.asarray(indices, np.int64), batch_size))
    course = Course(listing)
    return dataset_of(lambda: _read(course, chunks, size, framing), _kinds(size, course.width), len(chunks))


class Course:
    """What a network is fine-tuned on: the training photographs of a listing, each once in an epoch.

    Attributes:
        listing: the photographs, those for validation too.
        width: numbers that `targets` gives for each.
        class_weights: float32 `[classes]` by which the loss of each is weighed, or None.
        knows_head: whether the head has learned from the same photographs, and is the result where it is better.
    """

    knows_head = True

    def __init__(self, listing: Listing, class_weights: npt.NDArray[np.float32] | None = None) -> None:
        self.listing, self.class_weights = listing, class_weights
        self.width = len(listing.classes)
        self._rows = np.eye(self.width, dtype=np.float32)

    def __len__(self) -> int:
        """Photographs in an epoch."""
        return len(self.listing.of("train"))

    def order(self, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """The indices of an epoch's photographs."""
        return generator.permutation(self.listing.of("train"))

    def targets(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What the network is to say of photographs, `[n, width]`: here what is true, 1 or 0."""
        return self.listing.targets(indices)

    def taught(self, batch: Batch) -> Batch:
        """A batch after its augmentation, before the network gets it."""
        return batch

    def loss(self, label_smoothing: float) -> Any:
        """What fine-tuning lowers."""
        from keras import losses

        return losses.CategoricalCrossentropy(label_smoothing=label_smoothing)

    def accuracy(self) -> Any:
        """The metric of that name."""
        return "accuracy"


@dataclass(frozen=True)
class Augmentation:
    """What is done to a batch of training photographs: (uint8 pixels, labels) → (float32 pixels, labels[, weights]).

    Attributes:
        graph: what TensorFlow does.
        before: what Python does to the pixels before that, if anything: a graph must not call it, see `prefetching`.
    """

    graph: Callable[[Any, Any], tuple[Any, ...]]
    before: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]] | None = None

    def prepared(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """What the graph gets."""
        return pixels if self.before is None else self.before(pixels)


def training_batches(
    course: Course,
    augment: Augmentation,
    size: int,
    framing: Framing,
    *,
    batch_size: int,
    seed: int,
    epochs: range,
    shown: Callable[[Any], Any] | None = None,
) -> Any:
    """Photographs in a new order each epoch, one epoch after the other, augmented.

    Each is decoded once, as far as `KEPT_BYTES` hold them.

    The order of an epoch depends on `seed` and the epoch alone: a resumed run goes on with the one that
    an uninterrupted run would have had. The last batch of an epoch may be smaller.

    Args:
        augment: of `augmentation`.
        epochs: the epochs to come.
        shown: what the network that learns is shown of augmented pixels; None for these.

    Returns:
        A `tf.data.Dataset` of batches; use it with `steps_per_epoch`.
    """
    import tensorflow as tf

    traced: Any = tf.function(augment.graph, input_signature=_kinds(size, course.width))
    kinds = traced.get_concrete_function().structured_outputs
    if shown is not None:
        maps = tf.function(shown).get_concrete_function(kinds[0])
        kinds = (maps.structured_outputs, *kinds[1:])

    def chunks() -> Iterator[npt.NDArray[np.int64]]:
        for epoch in epochs:
            yield from in_chunks(course.order(np.random.default_rng((seed, epoch))), batch_size)

    def make() -> Iterator[Batch]:
        # one call at a time: the random layers draw one after the other, so a seed gives the same pictures
        for pixels, labels in _read(course, chunks(), size, framing, keep=KEPT_BYTES):
            made = traced(augment.prepared(pixels), labels)
            changed, *others = course.taught(tuple(map(np.asarray, made)))
            yield (changed if shown is None else np.asarray(maps(tf.constant(changed))), *others)

    return dataset_of(make, kinds, -(-len(course) // batch_size) * len(epochs))


def _kinds(size: int, width: int) -> list[Any]:
    """Of a batch of photographs as they are read, and of what a network is to say of them."""
    import tensorflow as tf

    return [
        tf.TensorSpec((None, size, size, 3), tf.uint8),
        tf.TensorSpec((None, width), tf.float32),
    ]


def _read(
    course: Course, chunks: Iterable[npt.NDArray[np.int64]], size: int, framing: Framing, keep: int = 0
) -> Iterator[Batch]:
    """Batches of photographs; of those that come again, so many bytes are kept."""
    kept: dict[int, npt.NDArray[np.uint8]] = {}

    def read(index: int) -> npt.NDArray[np.uint8]:
        if index in kept:
            return kept[index]
        # the scan has told what there is to say
        pixels = framing.read(course.listing.source(index), size, silent=True)
        if (len(kept) + 1) * pixels.nbytes <= keep:
            kept[index] = pixels
        return pixels

    with ThreadPoolExecutor(READING_THREADS) as readers:
        for chunk in chunks:
            yield mapped_in_threads(read, chunk, readers=readers), course.targets(chunk)


def shown_once(batches: Any, shown: Callable[[Any], Any]) -> Any:
    """A data set of (pixels, labels) as what the network is shown of them, computed in the first pass.

    It is kept as far as `KEPT_BYTES` hold it, and computed again where they do not.
    """
    import tensorflow as tf

    pixels, labels = batches.element_spec
    maps = tf.function(shown).get_concrete_function(pixels)
    kept: list[Batch] = []

    def make() -> Iterator[Batch]:
        if kept:
            yield from kept
            return
        found: list[Batch] | None = []
        for pixels, labels in batches:
            batch = np.asarray(maps(pixels)), np.asarray(labels)
            if found is not None:
                found.append(batch)
                if sum(array.nbytes for each in found for array in each) > KEPT_BYTES:
                    found = None
            yield batch
        kept.extend(found or ())

    return dataset_of(make, (maps.structured_outputs, labels), len(batches))


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
    return np.stack([framing.read(listing.source(int(index)), size, silent=True) for index in indices])


def in_chunks(indices: npt.NDArray[np.int64], count: int) -> Iterator[npt.NDArray[np.int64]]:
    """`indices` in pieces of at most `count`."""
    for start in range(0, len(indices), count):
        yield indices[start : start + count]


def augmentation(
    settings: Settings, size: int, class_weights: npt.NDArray[np.float32] | None, seed: int
) -> Augmentation:
    """What a training pipeline does to its batches, as the settings say.

    Returns:
        From (uint8 `[n, size, size, 3]`, one-hot `[n, classes]`) to (float32
        `[n, size, size, 3]`, labels `[n, classes]`), with weights `[n]` as a third where `class_weights`
        (float32 `[classes]`) are given.
    """
    import tensorflow as tf

    layers = _layers(settings.augment, seed)
    mixing = _mixing(settings, seed)

    def augment(pixels: Any, labels: Any) -> tuple[Any, ...]:
        for layer in layers:
            pixels = layer(pixels, training=True)
        pixels = tf.cast(pixels, tf.float32)
        for layer in mixing:
            mixed = layer({"images": pixels, "labels": labels}, training=True)
            pixels, labels = mixed["images"], mixed["labels"]
        pixels = tf.ensure_shape(pixels, [None, size, size, 3])
        if class_weights is None:
            return pixels, labels
        # of several labels their mean
        return pixels, labels, tf.linalg.matvec(labels, class_weights) / tf.reduce_sum(labels, axis=1)

    return Augmentation(augment, _distorting(seed + 2) if settings.augment == "randaugment" else None)


def _layers(name: str, seed: int) -> list[Any]:
    from keras import layers

    if name == "none":
        return []
    flip = layers.RandomFlip("horizontal", seed=seed + 1)
    light = [flip, layers.RandomTranslation(SHIFT, SHIFT, fill_mode="nearest", seed=seed)]
    if name in ("light", "randaugment"):
        return light
    return [
        flip,
        _moving(seed),
        layers.RandomBrightness(0.15, value_range=(0, 255), seed=seed + 5),
        layers.RandomContrast(0.2, value_range=(0, 255), seed=seed + 6),
    ]


def _moving(seed: int) -> Callable[..., Any]:
    """Shifts, turns and zooms each picture, as Keras' three layers do, but reads its pixels once instead of three times."""
    import tensorflow as tf

    generator = tf.random.Generator.from_seed(seed)

    def move(pixels: Any, training: bool) -> Any:
        count, height, width = (tf.shape(pixels)[axis] for axis in range(3))
        middle, sides = (tf.cast(each, tf.float32) for each in ([width - 1, height - 1], [width, height]))
        shift = sides * generator.uniform([count, 2], -SHIFT, SHIFT)
        angle = 2 * np.pi * generator.uniform([count], -TURN, TURN)
        zoom = generator.uniform([count], *ZOOM)
        cosine, sine, none = zoom * tf.cos(angle), zoom * tf.sin(angle), tf.zeros([count])
        # where a pixel comes from: turned and zoomed about the middle, then shifted
        x, y = middle[0] / 2, middle[1] / 2
        across = x - cosine * x + sine * y + shift[:, 0]
        down = y - sine * x - cosine * y + shift[:, 1]
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(pixels, tf.float32),
            transforms=tf.stack([cosine, -sine, across, sine, cosine, down, none, none], axis=1),
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )

    return move


def _mixing(settings: Settings, seed: int) -> list[Any]:
    from keras import layers

    found: list[Any] = []
    if settings.mixup > 0:
        found.append(layers.MixUp(alpha=settings.mixup, seed=seed + 7))
    if settings.cutmix > 0:
        found.append(layers.CutMix(factor=settings.cutmix, seed=seed + 8))
    return found


def _distorting(seed: int) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]:
    """RandAugment of each picture on its own."""
    generator = np.random.default_rng(seed)
    return lambda pixels: np.stack([randaugment(picture, generator) for picture in pixels])
