"""Counting: against Keras' own shapes and weights, against another counter, and on bad input."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import keras
import pytest

import keras_effnet
from keras_effnet import EfficientNet
from keras_effnet.costs import Counted, cost, cost_of_variant
from keras_effnet.errors import InvalidInputError
from keras_effnet.network.variants import VARIANTS

# `params` of the published table; multiply-adds as counted by fvcore on the PyTorch ports
PARAMS = {
    "b0": 5_288_548,
    "b1": 7_794_184,
    "b2": 9_109_994,
    "b3": 12_233_232,
    "b4": 19_341_616,
    "b5": 30_389_784,
    "b6": 43_040_704,
    "b7": 66_347_960,
    "lite0": 4_652_008,
    "lite1": 5_416_680,
    "lite2": 6_092_072,
    "lite3": 8_197_096,
    "lite4": 13_006_568,
}


def _python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.mark.parametrize("name", PARAMS)
def test_parameters_equal_the_published_ones(name: str) -> None:
    assert cost_of_variant(name).params == PARAMS[name]


def test_all_weights_equal_keras_count(tiny: Any) -> None:
    counted = cost(tiny)
    assert counted.params + counted.statistics == tiny.count_params()
    assert counted.params == sum(int(v.shape.num_elements()) for v in tiny.trainable_variables)


def test_freezing_changes_nothing(tiny: Any) -> None:
    before = cost(tiny)
    tiny.trainable = False
    try:
        assert cost(tiny) == before
    finally:
        tiny.trainable = True


def test_dry_run_of_a_member_costs_what_the_built_one_costs(tiny_variant: Any) -> None:
    built = cost(EfficientNet(tiny_variant, weights=None, classes=7))
    counted = cost_of_variant(tiny_variant, classes=7)
    names = [layer.name for layer in built.per_layer[1:]]
    assert names == [layer.name for layer in counted.per_layer[1:]]
    assert (built.params, built.macs, built.statistics) == (
        counted.params,
        counted.macs,
        counted.statistics,
    )
    assert built.activation_bytes == counted.activation_bytes
    assert built.peak_activation_bytes == counted.peak_activation_bytes


APPLICATIONS = {
    "MobileNet": {},
    "MobileNetV2": {},
    "ResNet50": {},
    "EfficientNetB0": {},
    "EfficientNetV2B0": {},
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_shapes_and_weights_equal_keras_for_every_layer(name: str) -> None:
    model = getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), classes=5)
    counted = {layer.name: layer for layer in cost(model).per_layer}
    for layer in model.layers[1:]:
        mine = counted[layer.name]
        assert mine.output_shape == tuple(layer.output.shape[1:]), layer.name
    whole = cost(model)
    assert whole.params + whole.statistics == model.count_params()


def test_multiply_adds_of_one_convolution_are_the_textbook_product() -> None:
    inputs = keras.Input((10, 12, 4))
    x = keras.layers.Conv2D(6, (3, 5), strides=2, padding="valid", groups=2)(inputs)
    x = keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False)(x)
    x = keras.layers.Flatten()(x)
    counted = cost(keras.Model(inputs, keras.layers.Dense(3)(x)), batch=2)
    conv, depthwise, dense = (layer for layer in counted.per_layer if layer.macs)
    assert (conv.output_shape, conv.macs, conv.params) == ((4, 4, 6), 2 * 4 * 4 * 6 * 15 * 2, 15 * 2 * 6 + 6)
    assert (depthwise.macs, depthwise.params) == (2 * 4 * 4 * 12 * 9, 9 * 12)
    assert (dense.macs, dense.params) == (2 * 192 * 3, 192 * 3 + 3)


UPWARDS = {  # a layer on (6, 8, 4): shape that Keras says, multiply-adds and weights by hand
    "UpSampling2D": ((12, 24, 4), 0, 0),
    "Conv2DTranspose": ((13, 17, 5), 6 * 8 * 9 * 4 * 5, 9 * 4 * 5 + 5),
    "same": ((12, 8, 5), 6 * 8 * 15 * 4 * 5, 15 * 4 * 5),
    "padded": ((12, 16, 5), 6 * 8 * 9 * 4 * 5, 9 * 4 * 5 + 5),
    "spread": ((10, 12, 5), 6 * 8 * 9 * 4 * 5, 9 * 4 * 5 + 5),
    "LayerNormalization": ((6, 8, 4), 0, 2 * 4),
    "whole": ((6, 8, 4), 0, 6 * 8 * 4),
    "PReLU": ((6, 8, 4), 0, 6 * 8 * 4),
    "shared": ((6, 8, 4), 0, 4),
    "Cropping2D": ((3, 4, 4), 0, 0),
}


@pytest.mark.parametrize("name", UPWARDS)
def test_layers_of_decoders_and_transformers_are_counted(name: str) -> None:
    layers = keras.layers
    layer = {
        "UpSampling2D": lambda: layers.UpSampling2D((2, 3)),
        "Conv2DTranspose": lambda: layers.Conv2DTranspose(5, 3, strides=2),
        "same": lambda: layers.Conv2DTranspose(5, (3, 5), strides=(2, 1), padding="same", use_bias=False),
        "padded": lambda: layers.Conv2DTranspose(5, 3, strides=2, padding="same", output_padding=1),
        "spread": lambda: layers.Conv2DTranspose(5, 3, dilation_rate=2),
        "LayerNormalization": layers.LayerNormalization,
        "whole": lambda: layers.LayerNormalization(axis=[1, 2, 3], center=False),
        "PReLU": layers.PReLU,
        "shared": lambda: layers.PReLU(shared_axes=[1, 2]),
        "Cropping2D": lambda: layers.Cropping2D(((1, 2), (1, 3))),
    }[name]()
    inputs = keras.Input((6, 8, 4))
    model = keras.Model(inputs, layer(inputs))
    counted = cost(model, batch=2).per_layer[1]
    shape, macs, params = UPWARDS[name]
    assert model.output_shape[1:] == counted.output_shape == shape
    assert (counted.macs, counted.params) == (2 * macs, params)
    assert model.count_params() == params


def test_backbone_that_sees_every_picture_of_a_film_costs_that_often(tiny: Any) -> None:
    film = keras.Input((5, 64, 64, 3))
    x = keras.layers.TimeDistributed(tiny, name="backbone")(film)
    x = keras.layers.TimeDistributed(keras.layers.Dense(2), name="each")(x)
    counted, once = cost(keras.Model(film, x)), cost(tiny)
    assert counted.macs == 5 * once.macs + 5 * 7 * 2
    assert counted.params == once.params + 7 * 2 + 2 and counted.statistics == once.statistics
    assert counted.activation_bytes == 5 * once.activation_bytes + 4 * 5 * 2
    assert counted.per_layer[-1].name == "each" and counted.per_layer[-1].output_shape == (5, 2)
    assert "backbone/stem_conv" in {layer.name for layer in counted.per_layer}
    assert "backbone/stem" in {block.name for block in counted.per_block()}


def test_peak_memory_is_what_lives_at_once() -> None:
    inputs = keras.Input((8, 8, 1))  # 64 values
    wide = keras.layers.Conv2D(4, 1, name="wide")(inputs)  # 256
    x = keras.layers.Conv2D(2, 1, name="narrow")(wide)  # 128
    x = keras.layers.Dropout(0.5)(x)  # nothing at inference
    x = keras.layers.Conv2D(4, 1, name="again")(x)  # 256
    x = keras.layers.Add()([x, wide])  # wide has waited: 256 × 3
    counted = cost(keras.Model(inputs, x))
    assert counted.peak_activation_bytes == 4 * 3 * 256
    assert counted.activation_bytes == 4 * (64 + 256 + 128 + 256 + 256)
    assert cost(keras.Model(inputs, x), batch=3, bytes_per_value=1).peak_activation_bytes == 3 * 3 * 256


def test_shared_and_nested_layers_are_counted_as_often_as_called() -> None:
    inputs = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    inner_in = keras.Input((8, 8, 3))
    inner = keras.Model(inner_in, shared(inner_in), name="inner")
    counted = cost(keras.Model(inputs, shared(inner(shared(inputs)))))
    assert counted.params == 3 * 3 * 3 * 3 + 3
    assert counted.macs == 3 * 8 * 8 * 81


def test_another_input_size_is_counted_as_if_built_for_it(tiny_variant: Any) -> None:
    open_model = EfficientNet(tiny_variant, weights=None, classes=7, input_shape=(None, None, 3))
    assert cost(open_model, input_shape=(64, 64, 3)).macs == cost_of_variant(tiny_variant, classes=7).macs
    with pytest.raises(InvalidInputError, match=r"known size.*Pass input_shape=\(height, width, channels\)"):
        cost(open_model)
    with pytest.raises(InvalidInputError, match=r"Received: input_shape=\(64, 64\)"):
        cost(open_model, input_shape=(64, 64))


def test_model_with_two_inputs_is_counted() -> None:
    picture, facts = keras.Input((None, None, 3)), keras.Input((5,))
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(picture)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Concatenate()([x, keras.layers.Dense(6, name="facts")(facts)])
    model = keras.Model([picture, facts], keras.layers.Dense(2, name="out")(x))
    counted = cost(model, input_shape=[(8, 10, 3), (5,)], batch=2)
    assert counted.input_shapes == ((8, 10, 3), (5,)) and counted.input_shape == (8, 10, 3)
    assert counted.macs == 2 * (8 * 10 * 4 * 27 + 5 * 6 + 10 * 2)
    assert counted.params == model.count_params()
    turned = keras.Model([facts, picture], model.outputs)
    assert cost(turned, input_shape=[(5,), (8, 10, 3)], batch=2).macs == counted.macs
    for wrong in (None, (8, 10, 3), [(5,), (8, 10, 3)], [(8, 10, 3)]):
        with pytest.raises(
            InvalidInputError, match="Pass input_shape=a list of 2 shapes, one for each input"
        ):
            cost(model, input_shape=wrong)


def test_layers_that_act_in_training_only_cost_nothing() -> None:
    inputs = keras.Input((4, 4, 3))
    layers = keras.layers
    acting = (
        layers.RandomHue(0.1),
        layers.RandomShear(0.1, 0.1),
        layers.RandAugment(),
        layers.AlphaDropout(0.5),
    )
    x = inputs
    for layer in acting:
        x = layer(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    assert (cost(model).macs, cost(model).params) == (3 * 2, 3 * 2 + 2)


def test_unknown_layer_is_an_error_that_names_it_until_a_rule_is_given() -> None:
    class Twist(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, Twist(name="odd_one")(inputs))
    with pytest.raises(InvalidInputError, match=r"'odd_one'.*Received: 'Twist'.*rules="):
        cost(model)
    assert cost(model, rules={"Twist": lambda _, shapes: Counted(shape=shapes[0], macs=11)}).macs == 11


def test_model_without_a_graph_is_refused() -> None:
    class Subclassed(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(InvalidInputError, match="Expected a functional Keras model"):
        cost(Subclassed())


def test_blocks_add_up_to_the_whole() -> None:
    counted = cost_of_variant("b4")
    blocks = counted.per_block()
    assert [
        sum(getattr(block, key) for block in blocks)
        for key in ("params", "macs", "activation_bytes", "statistics", "file_bytes")
    ] == [
        counted.params,
        counted.macs,
        counted.activation_bytes,
        counted.statistics,
        counted.file_bytes,
    ]
    assert [
        sum(getattr(layer, key) for layer in counted.per_layer) for key in ("statistics", "file_bytes")
    ] == [
        counted.statistics,
        counted.file_bytes,
    ]
    assert {"stem", "block1a", "block7b", "top", "predictions"} <= {block.name for block in blocks}


def test_weights_file_holds_file_bytes_and_a_header(tiny: Any, tmp_path: Any) -> None:
    from safetensors.numpy import save_file

    arrays = {variable.path: variable.numpy() for variable in tiny.weights}
    save_file(arrays, tmp_path / "tiny.safetensors")
    header = (tmp_path / "tiny.safetensors").stat().st_size - cost(tiny).file_bytes
    assert 0 < header < 200 * len(arrays)


@pytest.mark.parametrize(
    "code",
    [
        "import keras_effnet; c = keras_effnet.cost",
        "import keras_effnet.costs; c = keras_effnet.cost",
        "from keras_effnet import cost as c; import keras_effnet.costs",
        "from keras_effnet.costs import cost as c; import keras_effnet",
    ],
)
def test_cost_is_callable_however_it_is_imported(code: str) -> None:
    check = "; assert callable(c) and callable(keras_effnet.cost); import sys"
    assert _python(code + check + "; print('keras' in sys.modules)") == "False"


def test_every_variant_has_a_cost() -> None:
    macs = [cost_of_variant(name).macs for name in VARIANTS]
    assert all(macs) and keras_effnet.cost is cost
