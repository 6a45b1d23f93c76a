"""Feature maps of several strides: which they are, their weights, and what is refused."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import randomize

import keras_effnet
from keras_effnet import EfficientNet, EfficientNetB0, load_weights
from keras_effnet.errors import InvalidInputError, WeightsError
from keras_effnet.network.variants import VARIANTS, identify

ALL = (1, 2, 3, 4, 5)
# the last map of each stride of B0: height at 64 px, channels (timm's `features_only` has the same), layer
B0 = {
    "reduction_1": (32, 16, "block1a_project_bn"),
    "reduction_2": (16, 24, "block2b_add"),
    "reduction_3": (8, 40, "block3b_add"),
    "reduction_4": (4, 112, "block5c_add"),
    "reduction_5": (2, 320, "block7a_project_bn"),
}


def test_endpoints_are_the_last_maps_of_keras_applications(pixels64: Any) -> None:
    # keras.applications' B0 divides by 255 and no more as long as it has no weights
    peer = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(64, 64, 3))
    model = EfficientNetB0(False, None, None, (64, 64, 3), endpoints=ALL, preprocessing="unit")
    randomize(model)
    for layer in model.layers:
        if layer.weights:
            peer.get_layer(layer.name).set_weights(layer.get_weights())
    assert {name: tuple(map_.shape[1:]) for name, map_ in model.output.items()} == {
        name: (side, side, channels) for name, (side, channels, _) in B0.items()
    }
    theirs = keras.Model(peer.input, {name: peer.get_layer(layer).output for name, (*_, layer) in B0.items()})
    expected, found = (each.predict(pixels64[:2], verbose=0) for each in (theirs, model))
    for name in B0:
        assert expected[name].std() > 1e-3
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4 * np.abs(expected[name]).max())
    assert identify(model) == VARIANTS["b0"]


@pytest.fixture(scope="module")
def backbone(tiny_variant: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A whole one with weights, and their file."""
    model = EfficientNet(tiny_variant, False, None, input_shape=(64, 64, 3))
    randomize(model)
    path = tmp_path_factory.mktemp("endpoints") / "backbone.weights.h5"
    model.save_weights(path)
    return model, path


@pytest.mark.parametrize("late", [False, True])
def test_some_endpoints_need_no_more_blocks_and_take_the_weights_of_the_backbone(
    tiny_variant: Any, backbone: tuple[Any, Path], pixels64: Any, late: bool
) -> None:
    whole, file = backbone
    options: dict[str, Any] = {"input_shape": (64, 64, 3), "endpoints": (np.int64(3), 2)}
    options["preprocessing"] = "imagenet"
    model = EfficientNet(tiny_variant, False, None if late else file, **options)
    if late:
        load_weights(model, file)
    assert not [layer.name for layer in model.layers if layer.name.startswith(("block4", "top"))]
    found = model.predict(pixels64, verbose=0)
    assert set(found) == {"reduction_2", "reduction_3"}
    expected = keras.Model(whole.input, whole.get_layer("block3a_project_bn").output)
    np.testing.assert_allclose(
        found["reduction_3"], expected.predict(pixels64, verbose=0), rtol=1e-4, atol=1e-4
    )


def test_weights_of_another_variant_are_refused_for_endpoints_too(
    tiny_variant: Any, backbone: tuple[Any, Path]
) -> None:
    deeper = replace(tiny_variant, depth=1.0)
    with pytest.raises(WeightsError, match="layer 'block2b_expand_conv' differs first"):
        EfficientNet(
            deeper, False, backbone[1], endpoints=(1, 2), preprocessing="imagenet", input_shape=(32, 32, 3)
        )


def test_model_of_endpoints_is_saved_and_loaded_by_keras(tiny_variant: Any, tmp_path: Path) -> None:
    model = EfficientNet(tiny_variant, False, None, input_shape=(64, 64, 3), endpoints=[5, 4])
    model.save(tmp_path / "maps.keras")
    assert set(keras.saving.load_model(tmp_path / "maps.keras").output) == {"reduction_4", "reduction_5"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"endpoints with include_top=False.*Received: include_top=True with endpoints=\(1, 2\)"),
        ({"include_top": False, "pooling": "avg"}, "pooling=None.*Received: pooling='avg' with endpoints"),
        ({"include_top": False, "endpoints": (0, 1)}, r"from 1 \(stride 2\) to 5 \(stride 32\).*\(0, 1\)"),
        ({"include_top": False, "endpoints": (6,)}, r"Received: \(6,\). Pass for example \(3, 4, 5\)"),
        ({"include_top": False, "endpoints": (3, 3)}, r"different numbers.*Received: \(3, 3\)"),
        ({"include_top": False, "endpoints": ()}, r"Received: \(\)"),
        ({"include_top": False, "endpoints": 5}, "Received: 5"),
        ({"include_top": False, "endpoints": "345"}, "Received: '345'"),
        ({"include_top": False, "endpoints": (3.0,)}, r"Received: \(3\.0,\)"),
        ({"include_top": False, "endpoints": (True,)}, r"Received: \(True,\)"),
    ],
)
def test_endpoints_that_there_are_not_are_refused(tiny_variant: Any, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as raised:
        EfficientNet(tiny_variant, **({"weights": None, "endpoints": (1, 2)} | arguments))
    assert len(str(raised.value).splitlines()) == 1


def test_every_constructor_takes_endpoints_and_tells_of_them() -> None:
    for name in ("EfficientNetB7", "EfficientNetL2", "EfficientNetLite4"):
        constructor = getattr(keras_effnet, name)
        assert inspect.signature(constructor).parameters["endpoints"].default is None
        assert "block5c_add" in constructor.__doc__


def test_cost_counts_a_model_of_endpoints(tiny_variant: Any) -> None:
    model = EfficientNet(tiny_variant, False, None, input_shape=(64, 64, 3), endpoints=ALL)
    backbone = EfficientNet(tiny_variant, False, None, input_shape=(64, 64, 3))
    top = [layer for layer in keras_effnet.cost(backbone).per_layer if layer.name.startswith("top_")]
    assert keras_effnet.cost(model).macs == keras_effnet.cost(backbone).macs - sum(t.macs for t in top)


@pytest.mark.parametrize(
    ("name", "endpoints", "found"),
    [
        ("b0", (1, 2), "b0"),
        ("b0", (4,), "b0"),
        ("lite2", (3,), "lite2"),
        ("b1", (3,), "b1"),
        ("b1", (1,), None),
    ],
)
def test_model_of_some_maps_is_its_variant_where_its_blocks_are_no_others(
    name: str, endpoints: tuple[int, ...], found: str | None
) -> None:
    """B1 and B2 begin with the same two blocks."""
    model = keras_effnet.EfficientNet(
        name, include_top=False, endpoints=endpoints, weights=None, input_shape=(64, 64, 3)
    )
    assert identify(model) == (VARIANTS[found] if found else None)
