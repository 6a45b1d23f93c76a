"""Models that people bring: in half precision, nested, sequential, with layers of their own in front."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import randomize

from keras_effnet import EfficientNet, export
from keras_effnet.errors import ExportError
from keras_effnet.export.precision import in_float32
from keras_effnet.layers import flat_layers

EXPORTERS = {".tflite": export.to_tflite, ".onnx": export.to_onnx}


@contextmanager
def policy(name: str) -> Iterator[None]:
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def nested(variant: Any, **options: Any) -> Any:
    """A backbone called as a layer, with a head behind it."""
    base = EfficientNet(
        variant, weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 3), **options
    )
    inputs = keras.Input((64, 64, 3))
    outputs = keras.layers.Dense(7, activation="softmax", dtype="float32")(base(inputs))
    model = keras.Model(inputs, outputs, name="mine")
    randomize(model)
    return model


def names(model: Any) -> list[str]:
    """Of the layers; Keras gives a clone's inputs names of their own."""
    return [layer.name for layer in flat_layers(model) if not isinstance(layer, keras.layers.InputLayer)]


@pytest.fixture(scope="module")
def half(tiny_variant: Any) -> Any:
    with policy("mixed_float16"):
        return nested(tiny_variant)


@pytest.mark.parametrize("ending", EXPORTERS)
def test_mixed_precision_model_leaves_in_float32(
    half: Any, pixels64: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str
) -> None:
    path = EXPORTERS[ending](half, tmp_path / f"model{ending}")
    assert "error" not in capfd.readouterr().err
    report = export.verify(half, path, pixels64)
    assert report.ok and report.max_abs_error <= 1e-5  # float16 arithmetic is off by a hundred times that


def test_in_float32_keeps_weights_names_and_structure(half: Any) -> None:
    twin = in_float32(half)
    assert {layer.compute_dtype for layer in flat_layers(twin)} == {"float32"}
    assert names(twin) == names(half)
    assert twin.name == half.name
    for left, right in zip(twin.get_weights(), half.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    assert half.layers[1].compute_dtype == "float16"  # the caller's model stays as it was


def test_in_float32_returns_a_float32_model_itself(tiny: Any) -> None:
    assert in_float32(tiny) is tiny


def test_in_float32_says_what_to_do_with_a_model_that_cannot_be_cloned() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="own")
            self.dense = keras.layers.Dense(2)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    with policy("mixed_float16"):
        model = Own()
        model(np.zeros((1, 3)))
    with pytest.raises(ExportError, match=r"computes in float32.*'own', which computes in float16.*Build it"):
        in_float32(model)
