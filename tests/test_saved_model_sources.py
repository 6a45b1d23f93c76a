"""SavedModel folders as models to export: with the layers that Keras 2 left in them, or as functions alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import assert_refused, build_nano, outputs, randomize

from keras_effnet.cli import main
from keras_effnet.errors import EffNetError, ExportError, InvalidInputError
from keras_effnet.export import from_saved_model, load, to_onnx, to_saved_model, to_tflite, verify


def legacy_body(layers: Any, x: Any) -> Any:
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2)(layers.Rescaling(1 / 255)(x)))
    return layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Dropout(0.2)(x)))


def saved_by_keras_2(folder: Path, body: Any = legacy_body) -> tuple[Path, Any]:
    tf_keras = pytest.importorskip("tf_keras")
    image = tf_keras.Input((32, 32, 3))
    x = tf_keras.layers.Dense(3, activation="softmax")(body(tf_keras.layers, image))
    model = tf_keras.Model(image, x, name="legacy")
    randomize(model)
    model.save(folder / "old")
    return folder / "old", model


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return saved_by_keras_2(tmp_path_factory.mktemp("keras_2"))


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """What `model.export` of Keras 3 writes."""
    model, folder = build_nano(), tmp_path_factory.mktemp("keras_3") / "exported"
    model.export(folder, verbose=False)
    return folder, model


def test_folder_that_keras_2_saved_gives_its_layers_back(old: Any, pixels32: Any, tmp_path: Path) -> None:
    folder, saved = old
    model = from_saved_model(folder)
    assert type(model.layers[2]).__name__ == "Conv2D"
    expected = saved.predict(pixels32, verbose=0)
    assert np.abs(outputs(model, pixels32.astype(np.float32)) - expected).max() < 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # no island, no plain path
        files = [
            to_tflite(model, tmp_path / "a.tflite", "int8", pixels32),
            to_onnx(model, tmp_path / "a.onnx", "int8", pixels32),
        ]
    for file in files:
        assert np.abs(load(file)(pixels32) - expected).max() < 0.03


def test_folder_that_keras_2_saved_leaves_by_command(old: Any, tmp_path: Path) -> None:
    assert main(["export", str(old[0]), "--to", "tflite:float32", "--out", str(tmp_path), "--quiet"]) == 0
    assert (tmp_path / "old_float32.tflite").is_file()


def test_lambda_in_a_folder_is_refused(tmp_path: Path) -> None:
    folder, _ = saved_by_keras_2(
        tmp_path, lambda layers, x: layers.Flatten()(layers.Lambda(lambda y: y / 255)(x))
    )
    with pytest.raises(InvalidInputError, match=r"one with a Lambda layer, whose code would have to be run"):
        from_saved_model(folder)


def test_layers_that_keras_3_does_not_have_are_told(tmp_path: Path) -> None:
    import tensorflow as tf

    folder, _ = saved_by_keras_2(tmp_path, lambda layers, x: layers.Flatten()(tf.nn.relu(x)))
    with pytest.raises(
        ExportError, match=r"a model of tf_keras that Keras 3 can read. Received: 'legacy'"
    ) as told:
        from_saved_model(folder)
    assert "\n" not in str(told.value)


def test_folder_of_functions_leaves_in_float(functions: Any, pixels32: Any, tmp_path: Path) -> None:
    folder, saved = functions
    with pytest.warns(UserWarning, match="holds functions and no layers"):
        model = from_saved_model(folder)
    for write, name in ((to_tflite, "a.tflite"), (to_onnx, "a.onnx"), (to_saved_model, "a")):
        assert verify(saved, write(model, tmp_path / name), pixels32).ok


def test_functions_alone_have_plain_integers_in_tflite_and_none_in_onnx(
    functions: Any, pixels32: Any, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = from_saved_model(functions[0])
    with pytest.warns(UserWarning, match="'saved_model', a TFSMLayer.*Taking the plain path"):
        path = to_tflite(model, tmp_path / "a.tflite", "int8", pixels32)
    assert np.abs(load(path)(pixels32) - outputs(functions[1], pixels32.astype(np.float32))).max() < 0.1
    with pytest.raises(ExportError, match="'saved_model', a TFSMLayer") as told:
        to_onnx(model, tmp_path / "a.onnx", "int8", pixels32)
    assert "\n" not in str(told.value)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tflite"]


def test_what_is_no_folder_of_a_network_is_refused(tmp_path: Path, functions: Any) -> None:
    import tensorflow as tf

    with pytest.raises(InvalidInputError, match=r"Expected a SavedModel folder. .*no saved_model.pb"):
        from_saved_model(tmp_path)
    module = tf.Module()
    module.f = tf.function(lambda x, y: x + y, [tf.TensorSpec([None, 3]), tf.TensorSpec([None, 3])])
    tf.saved_model.save(module, str(tmp_path / "sum"), signatures=module.f)
    with pytest.raises(InvalidInputError, match=r"takes one batch of pictures, float32 \[N, H, W, C\]"):
        from_saved_model(tmp_path / "sum")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(EffNetError, match=r"Expected a complete SavedModel") as told:
        from_saved_model(tmp_path / "broken")
    assert "\n" not in str(told.value)


def test_functions_alone_are_no_model_for_the_command_line(
    functions: Any, capsys: Any, tmp_path: Path
) -> None:
    command = ["export", str(functions[0]), "--to", "tflite:float32", "--out", str(tmp_path / "out")]
    assert_refused(command, "Exported files have lost the layers", capsys)


def test_path_as_a_model_is_told_how_to_read_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"Received: the path 'old'.*from_saved_model"):
        to_tflite("old", tmp_path / "a.tflite")
