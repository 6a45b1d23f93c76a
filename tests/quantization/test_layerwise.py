"""What the walk decides, on networks small enough to see why."""

from __future__ import annotations

import gc
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet.export.quantization import importance, layerwise, reconstruction
from keras_effnet.export.quantization.fold import fold
from keras_effnet.export.quantization.graph import Graph, evaluate, map_sizes
from keras_effnet.export.quantization.steps import Input, Mean
from keras_effnet.export.quantization.weighted import Conv


def test_range_of_a_mean_holds_means_of_whole_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layerwise, "SEARCH_ELEMENTS", 100)
    pixels = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype(np.float32)
    steps = [Input(name="image"), Mean(name="mean", inputs=("image",), keepdims=False)]
    graph = Graph(steps={step.name: step for step in steps}, input_shape=(16, 16, 3))
    chosen = layerwise.quantize(graph, pixels, {"mean": np.ones((8, 3))}).ranges["mean"]
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
    weights_of_errors = {"mean": np.ones((20, 40)), "reduce": np.ones((20, 6))}
    found = layerwise.quantize(graph, maps, weights_of_errors, layerwise.Method(rounding="none"))
    assert np.array_equal(found.graph["reduce"].kernel, weights)


def test_layer_of_too_many_inputs_is_only_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "MOST_INPUTS", 2)
    monkeypatch.setattr(reconstruction, "gram_of", None)  # whose square would be too large
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(1, 1, 3, 6)).astype(np.float32)
    conv = Conv(name="wide", inputs=("image",), kernel=weights, bias=np.zeros(6, np.float32))
    graph = Graph(steps={"image": Input(name="image"), "wide": conv}, input_shape=(4, 4, 3))
    maps = rng.uniform(0, 255, (20, 4, 4, 3)).astype(np.float32)
    found = layerwise.quantize(graph, maps, {"wide": np.ones((20, 6))}).graph["wide"].kernel
    scales = np.abs(weights).max(axis=(0, 1, 2)) / 127
    assert np.allclose(found, np.rint(weights / scales) * scales, atol=1e-6)


def test_importance_counts_a_photograph_by_its_own_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "PROBES", 50)
    graph = _head()
    bright = np.random.default_rng(1).uniform(0, 255, (6, 4, 4, 3)).astype(np.float32)
    dim = bright / 2
    sizes = map_sizes(graph, bright.shape[1:])
    found = importance.by_photograph(graph, np.concatenate([bright, dim]), sizes)["mean"]
    assert found.mean() == pytest.approx(1.0)
    assert found[6:].mean() == pytest.approx(4 * found[:6].mean(), rel=0.15)


def test_importance_of_a_photograph_without_energy_is_bounded() -> None:
    graph = _head()
    pixels = np.random.default_rng(1).uniform(0, 255, (6, 4, 4, 3)).astype(np.float32)
    pixels[0] = 0
    found = importance.by_photograph(graph, pixels, map_sizes(graph, pixels.shape[1:]))["mean"]
    assert np.isfinite(found).all()
    assert found[0].mean() < 20 * found[1:].mean()


def _head() -> Graph:
    """The mean of a picture's places, and a layer behind it."""
    weights = np.random.default_rng(0).normal(size=(1, 1, 3, 64)).astype(np.float32)
    steps = [
        Input(name="image"),
        Mean(name="mean", inputs=("image",)),
        Conv(name="head", inputs=("mean",), kernel=weights, bias=np.zeros(64, np.float32)),
    ]
    return Graph(steps={step.name: step for step in steps}, input_shape=(4, 4, 3))


def _of_all_kinds() -> Any:
    """A network with every way in which slopes go back through a step."""
    layers = keras.layers
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="swish")(image)
    x = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2, activation="relu")(x)
    x = layers.Conv2D(8, 3, padding="same", dilation_rate=2, activation="swish")(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Add()([layers.Multiply()([x, gate]), x])
    x = layers.Conv2D(8, 3, groups=2, padding="same")(layers.ZeroPadding2D(1)(x))
    x = layers.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu")(layers.Add()([x, x]))
    x = layers.DepthwiseConv2D(3, strides=2, padding="valid")(layers.ZeroPadding2D(((1, 0), (0, 1)))(x))
    pooled = layers.GlobalAveragePooling2D()(x)
    classes = layers.Dense(5, activation="softmax", name="classes")(pooled)
    return keras.Model(image, [classes, layers.Dense(3, name="box")(pooled)])


def test_importance_is_that_of_one_tape_over_the_whole_network() -> None:
    keras.utils.set_random_seed(0)
    graph = fold(_of_all_kinds())
    images = np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3)).astype(np.float32)
    sizes = map_sizes(graph, images.shape[1:])
    found = importance.by_photograph(graph, images, sizes)
    rng, expected = np.random.default_rng(0), dict.fromkeys(found, 0.0)
    seen: dict[str, Any] = {}
    inner = graph.before_last_activations()

    def value_of(step: Any, sources: list[Any]) -> Any:
        value = tf.constant(images) if isinstance(step, Input) else evaluate(step, sources, None)
        seen[step.name] = value
        tape.watch(value)
        return value

    with tf.GradientTape(persistent=True) as tape:
        for _ in inner.walk(value_of):
            pass
        ends = {name: tf.reshape(seen[name], (3, -1)) for name in inner.outputs}
        signs = {
            name: [rng.choice([-1.0, 1.0], end.shape).astype(np.float32) for _ in range(importance.PROBES)]
            for name, end in ends.items()
        }
        sums = {name: [tf.reduce_sum(ends[name] * each) for each in signs[name]] for name in ends}
    for name, end in ends.items():
        energy = np.sum(end.numpy().astype(np.float64) ** 2, axis=1)
        energy = np.maximum(energy, importance.LEAST_ENERGY * np.median(energy))
        for step in found:
            slopes = [tape.gradient(each, seen[step], unconnected_gradients="zero") for each in sums[name]]
            squares = sum(
                np.square(slope.numpy()).reshape(3, -1, slope.shape[-1]).mean(1) for slope in slopes
            )
            expected[step] = expected[step] + squares / energy[:, np.newaxis]
    assert any(value.any() for value in found.values())
    for step, value in expected.items():
        assert found[step] == pytest.approx(value / max(value.mean(), 1e-30), rel=1e-3, abs=1e-6), step


def test_importance_leaves_no_tensors_behind() -> None:
    graph = fold(_of_all_kinds())
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)

    def alive() -> int:
        importance.by_photograph(graph, images, map_sizes(graph, images.shape[1:]))
        gc.collect()
        return sum(isinstance(each, tf.Tensor) for each in gc.get_objects())

    assert alive() == alive()
