"""What the walk decides, on networks small enough to see why."""

from __future__ import annotations

import numpy as np
import pytest

from keras_effnet.export.quantization import layerwise
from keras_effnet.export.quantization.graph import Graph
from keras_effnet.export.quantization.steps import Input, Mean
from keras_effnet.export.quantization.weighted import Conv


def test_range_of_a_mean_holds_means_of_whole_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layerwise, "SEARCH_ELEMENTS", 100)
    pixels = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype(np.float32)
    steps = [Input(name="image"), Mean(name="mean", inputs=("image",), keepdims=False)]
    graph = Graph(steps={step.name: step for step in steps}, input_shape=(16, 16, 3))
    chosen = layerwise.quantize(graph, pixels, {"mean": np.ones(3)}).ranges["mean"]
    assert 130 < chosen.high < 150


def test_layer_of_one_place_keeps_its_weights_when_photographs_are_few() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(1, 1, 40, 6)).astype(np.float32)
    steps = [
        Input(name="image"),
        Mean(name="mean", inputs=("image",)),
        Conv(name="reduce", inputs=("mean",), kernel=weights, bias=np.zeros(6, np.float32)),
    ]
    graph = Graph(steps={step.name: step for step in steps}, input_shape=(4, 4, 40))
    maps = rng.uniform(0, 255, (20, 4, 4, 40)).astype(np.float32)
    importance = {"mean": np.ones(40), "reduce": np.ones(6)}
    found = layerwise.quantize(graph, maps, importance, layerwise.Method(rounding="none"))
    assert np.array_equal(found.graph["reduce"].kernel, weights)
