"""A small network that hurts like a trained one: channels of very different ranges around its swishes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

SIDE = 64


CLASSES = 4


def imbalanced(*, lite: bool = False, seed: int = 3) -> Any:
    """B0's first four blocks at half its width, trained for seconds from a start whose channels spread.

    A deep network of few channels would be no use: it amplifies every rounding until nothing is left,
    which a wide one does not.
    """
    import keras

    from keras_effnet.network.builder import BuildOptions, build_model
    from keras_effnet.network.table import EFFICIENTNET_B0, EFFICIENTNET_LITE0, scaled

    keras.utils.set_random_seed(seed)
    whole = EFFICIENTNET_LITE0 if lite else EFFICIENTNET_B0
    first, second, third, *_ = whole.stages
    stages = first, second, replace(third, repeats=1)
    architecture = scaled(replace(whole, stages=stages), width=0.5, drop_connect_rate=0.0)
    options = BuildOptions(
        classes=CLASSES,
        preprocessing=whole.preprocessing,
        dropout_rate=0.0,
        padding="same",
        epsilon=1e-3,
        name="small",
    )
    image = keras.Input((SIDE, SIDE, 3))
    model = build_model(architecture, options, image, image, keras=keras)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = 0.8
            if "project" not in layer.name:
                layer.gamma.assign(10 ** rng.uniform(-0.7, 0.7, layer.gamma.shape[0]))
    images = pictures(160, seed=seed + 1)
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    model.fit(images, classes_of(images), batch_size=32, epochs=4, verbose=0)
    return model


def classes_of(images: Any) -> Any:
    """Which quarter of a picture is brightest, 0 to 3."""
    half = SIDE // 2
    quarters = [images[:, y : y + half, x : x + half].mean((1, 2, 3)) for y in (0, half) for x in (0, half)]
    return np.argmax(quarters, axis=0)


def pictures(count: int, *, side: int = SIDE, seed: int = 0) -> Any:
    """Random pictures with large and small structures, float32 0–255, whole numbers."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 6, 6, 3))
    ramp = np.linspace(0, 5, side)
    low = np.floor(ramp).astype(int).clip(0, 4)
    part = (ramp - low)[np.newaxis, :, np.newaxis, np.newaxis]
    rows = coarse[:, low] * (1 - part) + coarse[:, low + 1] * part
    part = (ramp - low)[np.newaxis, np.newaxis, :, np.newaxis]
    smooth = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    texture = rng.normal(0, 50, (count, side // 4, side // 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(np.rint(smooth + texture), 0, 255).astype(np.float32)


def _trained_once(name: str, made: Callable[[], Any], factory: pytest.TempPathFactory) -> Any:
    """A network that one worker trains, and the others read."""
    import keras
    from filelock import FileLock

    base = factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"{name}.keras"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            made().save(path)
    return keras.saving.load_model(path, compile=False)


@pytest.fixture(scope="session")
def tiny_swish(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Swish and squeeze-and-excite at 64 px."""
    return _trained_once("tiny_swish", imbalanced, tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_lite(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """ReLU6 at 64 px."""
    return _trained_once("tiny_lite", partial(imbalanced, lite=True), tmp_path_factory)


@pytest.fixture(scope="session")
def calibration() -> Any:
    return pictures(32, seed=11)


@pytest.fixture(scope="session")
def held_out() -> Any:
    return pictures(48, seed=12)


@pytest.fixture(scope="session")
def network(tiny_swish: Any, calibration: Any) -> Any:
    """The tiny swish network, quantized by the default method."""
    from keras_effnet.export.quantization.prepare import prepare

    return prepare(tiny_swish, calibration)


@pytest.fixture(scope="session")
def lite_network(tiny_lite: Any, calibration: Any) -> Any:
    """The tiny ReLU6 network, quantized for ONNX, with every swish equalized: it has none."""
    from keras_effnet.export.quantization.prepare import prepare

    return prepare(tiny_lite, calibration, target="onnx", equalize=1.0)


@pytest.fixture(scope="session")
def graph(tiny_swish: Any) -> Any:
    from keras_effnet.export.quantization.fold import fold

    return fold(tiny_swish)
