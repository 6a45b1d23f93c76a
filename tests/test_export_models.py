"""Models that people bring: in half precision, nested, sequential, with layers of their own in front."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from material import build_nano, exported, randomize, slim_variant

from keras_effnet import EfficientNet, export, load_weights
from keras_effnet.errors import ExportError, InvalidInputError
from keras_effnet.export.model_facts import facts_of, info_of
from keras_effnet.export.options import Options
from keras_effnet.export.precision import in_float32
from keras_effnet.export.targets import parse_target, write_artefact
from keras_effnet.network.reader import flat_layers

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


def write(model: Any, path: Path, target: str, calibration: Any) -> Path:
    """Export to any target."""
    row = parse_target(target)
    return write_artefact(row, facts_of(model), path, Options(), calibration)


def names(model: Any) -> list[str]:
    """Of the layers; Keras gives a clone's inputs names of their own."""
    return [layer.name for layer in flat_layers(model) if not isinstance(layer, keras.layers.InputLayer)]


@pytest.fixture(scope="module")
def half() -> Any:
    """In mixed precision, and a model inside a model."""
    with policy("mixed_float16"):
        base = build_nano()
        image = keras.Input((32, 32, 3))
        model = keras.Model(image, keras.layers.Dense(7, dtype="float32")(base(image)), name="mine")
    randomize(model)
    return model


@pytest.mark.parametrize("ending", EXPORTERS)
def test_mixed_precision_model_leaves_in_float32(
    half: Any, pixels32: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str
) -> None:
    path = EXPORTERS[ending](half, tmp_path / f"model{ending}")
    assert "error" not in capfd.readouterr().err
    report = export.verify(half, path, pixels32)
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


@pytest.mark.parametrize(
    ("convention", "formula"),
    [("lite", "(x - 127) / 128"), ("advprop", "x * 2 / 255 - 1")],
)
def test_nested_model_tells_its_preprocessing(tiny_variant: Any, convention: str, formula: str) -> None:
    info = info_of(nested(tiny_variant, preprocessing=convention))
    assert info.preprocessing == formula
    assert info.usage == f"inside the graph: {formula}; pass RGB pixels 0-255"


def test_nested_lite_backbone_keeps_its_variant_and_framing() -> None:
    info = info_of(nested("lite0"))
    assert (info.variant, info.interpolation) == ("lite0", "bilinear")


def test_scaling_in_front_of_the_backbone_is_told_as_well(tiny_variant: Any) -> None:
    inputs = keras.Input((64, 64, 3))
    base = EfficientNet(
        tiny_variant, weights=None, preprocessing="lite", include_top=False, input_shape=(64, 64, 3)
    )
    outputs = keras.layers.Rescaling(3.0)(base(keras.layers.Rescaling(255.0)(inputs)))
    told = info_of(keras.Model(inputs, outputs)).preprocessing
    assert told == "x * [1.99219 1.99219 1.99219] + [-0.992188 -0.992188 -0.992188]"


def test_normalization_layer_counts_as_preprocessing() -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Normalization(mean=[127.0] * 3, variance=[128.0**2] * 3)(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(x))
    assert info_of(model).preprocessing == "(x - 127) / 128"


def test_artefact_without_preprocessing_asks_for_preprocessed_pixels(tmp_path: Path) -> None:
    model = EfficientNet(slim_variant(), weights=None, classes=7, include_preprocessing=False)
    path = export.to_onnx(model, tmp_path / "a.onnx")
    (told,) = (entry.value for entry in onnx.load(path).metadata_props if entry.key == "preprocessing")
    assert told == "none inside the graph; pass pixels that are preprocessed already"


def test_load_weights_names_the_model_inside(tiny_variant: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"'mine', a model around 'tiny'.*model.get_layer\('tiny'\)"):
        load_weights(nested(tiny_variant), "imagenet")


def test_two_labels_may_be_the_same(tiny: Any) -> None:
    names = ("crane", "crane", *"abcde")  # as in ImageNet, where one is a bird
    assert facts_of(tiny, labels=names).labels == names


def test_sequential_around_a_backbone_goes_to_onnx(pixels32: Any, tmp_path: Path) -> None:
    base = EfficientNet(
        slim_variant(), weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3)
    )
    model = keras.Sequential([base, keras.layers.Dense(7, activation="softmax")], name="row")
    randomize(model)
    path = export.to_onnx(model, tmp_path / "row.onnx")
    assert export.verify(model, path, pixels32).ok
    assert export.load(path).info.name == "row"


@pytest.fixture(params=["channels_first", "bfloat16"])
def other_setting(request: pytest.FixtureRequest) -> Iterator[str]:
    """A global setting of Keras that a person has for something else."""
    name, before = request.param, keras.config.image_data_format()
    with policy("float32" if name == "channels_first" else name):
        if name == "channels_first":
            keras.config.set_image_data_format(name)
        yield name
        keras.config.set_image_data_format(before)


@pytest.mark.parametrize("target", ["tflite:int8", "onnx:float32", "onnx:int8"])
def test_model_leaves_as_it_is_whatever_keras_is_set_to(
    nano: Any, pixels32: Any, tmp_path: Path, other_setting: str, target: str
) -> None:
    settings = (keras.config.dtype_policy(), keras.config.image_data_format())
    path = write(nano, tmp_path / f"m{parse_target(target).suffix}", target, pixels32)
    report = export.verify(nano, path, pixels32, raise_on_failure=False)
    assert report.max_abs_error < (1e-5 if "float32" in target else 0.03)
    assert (keras.config.dtype_policy(), keras.config.image_data_format()) == settings


def test_model_with_channels_first_is_refused(tmp_path: Path) -> None:
    image = keras.Input((3, 32, 32))
    x = keras.layers.Conv2D(4, 3, data_format="channels_first", name="stem")(image)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D(data_format="channels_first")(x))
    with pytest.raises(
        InvalidInputError, match=r"\[N, height, width, channels\].*'stem', which has its channels"
    ):
        export.to_onnx(model, tmp_path / "x.onnx")


@pytest.mark.parametrize("ending", EXPORTERS)
def test_keras_file_of_a_bfloat16_policy_leaves_in_float32(
    pixels32: Any, tmp_path: Path, ending: str
) -> None:
    with policy("bfloat16"):
        trained = build_nano()
    trained.save(tmp_path / "trained.keras")
    model = keras.saving.load_model(tmp_path / "trained.keras", compile=False)
    assert model.get_layer("stem_conv").variable_dtype == "bfloat16"
    exact = build_nano()
    exact.set_weights(trained.get_weights())
    path = EXPORTERS[ending](model, tmp_path / f"model{ending}")
    for judge in (model, exact):
        assert export.verify(judge, path, pixels32).max_abs_error <= 1e-5


@pytest.fixture(scope="module")
def legacy() -> Any:
    """A model of Keras 2, as people have from `tf_keras`."""
    layers = pytest.importorskip("tf_keras").layers
    keras.utils.set_random_seed(0)  # some random weights are further from their 8 bits than the tests allow
    image = layers.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="swish")(layers.Rescaling(1 / 255)(image))
    outputs = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return __import__("tf_keras").Model(image, outputs, name="legacy")


@pytest.mark.parametrize("target", ["saved_model", "tflite:float32", "tflite:weight_int8", "onnx:float32"])
def test_tf_keras_model_leaves_too(legacy: Any, pixels32: Any, tmp_path: Path, target: str) -> None:
    path = write(legacy, tmp_path / f"m{parse_target(target).suffix}", target, pixels32)
    assert export.verify(legacy, path, pixels32, raise_on_failure=False).max_abs_error < 1e-3


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_tf_keras_model_leaves_in_integers(legacy: Any, pixels32: Any, tmp_path: Path) -> None:
    for path in (
        export.to_tflite(legacy, tmp_path / "m.tflite", "int8", pixels32),
        export.to_onnx(legacy, tmp_path / "m.onnx", "int8", pixels32),
    ):
        assert export.verify(legacy, path, pixels32, raise_on_failure=False).sqnr_db > 15


@pytest.mark.parametrize("first", [keras.layers.Conv2D, keras.layers.DepthwiseConv2D])
def test_model_that_divides_by_255_leaves_in_integers(first: Any, pixels32: Any, tmp_path: Path) -> None:
    image = keras.Input((32, 32, 3))
    kernel = (8, 3) if first is keras.layers.Conv2D else (3,)
    x = first(*kernel, strides=2, activation="swish")(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    randomize(model)
    path = export.to_tflite(model, tmp_path / "m.tflite", "int8", pixels32)
    assert export.verify(model, path, pixels32, raise_on_failure=False).sqnr_db > 20


@pytest.fixture(scope="module")
def two_in_one() -> Any:
    """Two backbones in one flat model, their features side by side."""
    image = keras.Input((32, 32, 3))

    def features(prefix: str) -> Any:
        def renamed(layer: Any) -> Any:
            return type(layer).from_config(layer.get_config() | {"name": f"{prefix}{layer.name}"})

        branch = keras.models.clone_model(build_nano(), input_tensors=image, clone_function=renamed)
        return branch.get_layer(f"{prefix}avg_pool").output

    joined = keras.layers.Concatenate()([features("left_"), features("right_")])
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(joined), name="both")
    randomize(model)
    return model


@pytest.mark.parametrize("target", ["tflite:float32", "onnx:float32"])
def test_two_backbones_in_one_flat_model_leave_together(
    two_in_one: Any, pixels32: Any, tmp_path: Path, target: str
) -> None:
    path = write(two_in_one, tmp_path / f"m{parse_target(target).suffix}", target, pixels32)
    assert export.verify(two_in_one, path, pixels32).ok


def test_two_backbones_in_one_flat_model_leave_in_integers(
    two_in_one: Any, pixels32: Any, tmp_path: Path
) -> None:
    for path in (
        export.to_tflite(two_in_one, tmp_path / "m.tflite", "int8", pixels32),
        export.to_onnx(two_in_one, tmp_path / "m.onnx", "int8", pixels32),
    ):
        assert export.verify(two_in_one, path, pixels32, raise_on_failure=False).max_abs_error < 0.05


def test_saved_model_of_feature_maps_reads_encoded_pictures(tmp_path: Path) -> None:
    import tensorflow as tf

    image = keras.Input((32, 32, 3))
    path = export.to_saved_model(keras.Model(image, keras.layers.Conv2D(4, 3)(image)), tmp_path / "m")
    picture = tf.io.encode_png(np.zeros((32, 32, 3), np.uint8))
    signature = tf.saved_model.load(str(path)).signatures["serve_bytes"]
    (maps,) = signature(image_bytes=tf.stack([picture] * 2)).values()
    assert maps.shape == (2, 30, 30, 4) and np.isfinite(maps).all()


def test_model_is_described_once_for_all_its_files(
    nano: Any, pixels32: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identified = []
    monkeypatch.setattr("keras_effnet.export.model_facts.identify", identified.append)
    artefacts = exported(nano, tmp_path, pixels32, "onnx:float32", "tflite:int8")
    assert identified == [nano]
    assert [artefact.file for artefact in artefacts] == ["nano_float32.onnx", "nano_int8.tflite"]
