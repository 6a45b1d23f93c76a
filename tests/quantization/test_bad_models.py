"""What models that cannot be exported get: one line that names the cause, and no file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import build_nano
from test_keras_models import assert_same

from keras_effnet.errors import EffNetError, InvalidInputError
from keras_effnet.export import to_onnx, to_tflite
from keras_effnet.export.quantization.fold import fold
from keras_effnet.export.quantization.graph import run

pytest.importorskip("litert_quantizer")

SIDE = 32


@pytest.fixture(scope="module")
def few() -> Any:
    return np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE, 3)).astype(np.float32)


def with_layer(layer: Any) -> Any:
    """A classifier with something of its user's in the middle."""
    import keras

    layers = keras.layers
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(4, 3, strides=2)(layers.Rescaling(1 / 255)(image))
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(layer(x))), name="own")


def assert_one_line(
    model: Any, images: Any, folder: Path, *said: str, recipe: str = "int8", kind: Any = EffNetError
) -> None:
    """Both formats refuse a model in one line that says what is wrong, and leave nothing behind."""
    for write, name in ((to_tflite, "x.tflite"), (to_onnx, "x.onnx")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(kind) as caught:
                write(model, folder / name, recipe, images)
        text = str(caught.value)
        assert "\n" not in text and text.endswith(".")
        for part in said:
            assert part in text
    assert not list(folder.iterdir())


def test_layer_that_draws_at_inference_is_named(few: Any, tmp_path: Path) -> None:
    import keras

    class MonteCarlo(keras.layers.Dropout):
        def call(self, inputs: Any, training: Any = None) -> Any:
            return super().call(inputs, training=True)

    model = with_layer(MonteCarlo(0.5, name="monte"))
    assert_one_line(model, few, tmp_path, "it has 'monte', a MonteCarlo of its own. Build it without")


def test_dropout_called_to_train_says_what_the_file_does(few: Any) -> None:
    import keras

    model = with_layer(lambda x: keras.layers.Dropout(0.5, name="drop")(x, training=True))
    with pytest.warns(UserWarning, match="'drop' was called with training=True"):
        graph = fold(model)
    assert_same(run(graph, few)[graph.output], model.predict(few, verbose=0))  # Keras 3 does not drop there


def test_python_control_flow_is_named(few: Any, tmp_path: Path) -> None:
    import keras

    class Choice(keras.layers.Layer):
        def compute_output_shape(self, shape: Any) -> Any:
            return shape

        def call(self, x: Any) -> Any:
            return x * 2 if keras.ops.mean(x) > 0.3 else x

    said = "Its layer Choice branches in Python (if, while) on what a tensor holds"
    for recipe in ("int8", "float32"):
        assert_one_line(with_layer(Choice(name="choice")), few, tmp_path, said, recipe=recipe)


def test_weights_that_are_no_numbers_are_named(few: Any, tmp_path: Path) -> None:
    model = build_nano()
    kernel, bias = model.layers[-1].get_weights()
    kernel[0, 1] = np.nan
    model.layers[-1].set_weights([kernel, bias])
    assert_one_line(
        model,
        few,
        tmp_path,
        "NaN or infinity in 'predictions/kernel', 1 of 24 values",
        kind=InvalidInputError,
    )


def test_calibration_of_one_colour_is_refused(few: Any, tmp_path: Path) -> None:
    red = np.zeros_like(few) + np.float32([255, 0, 0])
    assert_one_line(build_nano(), red, tmp_path, "pictures of one colour each", kind=InvalidInputError)


def test_several_inputs_are_told(few: Any, tmp_path: Path) -> None:
    import keras

    first, second = keras.Input((SIDE, SIDE, 3)), keras.Input((SIDE, SIDE, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([first, second]))
    model = keras.Model([first, second], keras.layers.Dense(3)(x))
    assert_one_line(model, few, tmp_path, "one image input", kind=InvalidInputError)


def test_output_without_a_name_of_its_own_is_exported(few: Any, tmp_path: Path) -> None:
    import keras

    image = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(3, 3)(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.ops.softmax(keras.ops.mean(x, axis=(1, 2))))
    assert to_tflite(model, tmp_path / "x.tflite", "int8", few).exists()


def legacy() -> Any:
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    image = tf_keras.Input((SIDE, SIDE, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2)(layers.Rescaling(1 / 255)(image)))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Dropout(0.2)(x)))
    return tf_keras.Model(image, layers.Dense(3, activation="softmax")(x), name="legacy")


def test_model_of_tf_keras_is_exported(few: Any, tmp_path: Path) -> None:
    from keras_effnet.export import load

    model = legacy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = to_tflite(model, tmp_path / "x.tflite", "int8", few)
        onnx = to_onnx(model, tmp_path / "x.onnx", "float32")
    expected = model.predict(few, verbose=0)
    assert np.abs(load(path)(few) - expected).max() < 0.03
    assert np.abs(load(onnx)(few) - expected).max() < 1e-5


def test_model_of_tf_keras_that_keras_3_cannot_read_is_told(few: Any, tmp_path: Path) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    import tensorflow as tf

    image = tf_keras.Input((SIDE, SIDE, 3))
    x = tf.nn.relu(tf_keras.layers.Conv2D(4, 3)(image))  # a TFOpLambda, which Keras 3 does not have
    model = tf_keras.Model(image, tf_keras.layers.GlobalAveragePooling2D()(x), name="legacy")
    assert_one_line(model, few, tmp_path, "a model of tf_keras that Keras 3 can read", "'legacy'")
