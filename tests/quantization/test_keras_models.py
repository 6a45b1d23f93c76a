"""Networks as people build them with Keras: read exactly, quantized as well as our own."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from material import randomize

from keras_effnet.export import load, to_onnx, to_tflite
from keras_effnet.export.quantization.accuracy import island_costs, sqnr_db
from keras_effnet.export.quantization.fold import fold
from keras_effnet.export.quantization.graph import run
from keras_effnet.export.quantization.prepare import prepare

pytest.importorskip("litert_quantizer")

SIDE, CLASSES = 32, 3


def folded(model: Any, images: Any) -> Any:
    graph = fold(model)
    return run(graph, images)[graph.output]


def assert_same(found: Any, expected: Any) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 2e-5 * max(1.0, np.abs(expected).max())


def of_layers(build: Callable[[Any, Any], Any], *, side: int = SIDE) -> Any:
    """A model of pixels; `build` gets `keras.layers` and maps of 8 channels at half the side."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    image = keras.Input((side, side, 3))
    x = layers.Rescaling(1 / 127.5, -1.0, name="rescaling")(image)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="swish", name="stem")(x)
    model = keras.Model(image, build(layers, x), name="built")
    randomize(model)
    return model


def head(layers: Any, x: Any, *middle: Any) -> Any:
    """A classifier whose middle is given."""
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    for layer in middle:
        x = layer(x)
    return layers.Dense(CLASSES, activation="softmax", name="predictions")(x)


def squeeze(layers: Any, x: Any, *, dense: bool) -> Any:
    """A squeeze-and-excite branch with a reshape, as keras.applications and most tutorials write it."""
    gate = layers.GlobalAveragePooling2D()(x)
    if dense:
        gate = layers.Dense(8, activation="sigmoid")(layers.Dense(4, activation="relu")(gate))
        gate = layers.Reshape((1, 1, 8))(gate)
    else:
        gate = layers.Conv2D(4, 1, activation="swish")(layers.Reshape((1, 1, 8))(gate))
        gate = layers.Conv2D(8, 1, activation="sigmoid")(gate)
    return layers.Multiply()([x, gate])


def shared_convolution(layers: Any, x: Any) -> Any:
    """A convolution that is read before and behind its normalization."""
    raw = layers.Conv2D(8, 1, name="raw")(x)
    return layers.Add()([raw, layers.Activation("relu")(layers.BatchNormalization()(raw))])


BODIES: dict[str, Callable[[Any, Any], Any]] = {
    "normalized features": lambda k, x: head(k, x, k.BatchNormalization(), k.Dropout(0.3)),
    "relu head": lambda k, x: head(k, x, k.Dense(16, activation="relu"), k.Dropout(0.3)),
    "normalized relu head": lambda k, x: head(
        k, x, k.Dense(16), k.BatchNormalization(), k.ReLU(), k.GaussianNoise(0.1), k.BatchNormalization()
    ),
    "activated features": lambda k, x: head(k, x, k.BatchNormalization(), k.Activation("swish")),
    "squeeze with a reshape": lambda k, x: head(k, squeeze(k, x, dense=False)),
    "squeeze of matrix products": lambda k, x: head(k, squeeze(k, x, dense=True)),
    "linear activation": lambda k, x: head(k, k.Activation("linear")(x)),
    "normalization in front": lambda k, x: head(
        k, k.Conv2D(8, 3, padding="same")(k.BatchNormalization(name="ahead")(x))
    ),
    "pre-activation": lambda k, x: head(k, k.Conv2D(8, 3)(k.ReLU(6.0)(k.BatchNormalization()(x)))),
    "normalization in front of 1 × 1": lambda k, x: head(k, k.Conv2D(8, 1)(k.BatchNormalization()(x))),
    "normalization in front of depthwise": lambda k, x: head(
        k, k.DepthwiseConv2D(3)(k.BatchNormalization()(x))
    ),
    "read before its normalization": lambda k, x: head(k, shared_convolution(k, x)),
    "activated sum": lambda k, x: head(k, k.ReLU()(k.Add()([x, k.Conv2D(8, 1)(x), k.Conv2D(8, 1)(x)]))),
    "dense at every place": lambda k, x: head(k, k.Dense(8, activation="swish")(x)),
    "flattened": lambda k, x: k.Dense(CLASSES, activation="softmax")(k.Flatten()(x)),
    "flattened pixel": lambda k, x: k.Dense(CLASSES)(k.Flatten()(k.GlobalAveragePooling2D(keepdims=True)(x))),
    "nothing at inference": lambda k, x: head(
        k, k.SpatialDropout2D(0.2)(k.GaussianDropout(0.1)(x)), k.AlphaDropout(0.1), k.Identity()
    ),
    "operators": lambda k, x: head(k, x * k.Conv2D(8, 1, activation="sigmoid")(x) + x),
    "called twice": lambda k, x: head(k, (twice := k.Conv2D(8, 1))(twice(x))),
    "padded sum": lambda k, x: head(
        k, k.Add()([k.ZeroPadding2D()(x), k.ZeroPadding2D()(k.Conv2D(8, 3, padding="same")(x))])
    ),
    "pooled": lambda k, x: head(k, k.AveragePooling2D(3, 1, "same")(k.MaxPooling2D(3, 2, "same")(x))),
    "densely connected": lambda k, x: head(
        k,
        k.Concatenate()(
            [
                k.MaxPooling2D()(x),
                k.Conv2D(5, 3, strides=2, padding="same", activation="relu")(x),
                k.MaxPooling2D()(x),
            ]
        ),
    ),
    "pyramid of pools": lambda k, x: head(
        k, k.Concatenate()([x, k.MaxPooling2D(5, 1, "same")(x), k.MaxPooling2D(3, 1, "same")(x)])
    ),
    "flattened map": lambda k, x: k.Flatten()(k.Conv2D(2, 3, strides=2)(x)),
    "normalized map": lambda k, x: k.BatchNormalization()(k.ReLU()(x)),
}


ISLANDS: dict[str, tuple[Callable[[Any, Any], Any], list[str]]] = {
    "in the head": (
        lambda k, x: head(k, x, k.Dense(16, activation="softsign", name="hidden")),
        ["'softsign', the activation of 'hidden'"],
    ),
    "in the middle": (
        lambda k, x: head(k, k.Conv2D(8, 3)(k.LayerNormalization(name="odd")(x))),
        ["'odd', a LayerNormalization"],
    ),
    "in a row": (
        lambda k, x: head(
            k, k.Conv2D(8, 3)(k.Softmax(axis=1, name="second")(k.UnitNormalization(name="first")(x)))
        ),
        ["'first', a UnitNormalization, 'second', a Softmax"],
    ),
    "at the end": (
        lambda k, x: k.UnitNormalization(name="unit")(k.Dense(4)(k.GlobalAveragePooling2D()(x))),
        ["'unit', a UnitNormalization"],
    ),
    "of another rank": (
        lambda k, x: head(k, k.Reshape((16, 16, 8), name="back")(k.Reshape((256, 8), name="row")(x))),
        ["'row', a Reshape, 'back', a Reshape"],
    ),
}


@pytest.fixture(scope="module")
def few() -> Any:
    return np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE, 3)).astype(np.float32)


@pytest.mark.parametrize("name", BODIES)
def test_folded_graph_equals_keras(name: str, few: Any) -> None:
    model = of_layers(BODIES[name])
    assert_same(folded(model, few), model.predict(few, verbose=0))


@pytest.mark.parametrize("name", ISLANDS)
def test_unknown_layer_is_an_island_that_costs_only_itself(name: str, few: Any, tmp_path: Any) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    build, named = ISLANDS[name]
    model = of_layers(build)
    expected = model.predict(few, verbose=0)
    graph = fold(model)
    assert [island.what for island in graph.islands] == named
    assert_same(run(graph, few)[graph.output], expected)

    with pytest.warns(
        UserWarning, match=f"Integers are not known for {re.escape(named[0])}.*everything else in integers"
    ):
        network = prepare(model, few)
    costs = island_costs(network)
    assert [cost["layer"] for cost in costs] == named
    assert all(0 < cost["share_of_values"] < 1 and cost["sqnr_db"] > 30 for cost in costs)
    assert not network.lifted
    path = to_tflite(model, tmp_path / "x.tflite", "int8", network=network)
    assert sqnr_db(expected, load(path)(few)) > 20
    file = to_onnx(model, tmp_path / "x.onnx", "int8", network=network)
    assert sqnr_db(expected, load(file)(few)) > 20
    assert sqnr_db(load(path)(few), load(file)(few)) > 30
    assert_same(model.predict(few, verbose=0), expected)
    opened = Interpreter(
        str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    opened.allocate_tensors()
    types = {detail["index"]: detail["dtype"] for detail in opened.get_tensor_details()}
    weighted = [
        types[int(operator["outputs"][0])]
        for operator in opened._get_ops_details()
        if operator["op_name"] in ("CONV_2D", "FULLY_CONNECTED")
    ]
    assert weighted and set(weighted) == {np.int8}
    assert opened.get_output_details()[0]["dtype"] == np.uint8


FILES = [
    "activated features",
    "squeeze of matrix products",
    "pre-activation",
    "activated sum",
    "flattened",
    "padded sum",
    "pooled",
    "densely connected",
    "pyramid of pools",
    "normalized map",
]


@pytest.mark.parametrize("name", FILES)
def test_files_are_all_integer_and_keep_the_answer(name: str, few: Any, tmp_path: Any) -> None:
    model = of_layers(BODIES[name])
    expected = model.predict(few, verbose=0)
    network = prepare(model, few)
    path = to_tflite(model, tmp_path / "x.tflite", "int8", network=network)
    assert sqnr_db(expected, load(path)(few)) > 15
    assert not float_tensors(path)
    path = to_onnx(model, tmp_path / "x.onnx", "int8", network=network)
    assert sqnr_db(expected, load(path)(few)) > 15


def float_tensors(path: Any) -> list[str]:
    """Names of a TFLite file's tensors that hold floats."""
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(str(path)).get_tensor_details()
    return [detail["name"] for detail in details if detail["dtype"] == np.float32]


def test_island_in_front_of_the_network_reads_pixels(few: Any, tmp_path: Any) -> None:
    import keras

    layers = keras.layers
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.CenterCrop(24, 24, name="crop")(image)
    x = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255)(x))
    model = keras.Model(image, head(layers, x))
    randomize(model)
    with pytest.warns(UserWarning, match="'crop', a CenterCrop"):
        path = to_tflite(model, tmp_path / "x.tflite", "int8", few)
    assert np.abs(load(path)(few) - model.predict(few, verbose=0)).max() < 0.05


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("normalized features", ["image", "rescaling", "stem", "pool", "predictions"]),
        ("linear activation", ["image", "rescaling", "stem", "pool", "predictions"]),
        ("normalization in front of 1 × 1", ["image", "rescaling", "stem", "conv2d", "pool", "predictions"]),
        ("normalization in front", ["image", "rescaling", "stem", "ahead", "conv2d", "pool", "predictions"]),
    ],
)
def test_normalization_becomes_a_part_of_its_neighbour_where_it_can(name: str, steps: list[str]) -> None:
    import keras

    keras.backend.clear_session()
    assert list(fold(of_layers(BODIES[name])).steps) == steps


@pytest.fixture(scope="module")
def application() -> Any:
    """The function behind `keras.applications.EfficientNetB0`, small."""
    import keras
    from keras.src.applications.efficientnet import EfficientNet

    keras.utils.set_random_seed(1)
    model = EfficientNet(
        0.25, 0.3, 64, weights=None, include_top=True, classes=4, input_shape=(64, 64, 3), name="application"
    )
    randomize(model)
    (normalization,) = (layer for layer in model.layers if type(layer).__name__ == "Normalization")
    normalization.mean, normalization.variance = [
        [np.full((1, 1, 1, 3), value, np.float32) for value in (0.45, 0.05)]
    ][0]
    return model


@pytest.fixture(scope="module")
def augmented(application: Any) -> Any:
    """With what tutorials put in front and behind: augmentation, one more scaling, a nested head."""
    import keras

    layers = keras.layers
    image = keras.Input((64, 64, 3))
    ahead = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)], name="augment")
    x = layers.Rescaling([0.9, 1.0, 1.1])(layers.RandomContrast(0.2)(ahead(image)))
    features = keras.Model(application.input, application.get_layer("top_activation").output, name="features")
    behind = keras.Sequential(
        [
            layers.GlobalAveragePooling2D(),
            layers.BatchNormalization(),
            layers.Dense(24, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(4, activation="softmax"),
        ],
        name="head",
    )
    model = keras.Model(image, behind(features(x)), name="augmented")
    randomize(model.get_layer("head"))
    return model


@pytest.mark.parametrize("name", ["application", "augmented"])
def test_networks_of_keras_applications_equal_keras(
    name: str, held_out: Any, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    assert_same(folded(model, held_out[:8]), model.predict(held_out[:8], verbose=0))


@pytest.mark.parametrize("unknown", [False, True], ids=["known layers", "an island"])
def test_network_keeps_its_answers_whatever_is_around_it(
    unknown: bool, tiny_swish: Any, network: Any, calibration: Any, held_out: Any
) -> None:
    """The head and what stands in front must cost nothing: the same weights in another form, one layer unknown."""
    import keras

    layers = keras.layers
    image = keras.Input((64, 64, 3))
    features = keras.Model(tiny_swish.input, tiny_swish.get_layer("avg_pool").output)
    x = features(layers.RandomRotation(0.1)(layers.RandomFlip()(image)))
    x = layers.Minimum(name="least")([x, x]) if unknown else x
    x = layers.Dropout(0.1)(layers.BatchNormalization(name="normal")(x))
    model = keras.Model(image, layers.Dense(4, activation="softmax", name="last")(x))
    randomize(model.get_layer("normal"))
    scale, offset = fold_of(model.get_layer("normal"))
    kernel, bias = tiny_swish.layers[-1].get_weights()
    model.get_layer("last").set_weights([kernel / scale[:, np.newaxis], bias - (offset / scale) @ kernel])
    assert_same(model.predict(held_out, verbose=0), tiny_swish.predict(held_out, verbose=0))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it names the island
        other = prepare(model, calibration)
    assert len(other.reference.islands) == unknown
    goal = network.logits(held_out, integer=False)
    ours, theirs = (sqnr_db(goal, each.logits(held_out)) for each in (network, other))
    assert theirs > ours - 0.5


def fold_of(layer: Any) -> tuple[Any, Any]:
    """What a batch normalization does at inference."""
    gamma, beta, mean, variance = layer.get_weights()
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale, beta - mean * scale
