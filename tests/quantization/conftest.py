"""A small network that hurts like a trained one: channels of very different ranges around its swishes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

SIDE = 64


CLASSES = 4


def imbalanced(variant: Any, *, seed: int = 3) -> Any:
    """A network trained for seconds from a start whose channels spread over an order of magnitude."""
    import keras

    from keras_effnet import EfficientNet

    keras.utils.set_random_seed(seed)
    model = EfficientNet(variant, weights=None, classes=CLASSES, drop_connect_rate=0.0)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = 0.8
            if "project" not in layer.name:
                layer.gamma.assign(10 ** rng.uniform(-0.3, 0.5, layer.gamma.shape[0]))
    images = pictures(512, seed=seed + 1)
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    model.fit(images, classes_of(images), batch_size=32, epochs=8, verbose=0)
    return model


def classes_of(images: Any) -> Any:
    """Which quarter of a picture is brightest, 0 to 3."""
    half = SIDE // 2
    quarters = [images[:, y : y + half, x : x + half].mean((1, 2, 3)) for y in (0, half) for x in (0, half)]
    return np.argmax(quarters, axis=0)


def pictures(count: int, *, side: int = SIDE, seed: int = 0) -> Any:
    """Smooth random pictures, float32 0–255: neighbouring pixels are alike, as in photographs."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 6, 6, 3))
    ramp = np.linspace(0, 5, side)
    low = np.floor(ramp).astype(int).clip(0, 4)
    part = (ramp - low)[np.newaxis, :, np.newaxis, np.newaxis]
    rows = coarse[:, low] * (1 - part) + coarse[:, low + 1] * part
    part = (ramp - low)[np.newaxis, np.newaxis, :, np.newaxis]
    return (rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_swish(tiny_variant: Any) -> Any:
    """Swish and squeeze-and-excite at 64 px."""
    return imbalanced(tiny_variant)


@pytest.fixture(scope="session")
def tiny_lite() -> Any:
    """ReLU6 at 64 px."""
    from keras_effnet.variants import Variant

    variant = Variant(
        name="tiny-lite", title="TinyLite", width=0.25, depth=0.3, resolution=SIDE, dropout=0.1, lite=True
    )
    return imbalanced(variant)


@pytest.fixture(scope="session")
def calibration() -> Any:
    return pictures(32, seed=11)


@pytest.fixture(scope="session")
def held_out() -> Any:
    return pictures(48, seed=12)


@pytest.fixture(scope="session")
def network(tiny_swish: Any, calibration: Any) -> Any:
    """The tiny swish network, quantized by the default method."""
    from keras_effnet.export.quantization.post_training import prepare

    return prepare(tiny_swish, calibration)


@pytest.fixture(scope="session")
def graph(tiny_swish: Any) -> Any:
    from keras_effnet.export.quantization.folding import fold

    return fold(tiny_swish)
