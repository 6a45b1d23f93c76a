"""Folding a Keras model into steps, the exact transformations on them, and the way back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from material import randomize

from keras_effnet.export.quantization import equalization
from keras_effnet.export.quantization.accuracy import sqnr_db
from keras_effnet.export.quantization.fold import fold
from keras_effnet.export.quantization.graph import Graph, run
from keras_effnet.export.quantization.prepare import prepare
from keras_effnet.export.quantization.to_keras import to_keras
from keras_effnet.export.quantization.weighted import Depthwise


def outputs(graph: Graph, images: Any) -> Any:
    return run(graph, images)[graph.output]


def test_folded_graph_equals_model(tiny_swish: Any, graph: Any, held_out: Any) -> None:
    expected = tiny_swish.predict(held_out, verbose=0)
    assert np.abs(outputs(graph, held_out) - expected).max() < 1e-4


def test_folded_graph_equals_model_when_relu6(tiny_lite: Any, held_out: Any) -> None:
    expected = tiny_lite.predict(held_out, verbose=0)
    assert np.abs(outputs(fold(tiny_lite), held_out) - expected).max() < 1e-4


def test_folded_graph_equals_model_when_padding_is_symmetric(tiny_variant: Any, held_out: Any) -> None:
    from keras_effnet import EfficientNet

    model = EfficientNet(tiny_variant, weights=None, classes=3, padding="symmetric")
    expected = model.predict(held_out[:4], verbose=0)
    assert np.abs(outputs(fold(model), held_out[:4]) - expected).max() < 1e-4


@pytest.mark.parametrize("choice", ["stem", "all"])
def test_equalized_network_equals_the_original(
    choice: str, graph: Any, calibration: Any, held_out: Any
) -> None:
    absorbed = equalization.absorb_preprocessing(graph)
    samples = equalization.sample(absorbed, calibration)
    weights = equalization.importance(absorbed, samples)
    names = equalization.swishes(absorbed)
    equalized = equalization.equalize_swishes(
        absorbed, samples, weights, names if choice == "all" else names[:1]
    )
    assert np.abs(outputs(equalized, held_out) - outputs(graph, held_out)).max() < 1e-4
    assert all(equalized[name].activation.gain is not None for name in names[:1])


def test_factors_go_only_where_every_channel_has_a_scale_of_its_own(graph: Any) -> None:
    names = equalization.swishes(graph)
    assert {"stem_conv", "block2a_expand_conv"} <= set(names)
    assert all(isinstance(reader, Depthwise) for name in names for reader in graph.consumers(name))


def test_gains_bring_channels_to_one_range() -> None:
    spread = 10.0 ** np.linspace(0, 2, 9)
    u = np.random.default_rng(0).normal(size=(2000, 9)).astype(np.float32) * spread
    reach = (u / equalization.choose_gains(u, np.ones(9))).max(axis=0)
    assert reach.max() / reach.min() < 0.1 * spread[-1]


def test_gains_lie_on_the_grid_of_an_int8_constant() -> None:
    gains = equalization.snap(np.array([0.3, 7.7, 100.0, 1e-6]))
    levels = gains / (gains.max() / 255)
    assert np.allclose(levels, np.rint(levels), atol=1e-3)
    assert gains.min() > 0


def test_absorbed_preprocessing_leaves_one_sum_in_pixel_values(graph: Any) -> None:
    step = equalization.absorb_preprocessing(graph)["rescaling"]
    assert step.kernel is None
    assert np.allclose(step.bias, -255 * np.array([0.485, 0.456, 0.406]), atol=1e-3)


def test_rebuilt_model_equals_the_graph(graph: Any, calibration: Any, held_out: Any) -> None:
    samples = equalization.sample(graph, calibration)
    equalized = equalization.equalize_swishes(
        graph, samples, equalization.importance(graph, samples), equalization.swishes(graph)
    )
    model = to_keras(equalized, height=64, width=64)
    assert np.abs(model.predict(held_out, verbose=0) - outputs(equalized, held_out)).max() < 1e-4


def test_importance_ignores_channels_that_nobody_reads(graph: Any, calibration: Any) -> None:
    step = graph["top_conv"]
    dense = graph[graph.output]
    kernel = dense.kernel.copy()
    kernel[0] = 0
    silent = graph.updated(replace(dense, kernel=kernel))
    weights = equalization.importance(silent, equalization.sample(silent, calibration[:4], per_channel=50))
    assert weights[step.name][0] == 0
    assert weights[step.name][1:].min() > 0


def test_fold_reads_a_model_whose_layers_were_called_elsewhere(tiny_swish: Any, graph: Graph) -> None:
    from keras_effnet.explain import class_activation_map

    class_activation_map(
        tiny_swish, np.full((64, 64, 3), 100, np.uint8)
    )  # builds another model of its layers
    assert [step.name for step in fold(tiny_swish)] == [step.name for step in graph]


@pytest.fixture(scope="module")
def pooled(tiny_variant: Any) -> Any:
    """A network whose last swish leaves it through the mean: nobody multiplies factors back."""
    import keras

    from keras_effnet import EfficientNet

    keras.utils.set_random_seed(5)
    model = EfficientNet(
        tiny_variant, weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 3)
    )
    randomize(model)
    return model


def test_equalized_network_equals_keras_when_it_ends_in_pooled_features(
    pooled: Any, calibration: Any, held_out: Any
) -> None:
    network = prepare(pooled, calibration, equalize=1.0)
    expected = pooled.predict(held_out, verbose=0)
    error = np.abs(network.logits(held_out, integer=False) - expected).max()
    assert error < 1e-4 * np.abs(expected).max()
    equalized = [
        s.name for s in network.reference.weighted if getattr(s.activation, "gain", None) is not None
    ]
    assert "block2a_expand_conv" in equalized and "top_conv" not in equalized
    assert sqnr_db(expected, network.logits(held_out)) > 10
