"""Every kind of Keras layer: in integers or, where integers are not known for it, as an island; the files agree."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_keras_models import assert_same, float_tensors, folded, head, of_layers

from keras_effnet.export import load, to_onnx, to_tflite
from keras_effnet.export.quantization.accuracy import sqnr_db
from keras_effnet.export.quantization.fold import fold
from keras_effnet.export.quantization.layerwise import Method
from keras_effnet.export.quantization.prepare import prepare

pytest.importorskip("litert_quantizer")

SIDE = 16  # the kinds see maps of half of it
QUICK = Method(weights="bias", rounding="nearest")
Body = Callable[[Any, Any], Any]


def ops() -> Any:
    import keras

    return keras.ops


def layer_scale() -> Any:
    from keras.src.applications.convnext import LayerScale

    return LayerScale(0.5, 8)


def activated(name: str) -> Body:
    return lambda k, x: head(k, k.Conv2D(6, 3, activation=name)(x))


INTEGERS: dict[str, Body] = {
    **{
        f"activation {name}": activated(name)
        for name in (
            *("relu", "relu6", "sigmoid", "tanh", "swish", "gelu", "leaky_relu"),
            *("hard_sigmoid", "hard_swish", "hard_tanh"),
        )
    },
    "activation of a classifier": lambda k, x: k.Dense(3, activation="tanh")(k.GlobalMaxPooling2D()(x)),
    "ReLU up to 1": lambda k, x: head(k, k.ReLU(1.0)(k.Conv2D(6, 3)(x))),
    "ReLU with a slope": lambda k, x: head(k, k.ReLU(negative_slope=0.1)(k.Conv2D(6, 3)(x))),
    "LeakyReLU behind its normalization": lambda k, x: head(
        k, k.LeakyReLU(0.1)(k.BatchNormalization()(k.Conv2D(6, 3)(x)))
    ),
    "LeakyReLU of features": lambda k, x: head(k, x, k.Dense(6), k.LeakyReLU()),
    "PReLU": lambda k, x: head(k, steep(k.PReLU(shared_axes=[1, 2]))(k.Conv2D(6, 3)(x))),
    "functions": lambda k, x: head(k, ops().hard_sigmoid(k.Conv2D(6, 3)(x)) * ops().silu(k.Conv2D(6, 3)(x))),
    "constants": lambda k, x: head(k, k.Conv2D(6, 3)(1.5 - ((x - 0.25) * 3.0 / 2.0 + np.arange(8.0)))),
    "LayerScale": lambda k, x: head(k, k.Add()([x, layer_scale()(k.Conv2D(8, 3, padding="same")(x))])),
    "Subtract": lambda k, x: head(k, k.Subtract()([x, k.Conv2D(8, 1)(x)])),
    "Average": lambda k, x: head(k, k.Average()([x, k.Conv2D(8, 1)(x), k.Conv2D(8, 3, padding="same")(x)])),
    "Maximum": lambda k, x: head(k, k.Maximum()([x, k.Conv2D(8, 1)(x)])),
    "one channel times all": lambda k, x: head(
        k, x * k.Conv2D(1, 3, padding="same", activation="sigmoid")(x)
    ),
    "activation layer named after its convolution": lambda k, x: head(
        k, k.Activation("hard_sigmoid", name="a_activation")(k.Conv2D(6, 3, name="a")(x))
    ),
    "dilated": lambda k, x: head(
        k, k.DepthwiseConv2D(3, dilation_rate=2, padding="same")(k.Conv2D(8, 3, dilation_rate=2)(x))
    ),
    "grouped": lambda k, x: head(
        k, k.Conv2D(12, 3, groups=4, strides=2, padding="same", activation="relu")(x)
    ),
    "as many groups as channels": lambda k, x: head(k, k.Conv2D(8, 3, groups=8, padding="same")(x)),
    "normalization in front of groups": lambda k, x: head(
        k, k.Conv2D(8, 3, groups=2)(k.BatchNormalization()(x))
    ),
    "depthwise, several each": lambda k, x: head(k, k.DepthwiseConv2D(3, depth_multiplier=2)(x)),
    "separable": lambda k, x: head(k, k.SeparableConv2D(6, 3, depth_multiplier=2, activation="relu")(x)),
    "transposed": lambda k, x: head(k, k.Conv2DTranspose(6, 3, 2, "same", activation="relu")(x)),
    "transposed, not padded": lambda k, x: head(k, k.Conv2DTranspose(6, 2, 3)(k.Conv2DTranspose(4, 4, 2)(x))),
    "GlobalMaxPooling2D": lambda k, x: k.Dense(3)(k.GlobalMaxPooling2D()(x)),
    "GlobalMaxPooling2D of a map": lambda k, x: k.Multiply()([x, k.GlobalMaxPooling2D(keepdims=True)(x)]),
    "adaptive pooling": lambda k, x: k.Flatten()(
        k.AdaptiveMaxPooling2D(2)(k.AdaptiveAveragePooling2D((4, 2))(x))
    ),
    "mean of a map": lambda k, x: k.Dense(3)(ops().mean(x, axis=[1, 2])),
    "Cropping2D": lambda k, x: head(k, k.Conv2D(6, 3)(k.Cropping2D(((1, 2), (0, 1)))(x))),
    "UpSampling2D": lambda k, x: head(k, k.Conv2D(6, 3)(k.UpSampling2D((2, 3))(x))),
    "UpSampling2D, bilinear": lambda k, x: head(
        k, k.Conv2D(6, 3)(k.UpSampling2D(2, interpolation="bilinear")(x))
    ),
    "Resizing": lambda k, x: head(k, k.Conv2D(6, 3)(k.Resizing(11, 5)(x))),
    "Resizing, nearest": lambda k, x: head(k, k.Conv2D(6, 3)(k.Resizing(11, 5, "nearest")(x))),
    "Reshape to a map": lambda k, x: head(k, k.Conv2D(6, 3)(k.Reshape((4, 4, 32))(x))),
    "Reshape of features": lambda k, x: head(
        k, k.Conv2D(6, 3, activation="relu")(k.Reshape((4, 4, 4))(k.Dense(64)(k.GlobalAveragePooling2D()(x))))
    ),
    "augmented": lambda k, x: head(
        k, k.RandomZoom(0.2)(k.RandomTranslation(0.1, 0.1)(k.GaussianNoise(0.2)(x)))
    ),
    "Sequential": lambda k, x: sequential(k)(x),
    "shared model": lambda k, x: head(k, (block := shared(k))(block(x))),
}
ISLANDS: dict[str, tuple[Body, list[str]]] = {
    **{
        f"activation {name}": (activated(name), [f"'{name}', the activation of 'conv2d'"])
        for name in (
            *("elu", "selu", "softplus", "mish", "softsign", "exponential", "log_sigmoid"),
            *("celu", "soft_shrink", "sparse_plus"),
        )
    },
    "ELU": (lambda k, x: head(k, k.ELU(name="elu")(x)), ["'elu', a ELU"]),
    "LayerNormalization": (
        lambda k, x: head(k, k.LayerNormalization(name="normal")(x)),
        ["'normal', a LayerNormalization"],
    ),
    "GroupNormalization": (
        lambda k, x: head(k, k.GroupNormalization(4, name="normal")(x)),
        ["'normal', a GroupNormalization"],
    ),
    "Minimum": (
        lambda k, x: head(k, k.Minimum(name="least")([x, k.Conv2D(8, 1)(x)])),
        ["'least', a Minimum"],
    ),
    "several outputs": (
        lambda k, x: head(k, k.Concatenate()(ops().split(x, 2, axis=-1)[::-1])),
        ["'split', a Split", "'split', a Split"],
    ),
    "one of several outputs": (
        lambda k, x: k.GlobalAveragePooling2D()(ops().split(x, 2, axis=-1)[0]),
        ["'split', a Split"],
    ),
    "attention": (
        lambda k, x: head(
            k, k.Reshape((8, 8, 8), name="back")(attended(k, k.Reshape((64, 8), name="tokens")(x)))
        ),
        [
            "'tokens', a Reshape",
            "'attention', a MultiHeadAttention, 'sum', a Add, 'back', a Reshape",
        ],
    ),
    "cropped at random": (
        lambda k, x: head(k, k.Conv2D(6, 3)(k.RandomCrop(6, 6, name="crop")(x))),
        ["'crop', a RandomCrop"],
    ),
}


def steep(layer: Any) -> Any:
    """A layer whose slopes are some below 1, some above."""
    layer.build((None, 6, 6, 6))
    layer.alpha_values = np.linspace(-0.5, 1.5, 6).reshape(1, 1, 6)
    return layer


def sequential(k: Any) -> Any:
    import keras

    return keras.Sequential(
        [k.Conv2D(6, 3, activation="relu"), k.Flatten(), k.Dense(3, activation="softmax")]
    )


def shared(k: Any) -> Any:
    import keras

    return keras.Sequential(
        [k.Conv2D(8, 3, padding="same", use_bias=False), k.BatchNormalization(), k.ReLU()]
    )


def attended(k: Any, x: Any) -> Any:
    return k.Add(name="sum")([x, k.MultiHeadAttention(2, 4, name="attention")(x, x)])


@pytest.fixture(scope="module")
def few() -> Any:
    return np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE, 3)).astype(np.float32)


def built(body: Body) -> Any:
    import keras

    keras.backend.clear_session()
    model = of_layers(body, side=SIDE)
    for layer in model.layers:
        if hasattr(layer, "alpha_values"):
            layer.alpha.assign(layer.alpha_values)
    return model


def assert_files_agree(model: Any, images: Any, folder: Any, least: float) -> Any:
    """The TFLite and the ONNX file of a model say what it says; the TFLite file."""
    expected = model.predict(images, verbose=0)
    assert_same(folded(model, images), expected)
    network = prepare(model, images, method=QUICK)
    tflite = to_tflite(model, folder / "x.tflite", "int8", network=network)
    onnx = to_onnx(model, folder / "x.onnx", "int8", network=network)
    found = load(tflite)(images), load(onnx)(images)
    assert sqnr_db(expected, found[0]) > least
    assert sqnr_db(expected, found[1]) > least
    return tflite


@pytest.mark.parametrize("name", INTEGERS)
def test_layer_computes_in_integers(name: str, few: Any, tmp_path: Any) -> None:
    model = built(INTEGERS[name])
    assert not fold(model).islands
    path = assert_files_agree(model, few, tmp_path, 17.0)
    assert not float_tensors(path)


@pytest.mark.parametrize("name", ISLANDS)
def test_layer_stays_in_float(name: str, few: Any, tmp_path: Any) -> None:
    body, named = ISLANDS[name]
    model = built(body)
    assert [island.what for island in fold(model).islands] == named
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert_files_agree(model, few, tmp_path, 17.0)
