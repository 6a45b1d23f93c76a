"""The one reader of Keras graphs: shared layers, models in models, several outputs, both Kerases."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from keras_effnet.errors import InvalidInputError
from keras_effnet.network.reader import CallGraph, LayerOutput, flat_layers, read_graph


def _named(graph: CallGraph) -> list[tuple[str, list[str]]]:
    return [(call.name, [graph.calls[read.call].name for read in call.inputs]) for call in graph.calls]


@pytest.fixture(params=["keras", "tf_keras"])
def namespace(request: Any) -> Any:
    return pytest.importorskip(request.param)


def _computed(graph: CallGraph, *given: Any) -> list[Any]:
    """What the calls make of the given arrays, one after the other."""
    made: list[Any] = list(given)
    for call in graph.calls[len(given) :]:
        outputs = call.apply([_taken(made, read) for read in call.inputs])
        made.append(outputs)
    return [np.asarray(_taken(made, output)) for output in graph.outputs]


def _taken(made: list[Any], read: LayerOutput) -> Any:
    values = made[read.call]
    return values[read.index] if isinstance(values, list | tuple) else values


def test_calls_come_in_order_and_say_what_they_read(namespace: Any) -> None:
    layers = namespace.layers
    inputs = namespace.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="mean")(x)
    x = layers.Multiply(name="excite")([x, gate])
    graph = read_graph(namespace.Model(inputs, x))
    assert _named(graph) == [
        ("image", []),
        ("conv", ["image"]),
        ("mean", ["conv"]),
        ("excite", ["conv", "mean"]),
    ]
    assert [call.kind for call in graph.calls] == [
        "InputLayer",
        "Conv2D",
        "GlobalAveragePooling2D",
        "Multiply",
    ]
    assert graph.inputs == (0,) and graph.outputs == (LayerOutput(3),) and graph.readers(1) == (2, 3)
    assert tuple(graph.calls[3].outputs[0].shape) == (None, 8, 8, 4)


def test_layer_that_is_called_twice_is_two_calls_of_which_one_is_first(namespace: Any) -> None:
    inputs = namespace.Input((8, 8, 3), name="image")
    shared = namespace.layers.Conv2D(3, 3, padding="same", name="shared")
    graph = read_graph(namespace.Model(inputs, shared(shared(inputs))))
    assert _named(graph) == [("image", []), ("shared", ["image"]), ("shared", ["shared"])]
    assert [call.first for call in graph.calls] == [True, True, False]


def test_models_inside_are_unpacked_where_they_are_called(namespace: Any) -> None:
    layers = namespace.layers
    inside = namespace.Input((4,), name="inside")
    backbone = namespace.Model(inside, layers.Dense(3, name="features")(inside), name="backbone")
    head = namespace.Sequential([layers.Dense(2, name="hidden"), layers.Dense(1, name="score")], name="head")
    left, right = namespace.Input((4,), name="left"), namespace.Input((4,), name="right")
    mean = layers.Average(name="mean")([backbone(left), backbone(right)])
    model = namespace.Model([left, right], head(mean))
    graph = read_graph(model)
    assert _named(graph) == [
        ("left", []),
        ("right", []),
        ("features", ["left"]),
        ("features", ["right"]),
        ("mean", ["features", "features"]),
        ("hidden", ["mean"]),
        ("score", ["hidden"]),
    ]
    arrays = [np.random.default_rng(seed).normal(size=(5, 4)).astype("float32") for seed in (0, 1)]
    np.testing.assert_allclose(_computed(graph, *arrays)[0], model.predict(arrays, verbose=0), rtol=1e-5)
    assert [layer.name for layer in flat_layers(model) if layer.name in ("features", "score")] == [
        "features",
        "score",
    ]


def test_layer_with_two_outputs_is_one_call(namespace: Any) -> None:
    inputs = namespace.Input((5, 4), name="series")
    outputs, state = namespace.layers.GRU(3, return_state=True, name="gru")(inputs)
    last = namespace.layers.Dense(2, name="last")(state)
    model = namespace.Model(inputs, [last, outputs])
    graph = read_graph(model)
    assert _named(graph) == [("series", []), ("gru", ["series"]), ("last", ["gru"])]
    assert graph.calls[2].inputs == (LayerOutput(1, 1),) and graph.outputs == (
        LayerOutput(2),
        LayerOutput(1, 0),
    )
    series = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    for mine, theirs in zip(_computed(graph, series), model.predict(series, verbose=0), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_operators_between_layers_are_calls_and_can_be_repeated(namespace: Any) -> None:
    inputs = namespace.Input((6,), name="facts")
    x = namespace.layers.Dense(6, name="dense")(inputs)
    model = namespace.Model(inputs, namespace.layers.Dense(1, name="score")(2.0 * x + inputs))
    facts = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    np.testing.assert_allclose(
        _computed(read_graph(model), facts)[0], model.predict(facts, verbose=0), rtol=1e-4, atol=1e-6
    )


def test_layers_that_other_models_use_too_are_read_for_this_model_only(namespace: Any) -> None:
    inputs = namespace.Input((4,), name="facts")
    dense = namespace.layers.Dense(4, name="dense")
    x = dense(inputs)
    namespace.Model(inputs, dense(dense(x)))
    assert _named(read_graph(namespace.Model(inputs, x))) == [("facts", []), ("dense", ["facts"])]


def test_call_can_be_repeated_with_other_arguments() -> None:
    inputs = keras.Input((4,), name="facts")
    frozen = keras.layers.BatchNormalization(name="norm")(inputs, training=False)
    (_, call) = read_graph(keras.Model(inputs, frozen)).calls
    facts = np.random.default_rng(0).normal(3, 2, size=(64, 4)).astype("float32")
    assert np.abs(np.asarray(call.apply([facts])) - facts).max() < 0.01
    assert np.abs(np.asarray(call.apply([facts], training=True)).mean()) < 0.01


def test_model_without_a_graph_is_refused_also_inside_another() -> None:
    class Subclassed(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    inputs = keras.Input((4,))
    for model in (Subclassed(), keras.Model(inputs, Subclassed()(inputs)), keras.Sequential()):
        with pytest.raises(InvalidInputError, match="Expected a functional Keras model, or a Sequential one"):
            read_graph(model)
