"""Weights in models that differ from the published ones: head, channels, preprocessing, padding."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_effnet
from keras_effnet.errors import EffNetWarning, InvalidInputError, WeightsError
from keras_effnet.weights.convert import convert
from keras_effnet.weights.facts import built_with
from tests.material import outputs
from tests.weights import foreign

Built = Callable[..., Any]


def layer_values(model: Any, layer: str) -> list[np.ndarray]:
    return [np.array(value) for value in model.get_layer(layer).get_weights()]


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lite0")
    return foreign.write(folder, "lite0", foreign.random_layers("lite0"), "timm")


@pytest.fixture(scope="module")
def b0_torchvision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("b0")
    return foreign.write(folder, "b0", foreign.random_layers("b0"), "torchvision")


def test_other_class_count_keeps_the_fresh_head_and_says_so_once(lite0: Path, built: Built) -> None:
    model = built("lite0", classes=7)
    before = layer_values(model, "predictions")
    with pytest.warns(UserWarning, match=r"^Expected 7 classes in .* Received: 1000\. .*train it") as said:
        keras_effnet.load_weights(model, lite0)
    assert len([warning for warning in said if warning.category is EffNetWarning]) == 1
    assert all(np.array_equal(a, b) for a, b in zip(before, layer_values(model, "predictions"), strict=True))
    assert np.array_equal(
        layer_values(model, "top_conv")[0], foreign.random_layers("lite0")["top_conv"]["kernel"]
    )


def test_transfer_classifier_does_not_warn_about_its_new_head(lite0: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        keras_effnet.transfer.classifier("lite0", 7, weights=lite0, input_shape=(64, 64, 3))


def test_file_with_another_head_names_the_classes_to_build_with(tmp_path: Path, built: Built) -> None:
    path = foreign.write(tmp_path, "lite0", foreign.random_layers("lite0", classes=12), "timm")
    with pytest.raises(WeightsError, match=r"The file has 12 classes: build the model with classes=12\."):
        keras_effnet.load_weights(built("lite0"), path)


def test_file_with_its_own_head_loads_when_the_classes_agree(tmp_path: Path) -> None:
    layers = foreign.random_layers("lite0", classes=12)
    path = foreign.write(tmp_path, "lite0", layers, "timm")
    model = keras_effnet.EfficientNetLite0(weights=path, classes=12, input_shape=(64, 64, 3))
    assert np.array_equal(layer_values(model, "predictions")[0], layers["predictions"]["kernel"])


def test_model_without_top_ignores_the_classifier(lite0: Path, built: Built) -> None:
    model = built("lite0", include_top=False)
    keras_effnet.load_weights(model, lite0)
    assert np.array_equal(
        layer_values(model, "stem_conv")[0], foreign.random_layers("lite0")["stem_conv"]["kernel"]
    )


def test_file_without_classifier_is_refused_by_a_model_with_one(tmp_path: Path, built: Built) -> None:
    path = foreign.write(tmp_path, "lite0", foreign.random_layers("lite0", top=False), "timm")
    with pytest.raises(WeightsError, match="build the model with include_top=False"):
        keras_effnet.load_weights(built("lite0"), path)


def test_gray_model_gives_what_three_equal_channels_gave(
    lite0: Path, built: Built, pictures: np.ndarray
) -> None:
    # exact for Lite, whose preprocessing is the same for every channel
    gray = built("lite0", input_shape=(64, 64, 1), classifier_activation=None)
    color = built("lite0", classifier_activation=None)
    for model in (gray, color):
        keras_effnet.load_weights(model, lite0)
    shades = pictures[..., :1]
    expected = outputs(color, np.repeat(shades, 3, axis=-1))
    np.testing.assert_allclose(outputs(gray, shades), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("channels", [2, 4, 6, 7])
def test_kernel_for_more_channels_takes_turns_and_keeps_its_sum(
    lite0: Path, built: Built, channels: int
) -> None:
    model = built("lite0", input_shape=(64, 64, channels), include_top=False)
    keras_effnet.load_weights(model, lite0)
    rgb = foreign.random_layers("lite0")["stem_conv"]["kernel"]
    found = layer_values(model, "stem_conv")[0]
    for index in range(channels):
        np.testing.assert_allclose(found[:, :, index], rgb[:, :, index % 3] * 3 / channels, rtol=1e-6)


def test_weights_fit_any_resolution(lite0: Path) -> None:
    model = keras_effnet.EfficientNetLite0(weights=lite0, input_shape=(96, 160, 3))
    assert model.output_shape == (None, 1000)
    assert np.array_equal(
        layer_values(model, "stem_conv")[0], foreign.random_layers("lite0")["stem_conv"]["kernel"]
    )


@pytest.mark.parametrize(
    ("given", "wanted", "layer"),
    [
        ("lite1", "lite0", "block2c_expand_conv"),
        ("lite2", "lite0", "block3a_project_conv"),
        ("b0", "lite0", "block1a_se_reduce"),
        ("lite0", "b0", "block1a_se_reduce"),
    ],
)
def test_weights_of_another_variant_are_recognized(
    tmp_path: Path, built: Built, given: str, wanted: str, layer: str
) -> None:
    path = foreign.write(tmp_path, given, foreign.random_layers(given), "lukemelas")
    model = built(wanted)
    before = layer_values(model, "stem_conv")[0]
    with pytest.raises(
        WeightsError, match=f"layer '({layer})' differs first.*These look like {given} weights"
    ):
        keras_effnet.load_weights(model, path)
    assert np.array_equal(before, layer_values(model, "stem_conv")[0])


def test_error_shows_both_shapes(tmp_path: Path, built: Built) -> None:
    layers = foreign.random_layers("lite0")
    layers["top_conv"]["kernel"] = layers["top_conv"]["kernel"][..., :640]
    path = foreign.write(tmp_path, "lite0", layers, "timm")
    ours, theirs = r"\[1, 1, 320, 1280\]", r"\[1, 1, 320, 640\]"
    both = f"'top_conv' differs first: the model has kernel {ours}.*has kernel {theirs}"
    with pytest.raises(WeightsError, match=both):
        keras_effnet.load_weights(built("lite0"), path)


@pytest.mark.parametrize("layer", ["stem_bn", "block4b_dwconv", "top_conv"])
def test_missing_layer_is_named(tmp_path: Path, built: Built, layer: str) -> None:
    layers = foreign.random_layers("lite0")
    del layers[layer]
    path = tmp_path / "missing.safetensors"
    foreign.write_safetensors(path, {f"{a}.{b}": value for a, w in layers.items() for b, value in w.items()})
    with pytest.raises(WeightsError, match=f"layer '{layer}' differs first.*no such layer"):
        keras_effnet.load_weights(built("lite0"), path)


def test_left_over_layer_is_named(tmp_path: Path, built: Built) -> None:
    layers = foreign.random_layers("lite0")
    layers["block9a_dwconv"] = {"kernel": np.zeros((3, 3, 8, 1), np.float32)}
    path = tmp_path / "more.safetensors"
    foreign.write_safetensors(path, {f"{a}.{b}": value for a, w in layers.items() for b, value in w.items()})
    with pytest.raises(WeightsError, match=r"'block9a_dwconv' differs first: the model has no such layer"):
        keras_effnet.load_weights(built("lite0"), path)


def test_weights_of_whole_numbers_are_refused(tmp_path: Path, built: Built) -> None:
    state = foreign.state_dict("lite0", foreign.random_layers("lite0"), "timm")
    state["conv_stem.weight"] = state["conv_stem.weight"].astype(np.int64)
    foreign.write_torch(tmp_path / "int.pth", state)
    with pytest.raises(WeightsError, match=r"'stem_conv' of .* has int64"):
        keras_effnet.load_weights(built("lite0"), tmp_path / "int.pth")


@pytest.mark.parametrize(
    "flags", [{"padding": "same"}, {"epsilon": 1e-3}, {"padding": "symmetric", "epsilon": 1e-3}], ids=str
)
def test_torchvision_weights_name_the_flags_to_build_with(
    b0_torchvision: Path, flags: dict[str, Any]
) -> None:
    with pytest.raises(
        InvalidInputError, match=r"Build the model with .*(padding='symmetric'|epsilon=1e-05)"
    ):
        keras_effnet.EfficientNetB0(weights=b0_torchvision, **flags)


@pytest.mark.parametrize("flags", [{}, {"padding": "symmetric", "epsilon": 1e-5}], ids=str)
def test_torchvision_weights_decide_padding_and_epsilon_that_nobody_asked_for(
    b0_torchvision: Path, flags: dict[str, Any]
) -> None:
    model = keras_effnet.EfficientNetB0(weights=b0_torchvision, input_shape=(64, 64, 3), **flags)
    assert np.array_equal(
        layer_values(model, "top_conv")[0], foreign.random_layers("b0")["top_conv"]["kernel"]
    )
    made = built_with(model)
    assert (made["padding"], made["epsilon"]) == ("symmetric", 1e-5)


def test_built_model_with_other_flags_is_refused_and_unchanged(b0_torchvision: Path, built: Built) -> None:
    model = built("b0")
    before = layer_values(model, "stem_conv")[0]
    with pytest.raises(WeightsError, match=r"Build it with padding='symmetric', epsilon=1e-05\."):
        keras_effnet.load_weights(model, b0_torchvision)
    assert np.array_equal(before, layer_values(model, "stem_conv")[0])


@pytest.fixture(scope="module")
def advprop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("advprop")
    source = foreign.write(folder, "b0", foreign.random_layers("b0"), "timm")
    return convert(source, folder / "b0.safetensors", preprocessing="advprop")


def test_advprop_weights_select_their_preprocessing(advprop: Path, pictures: np.ndarray) -> None:
    chosen = keras_effnet.EfficientNetB0(weights=advprop, input_shape=(64, 64, 3))
    assert chosen.get_layer("rescaling_advprop").scale == pytest.approx([2 / 255] * 3)
    assert chosen.get_layer("rescaling_advprop").offset == pytest.approx([-1.0] * 3)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_model_with_another_preprocessing_refuses_advprop_weights(
    advprop: Path, built: Built, channels: int
) -> None:
    model = built("b0", input_shape=(64, 64, channels))
    with pytest.raises(
        WeightsError, match=r"Expected a model built with preprocessing='advprop'.*preprocessing='imagenet'"
    ):
        keras_effnet.load_weights(model, advprop)


def test_explicit_other_preprocessing_refuses_advprop_weights(advprop: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"Build the model with preprocessing='advprop'"):
        keras_effnet.EfficientNetB0(weights=advprop, preprocessing="imagenet")


def test_file_of_unknown_origin_says_which_preprocessing_is_assumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = foreign.write(tmp_path, "b0", foreign.random_layers("b0"), "timm")
    with caplog.at_level(logging.INFO, logger="keras_effnet"):
        keras_effnet.EfficientNetB0(weights=path, input_shape=(64, 64, 3))
    assert "'imagenet' is assumed. Pass preprocessing='advprop'" in caplog.text


def test_half_precision_weights_load_into_a_float32_model(tmp_path: Path, built: Built) -> None:
    layers = foreign.random_layers("lite0")
    half = {layer: {key: value.astype(np.float16) for key, value in w.items()} for layer, w in layers.items()}
    keras_effnet.load_weights(built("lite0"), foreign.write(tmp_path, "lite0", half, "safetensors"))
    found = layer_values(built("lite0"), "top_conv")[0]
    assert np.array_equal(found, half["top_conv"]["kernel"].astype(np.float32))
