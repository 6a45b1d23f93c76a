"""Models that a converter cannot take: one line that says what is wrong and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

from keras_effnet import export
from keras_effnet.errors import ExportError
from keras_effnet.export.failures import converting

EXPORTERS = {
    "SavedModel": export.to_saved_model,
    "TFLite": export.to_tflite,
    "ONNX": export.to_onnx,
}


class Broken(keras.layers.Layer):
    """Works while the model is built, and not in a graph."""

    def call(self, inputs: Any) -> Any:
        if isinstance(inputs, keras.KerasTensor):
            return keras.ops.mean(inputs, axis=(1, 2))
        return inputs + undefined  # type: ignore[name-defined] # noqa: F821

    def compute_output_shape(self, shape: Any) -> Any:
        return shape[0], shape[3]


def model_with(layer: Any) -> Any:
    image = keras.Input((32, 32, 3))
    return keras.Model(image, layer(image), name="mine")


@pytest.mark.parametrize("format_", EXPORTERS)
def test_layer_that_fails_is_named_in_one_line(tmp_path: Path, format_: str) -> None:
    with pytest.raises(ExportError) as caught:
        EXPORTERS[format_](model_with(Broken()), tmp_path / "x")
    assert str(caught.value) == (
        f"Expected 'mine' to convert to {format_}. Its layer Broken failed: name 'undefined' is not defined. "
        "Mend its call, which has to work in a TensorFlow graph with an open batch."
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format_", ["TFLite", "ONNX"])
def test_operator_that_the_format_lacks_is_named(tmp_path: Path, format_: str) -> None:
    resize = keras.layers.UpSampling2D(2, interpolation="lanczos5")
    with pytest.raises(ExportError) as caught:
        EXPORTERS[format_](model_with(resize), tmp_path / "x")
    assert str(caught.value) == (
        f"Expected 'mine' to convert to {format_}. Received: ScaleAndTranslate, for which {format_} has no "
        "operator. Build the model without, or export it to saved_model, which has them all."
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'in user code:\n\n    File "x.py", line 3\n\n    TypeError: no such axis\n',
            "TypeError: no such axis.",
        ),
        ("first line\nsecond line", "ValueError: first line."),
        ("", "ValueError: nothing."),
    ],
)
def test_traceback_in_a_message_is_left_out(text: str, said: str) -> None:
    with pytest.raises(ExportError) as caught, converting("mine", "ONNX"):
        raise ValueError(text)
    assert str(caught.value) == (
        f"Expected 'mine' to convert to ONNX. The converter said: {said} Build the model from Keras' own layers."
    )
