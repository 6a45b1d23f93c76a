"""What a graph does to a pixel: the named conventions, and mean and standard deviation of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import randomize

from keras_effnet import EfficientNet, export, preprocess_input
from keras_effnet.errors import InvalidInputError
from keras_effnet.network.conventions import (
    CONVENTIONS,
    Convention,
    composed,
    convention_with,
    get_convention,
    input_constants,
)

PIXELS = np.array([[[0, 128, 255]]], np.uint8)


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        ("imagenet", [-2.1179039, 0.2051821, 2.64]),
        ("advprop", [-1.0, 0.0039216, 1.0]),
        ("lite", [-0.9921875, 0.0078125, 1.0]),
        ("unit", [0.0, 0.5019608, 1.0]),
        ((0.5, 0.25), [-2.0, 0.0078431, 2.0]),
        (((0.4, 0.5, 0.6), (0.2, 0.25, 0.5)), [-2.0, 0.0078431, 0.8]),
        ((np.array([0.4, 0.5, 0.6]), 0.2), [-2.0, 0.0098039, 2.0]),
        (Convention(scale=(2.0,), offset=(1.0,)), [1.0, 257.0, 511.0]),
    ],
)
def test_preprocessing_does_to_a_pixel_what_it_says(
    tiny_variant: Any, preprocessing: Any, expected: list[float]
) -> None:
    np.testing.assert_allclose(
        preprocess_input(PIXELS, convention=preprocessing).ravel(), expected, atol=1e-6
    )
    model = EfficientNet(tiny_variant, weights=None, include_top=False, preprocessing=preprocessing)
    layer = next(layer for layer in model.layers if layer.name.startswith("rescaling"))
    np.testing.assert_allclose(np.ravel(layer(PIXELS)), expected, atol=1e-6)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_constants_of_a_named_convention_get_its_name(name: str) -> None:
    known = CONVENTIONS[name]
    mean, std = -np.array(known.offset) / (255 * np.array(known.scale)), 1 / (255 * np.array(known.scale))
    assert get_convention((mean, std)) is known
    assert convention_with(*known.for_channels(1)) is known


def test_argument_in_a_message_can_be_typed_back() -> None:
    own = get_convention(((0.31, 0.42, 0.27), (0.2, 0.3, 0.25)))
    assert own.argument == "((0.31, 0.42, 0.27), (0.2, 0.3, 0.25))"
    assert get_convention(eval(own.argument)).same_as(own)
    assert get_convention((0.5, 0.25)).argument == "(0.5, 0.25)"
    assert CONVENTIONS["unit"].argument == "'unit'"


def test_model_knows_its_convention_and_says_it_in_words(tiny_variant: Any) -> None:
    unit = EfficientNet(tiny_variant, weights=None, include_top=False, preprocessing="unit")
    assert convention_with(*composed(input_constants(unit))).name == "unit"
    own = EfficientNet(tiny_variant, weights=None, include_top=False, preprocessing=(0.5, 0.25))
    formula = convention_with(*composed(input_constants(own))).formula
    assert formula == "x * [0.0156863 0.0156863 0.0156863] + [-2 -2 -2]"


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        ("units", "Did you mean 'unit'"),
        ((123.7, 58.4), r"a mean in \[0, 1\].*Divide by 255 what was measured on pixels 0–255"),
        ((0.5, 0.0), r"or \(mean, std\) of pixels 0–1"),
        ((0.5,), r"Received: \(0\.5,\)"),
        (((0.5, 0.5), (0.1, 0.2, 0.3)), r"or \(mean, std\)"),
        ((0.5, float("nan")), r"or \(mean, std\)"),
        (("a", "b"), r"or \(mean, std\)"),
        (5, r"imagenet, advprop, lite, unit, or \(mean, std\).*Received: 5"),
    ],
)
def test_preprocessing_that_cannot_be_used_is_one_clear_line(
    tiny_variant: Any, preprocessing: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        EfficientNet(tiny_variant, weights=None, preprocessing=preprocessing)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scale", "offset"), [((), ()), ((1.0,), (1.0, 2.0)), ((0.0,), (1.0,)), ((float("inf"),), (0.0,))]
)
def test_convention_of_impossible_constants_is_refused(scale: Any, offset: Any) -> None:
    with pytest.raises(InvalidInputError, match="finite scale, not 0, and a finite offset"):
        Convention(scale=scale, offset=offset)


@pytest.mark.parametrize(
    ("preprocessing", "formula"),
    [("unit", "x / 255"), ((0.4, 0.2), "x * [0.0196078 0.0196078 0.0196078] + [-2 -2 -2]")],
    ids=["unit", "own"],
)
def test_exported_file_verifies_and_says_what_it_does_to_a_pixel(
    tmp_path: Path, tiny_variant: Any, pixels64: Any, preprocessing: Any, formula: str
) -> None:
    pytest.importorskip("onnx")
    model = EfficientNet(tiny_variant, weights=None, classes=7, preprocessing=preprocessing)
    randomize(model)
    path = export.to_onnx(model, tmp_path / "model.onnx")
    assert export.verify(model, path, pixels64).ok
    assert export.load(path).info.preprocessing == formula
