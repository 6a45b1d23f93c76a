"""Random changes to training photographs, all of them layers of Keras.

Photographs come in as the evaluation frames them and are moved, turned and zoomed from there, so a
network sees things about as large in training as afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.train.settings import Settings

SHIFT = 0.07  # of the side, in any direction: what a random crop of 224 from 256 pixels amounts to


def augmentation(
    settings: Settings, size: int, class_weights: npt.NDArray[np.float32] | None, seed: int
) -> Callable[[Any, Any], tuple[Any, ...]]:
    """The function that a training pipeline applies to its batches.

    Args:
        settings: `augment`, `mixup` and `cutmix` count.
        size: side of the pictures, in pixels.
        class_weights: float32 `[classes]`, or None; then nothing is weighted.
        seed: of everything random in it.

    Returns:
        A function from (uint8 `[n, size, size, 3]`, one-hot `[n, classes]`) to (float32
        `[n, size, size, 3]`, labels `[n, classes]`), with weights `[n]` as a third if there are any.
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
        return pixels, labels, tf.linalg.matvec(labels, class_weights)

    return augment


def _layers(name: str, seed: int) -> list[Any]:
    from keras import layers

    if name == "none":
        return []
    light = [
        layers.RandomFlip("horizontal", seed=seed + 1),
        layers.RandomTranslation(SHIFT, SHIFT, fill_mode="nearest", seed=seed),
    ]
    if name == "light":
        return light
    if name == "randaugment":
        return [*light, layers.RandAugment((0, 255), num_ops=2, factor=0.3, seed=seed + 2)]
    return [
        *light,
        layers.RandomRotation(0.05, fill_mode="nearest", seed=seed + 3),
        layers.RandomZoom((-0.15, 0.05), fill_mode="nearest", seed=seed + 4),
        layers.RandomBrightness(0.15, value_range=(0, 255), seed=seed + 5),
        layers.RandomContrast(0.2, value_range=(0, 255), seed=seed + 6),
    ]


def _mixing(settings: Settings, seed: int) -> list[Any]:
    from keras import layers

    found: list[Any] = []
    if settings.mixup > 0:
        found.append(layers.MixUp(alpha=settings.mixup, seed=seed + 7))
    if settings.cutmix > 0:
        found.append(layers.CutMix(factor=settings.cutmix, seed=seed + 8))
    return found
