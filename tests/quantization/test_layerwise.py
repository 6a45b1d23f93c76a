"""What the walk decides, on networks small enough to see why."""

from __future__ import annotations

import numpy as np
import pytest

from keras_effnet.export.quantization import layerwise
from keras_effnet.export.quantization.graph import Graph
from keras_effnet.export.quantization.steps import Input, Mean


def test_range_of_a_mean_holds_means_of_whole_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layerwise, "SEARCH_ELEMENTS", 100)
    pixels = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype(np.float32)
    steps = [Input(name="image"), Mean(name="mean", inputs=("image",), keepdims=False)]
    graph = Graph(steps={step.name: step for step in steps}, input_shape=(16, 16, 3))
    chosen = layerwise.quantize(graph, pixels, {"mean": np.ones(3)}).ranges["mean"]
    assert 130 < chosen.high < 150
