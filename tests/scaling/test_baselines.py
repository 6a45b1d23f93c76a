"""Stage tables against keras.applications, and tables that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import outputs, randomize, without_values

from keras_effnet import baselines
from keras_effnet.baselines import EFFICIENTNET_B0, RESNET50, RESNET50_V15, Baseline, Stage, build, cost_of
from keras_effnet.baselines.keras_weights import copy_weights
from keras_effnet.costs import cost
from keras_effnet.errors import InvalidInputError, WeightsError
from keras_effnet.network.table import BASELINES, Convention, scaled
from keras_effnet.scaling import CompoundScaling

TWINS = {
    # ours: keras.applications', its preprocessing, the published count of all weights
    "MobileNetV1": ("MobileNet", keras.applications.mobilenet.preprocess_input, 4_253_864),
    "MobileNetV2": ("MobileNetV2", keras.applications.mobilenet_v2.preprocess_input, 3_538_984),
    "ResNet50": ("ResNet50", keras.applications.resnet50.preprocess_input, 25_636_712),
}


def _shapes(model: Any) -> list[tuple[int, ...]]:
    """Shapes of all weights, without the sides of 1×1 kernels: a classifier may be either."""
    shapes = (tuple(weight.shape) for weight in model.weights)
    return sorted(shape[2:] if shape[:2] == (1, 1) and len(shape) == 4 else shape for shape in shapes)


@pytest.mark.parametrize("name", TWINS)
def test_baseline_equals_keras_applications(name: str, tmp_path: Path) -> None:
    theirs_name, preprocess, published = TWINS[name]
    twin = getattr(keras.applications, theirs_name)(weights=None)
    randomize(twin, seed=3)
    twin.save_weights(tmp_path / "twin.weights.h5")
    model = getattr(baselines, name)(weights=tmp_path / "twin.weights.h5")
    assert model.count_params() == twin.count_params() == published
    assert _shapes(model) == _shapes(twin)
    sides = [
        sorted(
            tuple(layer.output.shape[1:])
            for layer in network.layers
            if layer.name not in ("predictions", "conv_preds")
            and type(layer).__name__ in ("Conv2D", "DepthwiseConv2D", "BatchNormalization")
        )
        for network in (model, twin)
    ]
    assert sides[0] == sides[1]
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype("float32")
    mine = outputs(model, pixels)
    other = outputs(twin, preprocess(pixels.copy()))
    np.testing.assert_allclose(mine, other, rtol=2e-4, atol=1e-6)
    assert other.std() > 1e-5  # not the same for every class


def test_efficientnet_as_a_baseline_is_efficientnet() -> None:
    from keras_effnet import EfficientNetB0

    with without_values():
        model, twin = build(EFFICIENTNET_B0), EfficientNetB0(weights=None)
    pairs = zip(model.layers[1:], twin.layers[1:], strict=True)
    for mine, other in pairs:
        assert (mine.name, mine.output.shape) == (other.name, other.output.shape)
        config, expected = mine.get_config(), other.get_config()
        for entry in ("kernel_initializer", "gamma_initializer", "bias_initializer", "beta_initializer"):
            config.pop(entry, None), expected.pop(entry, None)
        assert config == expected, mine.name


@pytest.mark.parametrize(
    "scale", [{"depth": 1.4, "width": 1.2, "resolution": 96}, {"depth": 0.3, "width": 0.3, "resolution": 64}]
)
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "resnet50", "resnet50_v1.5"])
def test_scaled_baseline_costs_what_the_dry_run_counted(name: str, scale: dict[str, Any]) -> None:
    counted = cost_of(name, classes=3, **scale)
    with without_values():
        built = cost(build(name, classes=3, **scale))
    assert (built.macs, built.params, built.statistics) == (
        counted.macs,
        counted.params,
        counted.statistics,
    )
    assert [layer.output_shape for layer in built.per_layer] == [
        layer.output_shape for layer in counted.per_layer
    ]


def test_resolution_multiplies_convolutions_only() -> None:
    once, twice = cost_of("mobilenet_v2"), cost_of("mobilenet_v2", resolution=448)
    dense = 1280 * 1000
    assert twice.macs - dense == 4 * (once.macs - dense)


def test_strided_kernel_of_v15_costs_what_torchvision_counts() -> None:
    assert cost_of(RESNET50_V15).macs == 4_089_184_256  # torchvision documents 4.09 G
    assert cost_of(RESNET50_V15).params == 25_557_032


def test_weights_of_a_scaled_baseline_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"with depth=1 and width=1\. Received: weights='imagenet'"):
        baselines.MobileNetV2(width=1.4, weights="imagenet")
    with pytest.raises(InvalidInputError, match="only for MobileNetV1"):
        build(RESNET50_V15, weights="imagenet")


def test_missing_weight_file_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"Expected 'imagenet' or a weight file.*'none\.h5'"):
        baselines.MobileNetV2(weights="none.h5")


def test_copying_from_another_network_names_the_layer(small: Baseline) -> None:
    model = build(small, classes=3)
    before = [array.copy() for array in model.get_weights()]
    with pytest.raises(
        WeightsError, match=r"Expected shapes .* in 'predictions'|Expected \d+ layers of kind"
    ):
        copy_weights(build(small, classes=4), model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_channel_convention_of_resnet_is_the_caffe_mean() -> None:
    assert RESNET50.preprocessing == Convention(
        scale=(1.0,) * 3, offset=(-123.68, -116.779, -103.939), formula="x - [123.68 116.779 103.939]"
    )


def test_table_that_does_not_chain_is_refused() -> None:
    row = Stage(repeats=1, kernel_size=3, stride=1, filters_in=24, filters_out=24)
    with pytest.raises(InvalidInputError, match=r"stage 1 of 'x' to take the 16 filters.*filters_in=24"):
        Baseline(name="x", title="X", stem_filters=16, stages=(row,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": "dense"}, "Expected block to be one of inverted"),
        ({"repeats": 0}, "whole numbers of at least 1"),
        ({"block": "separable", "se_ratio": 0.25}, "Only inverted blocks have squeeze-and-excite"),
    ],
)
def test_impossible_stage_is_refused(change: dict[str, Any], message: str) -> None:
    row: dict[str, Any] = {"repeats": 1, "kernel_size": 3, "stride": 1, "filters_in": 8, "filters_out": 8}
    with pytest.raises(InvalidInputError, match=message):
        Stage(**{**row, **change})


@pytest.mark.parametrize(("depth", "width"), [(0.0, 1.0), (1.0, -1.0), (float("inf"), 1.0)])
def test_impossible_scale_is_refused(depth: float, width: float) -> None:
    with pytest.raises(InvalidInputError, match="to be a factor above 0"):
        scaled(RESNET50, depth=depth, width=width)


def test_unknown_baseline_gets_the_nearest_name() -> None:
    with pytest.raises(InvalidInputError, match=r"Did you mean 'mobilenet_v2'"):
        build("mobilenet_v3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem_filters": 10}, r"multiples of 8.*stem_filters=10"),
        ({"filters_out": 20}, r"multiples of 8.*filters_out of stage 1=20"),
        ({"top_filters": 100}, r"multiples of 8.*top_filters=100"),
        ({"block": "bottleneck", "expand_ratio": 3}, r"filters_out / expand_ratio of stage 1=10\.6667"),
        ({"resolution": 97}, r"multiple of 8 pixels, at least 2\. Received: 97"),
        ({"resolution": 22, "resolution_multiple": 4}, r"multiple of 4 pixels, at least 2\. Received: 22"),
    ],
)
def test_table_that_scale_one_would_change_is_refused(changes: dict[str, Any], message: str) -> None:
    stem = changes.get("stem_filters", 16)
    row = {"repeats": 1, "kernel_size": 3, "stride": 1, "filters_in": stem, "filters_out": 32}
    row |= {key: value for key, value in changes.items() if key in ("filters_out", "block", "expand_ratio")}
    rest = {key: value for key, value in changes.items() if key not in row} | {"stem_filters": stem}
    with pytest.raises(InvalidInputError, match=message):
        Baseline(name="odd", title="Odd", stages=(Stage(**row),), **rest)


def test_small_inputs_go_where_the_halvings_leave_a_pixel() -> None:
    assert {table.smallest for table in BASELINES.values()} == {32}
    row = Stage(repeats=1, kernel_size=3, stride=2, filters_in=8, filters_out=16)
    sides: dict[str, Any] = {"resolution": 14, "resolution_multiple": 2}
    table = Baseline(name="own", title="Own", stages=(row,), stem_filters=8, **sides)
    assert table.smallest == 4
    assert CompoundScaling(baseline=table).at(1).resolution == 16  # 16.1
    smallest = build(table, resolution=4, classes=3)
    assert smallest.get_layer("block1a_project_bn").output.shape == (None, 1, 1, 16)
    with pytest.raises(InvalidInputError, match=r"sides of at least 4\. Received: \(3, 3, 3\)"):
        build(table, resolution=3)


def test_table_is_itself_at_scale_one() -> None:
    row = Stage(
        repeats=2, kernel_size=3, stride=1, filters_in=24, filters_out=72, expand_ratio=3, block="bottleneck"
    )
    table = Baseline(name="own", title="Own", stages=(row,), stem_filters=24, top_filters=104, resolution=40)
    at_one = scaled(table)
    assert (at_one.stem_filters, at_one.top_filters) == (24, 104)
    assert [(block.filters_out, block.expanded_filters) for block in at_one.blocks] == [(72, 24)] * 2
