"""A small network that hurts like a trained one: channels of very different ranges around its swishes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

SIDE = 64


def imbalanced(variant: Any, *, classes: int = 7, seed: int = 3) -> Any:
    """A network whose batch normalizations spread channel ranges over two orders of magnitude."""
    import keras

    from keras_effnet import EfficientNet

    keras.utils.set_random_seed(seed)
    model = EfficientNet(variant, weights=None, classes=classes)
    rng = np.random.default_rng(seed)
    model(pictures(16, seed=seed + 1), training=True)
    for layer in model.layers:
        if type(layer).__name__ != "BatchNormalization":
            continue
        layer.momentum = 0.0
    model(pictures(16, seed=seed + 1), training=True)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            width = layer.gamma.shape[0]
            spread = 1.0 if "project" in layer.name else 10 ** rng.uniform(-0.6, 0.6, width)
            layer.gamma.assign(np.full(width, 1.0) * spread)
            layer.beta.assign(rng.normal(0, 0.3, width) * spread)
    model(pictures(16, seed=seed + 1), training=True)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = 0.99
    return model


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
