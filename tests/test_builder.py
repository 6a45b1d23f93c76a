"""The builder against keras.applications, and what it offers beyond."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import needs_keras_alone, outputs, slim_variant, without_values

import keras_effnet
from keras_effnet import EfficientNet, export
from keras_effnet.errors import InvalidInputError
from keras_effnet.network.conventions import CONVENTIONS
from keras_effnet.network.variants import VARIANTS, identify
from keras_effnet.weights.facts import built_with
from tests.weights.test_keras_applications import save, their_model

TRAINABLE = {
    "b0": 5_288_548, "b1": 7_794_184, "b2": 9_109_994, "b3": 12_233_232, "b4": 19_341_616,
    "b5": 30_389_784, "b6": 43_040_704, "b7": 66_347_960,
}  # fmt: skip
LITE = {"lite0": 4_652_008, "lite1": 5_416_680, "lite2": 6_092_072, "lite3": 8_197_096, "lite4": 13_006_568}


def _parameters(weights: Any) -> int:
    return sum(int(np.prod(weight.shape)) for weight in weights)


def _described(model: Any) -> dict[str, Any]:
    """Of each layer that computes: the shapes of its weights, and what its configuration says of its arithmetic."""
    # keras.applications keeps the constants of the preprocessing in variables; here they are constants of the graph
    told = ("kernel_size", "strides", "activation", "rate", "epsilon", "use_bias")
    kinds = (
        keras.layers.Conv2D,
        keras.layers.DepthwiseConv2D,
        keras.layers.BatchNormalization,
        keras.layers.Dense,
    )
    kinds += keras.layers.Activation, keras.layers.Dropout, keras.layers.Add, keras.layers.Multiply
    return {
        layer.name: (
            type(layer).__name__,
            [tuple(weight.shape) for weight in layer.weights if "seed" not in weight.path],
            {name: value for name, value in layer.get_config().items() if name in told},
        )
        for layer in model.layers
        if isinstance(layer, kinds)
    }


@pytest.mark.parametrize("name", TRAINABLE)
def test_network_equals_keras_applications_layer_by_layer(name: str) -> None:
    arguments: dict[str, Any] = {"weights": None, "input_shape": (64, 64, 3), "classifier_activation": None}
    with without_values():
        peer = getattr(keras.applications, VARIANTS[name].title)(**arguments)
        ours = EfficientNet(name, **arguments)
    assert _described(ours) == _described(peer)
    # Keras counts layers without a name of their own: the second network of a process has rescaling_2
    lacking = {layer.name for layer in peer.layers} - {layer.name for layer in ours.layers}
    assert all(
        re.fullmatch(r"(input_layer|normalization|rescaling_).*|.+(_pad|_se_reshape)", each)
        for each in lacking
    )
    assert _parameters(ours.trainable_weights) == TRAINABLE[name]


def test_network_of_scaled_width_and_repeats_gives_the_output_of_keras_applications(tmp_path: Path) -> None:
    """B2 does, and the others have its kinds of layers; of B0, `test_keras_applications.py` says it."""
    size = 64  # the layers are the same at every size; the full one would only take longer
    peer = their_model("b2", size=size, classifier_activation=None)
    ours = EfficientNet("b2", weights=None, input_shape=(size, size, 3), classifier_activation=None)
    keras_effnet.load_weights(ours, save(peer, tmp_path / "b2.weights-only.h5"))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    theirs = outputs(peer, pixels)
    assert np.abs(theirs).max() > 0.1  # a network that says nothing would compare equal
    np.testing.assert_allclose(outputs(ours, pixels), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LITE)
def test_lite_network_has_the_published_parameters_and_no_squeeze_and_excite(name: str) -> None:
    with without_values():
        model = EfficientNet(name, weights=None)
    assert _parameters(model.trainable_weights) == LITE[name]
    assert not [layer.name for layer in model.layers if "_se_" in layer.name]
    assert model.input_shape == (None, VARIANTS[name].resolution, VARIANTS[name].resolution, 3)


def test_layer_names_are_those_people_ask_for() -> None:
    with without_values():
        model = EfficientNet("b0", weights=None)
    for name in ("stem_conv", "block2a_expand_conv", "block2a_se_reduce", "block1a_dwconv", "block3b_drop",
                 "block3b_add", "top_conv", "top_activation", "avg_pool", "top_dropout", "predictions"):  # fmt: skip
        assert model.get_layer(name).name == name


@pytest.mark.parametrize("name", [f"b{index}" for index in range(8)])
def test_named_function_has_the_positional_order_and_defaults_of_keras_applications(name: str) -> None:
    title = VARIANTS[name].title
    theirs = list(inspect.signature(getattr(keras.applications, title)).parameters.values())
    ours = list(inspect.signature(getattr(keras_effnet, title)).parameters.values())
    for mine, peer in zip(ours, theirs, strict=False):
        assert mine.name == peer.name
        if mine.name != "name":  # theirs is the default name as a literal
            assert mine.default == peer.default


def test_help_of_a_named_function_describes_its_arguments() -> None:
    described = keras_effnet.EfficientNetB2.__doc__ or ""
    assert described.startswith("EfficientNetB2: 260 px")
    assert "classifier_activation: None for logits." in described and "variant: " not in described


def test_name_defaults_to_that_of_keras_applications_and_changes_nothing_else() -> None:
    with without_values():
        assert EfficientNet("b0", weights=None).name == "efficientnetb0"
        renamed = EfficientNet("b0", weights=None, name="mine")
    assert renamed.name == "mine" and identify(renamed) is VARIANTS["b0"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"input_shape": (None, None, 3)}, (1, 7)),
        ({"input_shape": (96, 64, 3)}, (1, 7)),
        ({"input_shape": (33, 47, 3)}, (1, 7)),
        ({"input_shape": (64, 64, 1)}, (1, 7)),
        ({"input_shape": (64, 64, 5)}, (1, 7)),
        ({"include_top": False}, (1, 2, 2, 320)),
        ({"include_top": False, "pooling": "avg"}, (1, 320)),
        ({"include_top": False, "pooling": "max"}, (1, 320)),
    ],
)
def test_network_builds_and_runs_in_every_shape(tiny_variant: Any, arguments: Any, expected: Any) -> None:
    model = EfficientNet(tiny_variant, weights=None, classes=7, **arguments)
    shape = [side or 64 for side in model.input_shape[1:]]
    assert outputs(model, np.zeros((1, *shape), "float32")).shape == expected


def test_network_has_an_open_size_without_top() -> None:
    with without_values():
        assert EfficientNet("b0", weights=None, include_top=False).input_shape == (None, None, None, 3)


def test_uint8_and_float_pixels_give_the_same_output(tiny: Any, pixels64: Any) -> None:
    np.testing.assert_array_equal(outputs(tiny, pixels64), outputs(tiny, pixels64.astype("float32")))


def test_input_tensor_becomes_part_of_the_model(tiny_variant: Any, pixels64: Any) -> None:
    inputs = keras.Input((64, 64, 3), dtype="uint8")
    flipped = keras.layers.RandomFlip("horizontal", seed=1)(inputs)
    model = EfficientNet(tiny_variant, weights=None, classes=7, input_tensor=flipped)
    assert model.inputs[0] is inputs
    assert outputs(model, pixels64).shape == (6, 7)


def test_layer_in_front_may_have_the_name_of_ours(tiny_variant: Any, tiny: Any, pixels64: Any) -> None:
    inputs = keras.Input((64, 64, 3))
    x = keras.layers.Rescaling(255.0, name="rescaling")(inputs)
    x = keras.layers.Rescaling(1.0, name="rescaling_1")(x)
    model = EfficientNet(tiny_variant, weights=None, classes=7, input_tensor=x)
    ours = model.get_layer("rescaling_2")
    assert ours.scale == tiny.get_layer("rescaling").scale
    assert built_with(model)["preprocessing"] == CONVENTIONS["imagenet"]
    model.set_weights(tiny.get_weights())
    np.testing.assert_allclose(outputs(model, pixels64 / 255), outputs(tiny, pixels64), atol=1e-5)


def test_first_layer_is_called_rescaling_when_others_are_in_front(tiny_variant: Any) -> None:
    x = keras.layers.RandomFlip("horizontal")(keras.Input((64, 64, 3)))
    model = EfficientNet(tiny_variant, weights=None, classes=7, input_tensor=x)
    assert model.get_layer("rescaling").offset == pytest.approx([-2.1179, -2.0357, -1.8044], abs=1e-4)


def test_two_backbones_on_one_input_become_one_flat_model_that_exports(
    slim: Any, pixels32: Any, tmp_path: Any
) -> None:
    inputs = keras.Input((32, 32, 3))
    left = EfficientNet(slim_variant(), weights=None, classes=7, input_tensor=inputs)
    right = EfficientNet(slim_variant(), weights=None, classes=7, input_tensor=inputs, prefix="right_")
    for each in (left, right):
        each.set_weights(slim.get_weights())
    assert right.get_layer("right_block1a_dwconv").name == "right_block1a_dwconv"
    assert right.get_layer("right_rescaling").scale == left.get_layer("rescaling").scale
    both = keras.Model(inputs, keras.layers.Average()([left.output, right.output]))
    expected = outputs(slim, pixels32)
    np.testing.assert_allclose(outputs(both, pixels32), expected, atol=1e-6)
    path = export.to_tflite(both, tmp_path / "both.tflite")
    np.testing.assert_allclose(export.load(path)(pixels32), expected, atol=1e-5)


def test_backbone_with_a_prefix_loads_published_weights_and_is_recognised(tmp_path: Any) -> None:
    EfficientNet("b0", weights=None, include_top=False).save_weights(tmp_path / "b0.weights.h5")
    model = EfficientNet(
        "b0", include_top=False, weights=tmp_path / "b0.weights.h5", prefix="left_", preprocessing="imagenet"
    )
    assert identify(model) is VARIANTS["b0"]


@pytest.mark.parametrize(
    ("given", "received"),
    [
        (np.zeros((1, 64, 64, 3)), r"ndarray of shape \(1, 64, 64, 3\)\. Pass keras\.Input"),
        (keras.Input((64, 64)), r"KerasTensor of shape \(None, 64, 64\)"),
        ("image", r"Received: str\. Pass"),
    ],
)
def test_input_tensor_must_be_a_keras_tensor(tiny_variant: Any, given: Any, received: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"Expected input_tensor to be a Keras tensor.*{received}"):
        EfficientNet(tiny_variant, weights=None, input_tensor=given)


def test_classifier_activation_none_gives_logits(tiny_variant: Any, tiny: Any, pixels64: Any) -> None:
    logits = EfficientNet(tiny_variant, weights=None, classes=7, classifier_activation=None)
    logits.set_weights(tiny.get_weights())
    raw = outputs(logits, pixels64)
    expected = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs(tiny, pixels64), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("convention", "formula"),
    [
        ("imagenet", lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
        ("advprop", lambda x: x * 2 / 255 - 1),
        ("lite", lambda x: (x - 127) / 128),
    ],
)
def test_preprocessing_inside_the_graph_follows_the_convention(
    tiny_variant: Any, pixels64: Any, convention: str, formula: Any
) -> None:
    inside = EfficientNet(tiny_variant, weights=None, classes=7, preprocessing=convention)
    outside = EfficientNet(tiny_variant, weights=None, classes=7, include_preprocessing=False)
    outside.set_weights(inside.get_weights())
    prepared = formula(pixels64.astype("float64")).astype("float32")
    np.testing.assert_allclose(
        keras_effnet.preprocess_input(pixels64, convention=convention), prepared, atol=1e-5
    )
    np.testing.assert_allclose(outputs(inside, pixels64), outputs(outside, prepared), atol=1e-5)


def test_drop_rates_reach_the_layers() -> None:
    with without_values():
        model = EfficientNet("b0", weights=None, drop_connect_rate=0.4, dropout_rate=0.35)
        bare = EfficientNet("b0", weights=None, drop_connect_rate=0.0, dropout_rate=0.0)
    assert model.get_layer("top_dropout").rate == 0.35
    assert model.get_layer("block6d_drop").rate == pytest.approx(0.4 * 14 / 16)
    assert not [layer.name for layer in bare.layers if "drop" in layer.name]


def test_symmetric_padding_pads_like_torchvision(tiny_variant: Any, pixels64: Any) -> None:
    same = EfficientNet(tiny_variant, weights=None, classes=7)
    symmetric = EfficientNet(tiny_variant, weights=None, classes=7, padding="symmetric", epsilon=1e-5)
    assert symmetric.get_layer("stem_conv_pad").padding == ((1, 1), (1, 1))
    assert symmetric.get_layer("stem_bn").epsilon == 1e-5
    symmetric.set_weights(same.get_weights())
    difference = np.abs(outputs(symmetric, pixels64) - outputs(same, pixels64)).max()
    assert difference > 1e-6


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_preprocessing_and_softmax_in_float32(pixels32: Any, policy: str) -> None:
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        model = EfficientNet(slim_variant(1), weights=None, classes=7)
        assert model.get_layer("rescaling").compute_dtype == "float32"
        assert model.get_layer("predictions").compute_dtype == "float32"
        assert model.get_layer("top_conv").compute_dtype == policy.removeprefix("mixed_")
        model.compile("sgd", "sparse_categorical_crossentropy")
        loss = model.fit(pixels32[:6], np.arange(6), batch_size=6, verbose=0).history["loss"][0]
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    assert np.isfinite(loss)
    assert outputs(model, pixels32).sum(axis=1) == pytest.approx(np.ones(16), abs=1e-5)


def test_tf_keras_twin_has_the_same_layers_and_output(tiny_variant: Any, tiny: Any, pixels64: Any) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    twin = EfficientNet(tiny_variant, weights=None, classes=7, namespace=tf_keras)
    named = {layer.name: layer for layer in twin.layers}
    for layer in tiny.layers:
        if layer.weights:
            named[layer.name].set_weights(layer.get_weights())
    assert [layer.name for layer in tiny.layers if layer.weights] == [
        layer.name for layer in twin.layers if layer.weights
    ]
    np.testing.assert_allclose(outputs(twin, pixels64), outputs(tiny, pixels64), atol=1e-5)


def test_saved_model_loads_without_keras_effnet(tiny: Any, pixels64: Any, tmp_path: Any) -> None:
    tiny.save(tmp_path / "tiny.keras")
    assert needs_keras_alone(tmp_path / "tiny.keras")
    np.save(tmp_path / "pixels.npy", pixels64)
    code = (
        "import sys, numpy as np, keras\n"
        f"model = keras.saving.load_model({str(tmp_path / 'tiny.keras')!r})\n"
        f"np.save({str(tmp_path / 'out.npy')!r}, model(np.load({str(tmp_path / 'pixels.npy')!r}), training=False))\n"
        "print('keras_effnet' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), outputs(tiny, pixels64), atol=1e-6)


@pytest.mark.parametrize("name", ["b0", "b5", "lite0", "lite4"])
def test_identify_names_the_variant_of_a_built_model(name: str) -> None:
    with without_values():
        found = identify(EfficientNet(name, weights=None, include_top=False))
    assert found is VARIANTS[name]


def test_identify_gives_none_for_another_network(tiny: Any) -> None:
    assert identify(tiny) is None
