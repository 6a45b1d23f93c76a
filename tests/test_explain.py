"""Class activation maps and Grad-CAM: exact identities, a hand-made gradient, every shape of head."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import outputs, randomize
from PIL import Image

from keras_effnet import EfficientNet
from keras_effnet.errors import InvalidInputError
from keras_effnet.explain import class_activation_map, colorize, explain, grad_cam, overlay


def _nested(variant: Any, *, between: Any = None, compiled: bool = False) -> Any:
    """A transfer model as people write it: backbone inside, names of their own."""
    backbone = EfficientNet(variant, weights=None, include_top=False)
    x = inputs = keras.Input((64, 64, 3))
    x = keras.layers.RandomFlip(seed=1)(x)
    x = backbone(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    if between is not None:
        x = between(x)
    x = keras.layers.Dropout(0.3, seed=1)(x)
    model = keras.Model(inputs, keras.layers.Dense(4, activation="softmax", name="clothes")(x))
    randomize(model)
    if compiled:
        model.compile("adam", "sparse_categorical_crossentropy")
    return model


def _logits(probabilities: Any) -> Any:
    """Logits up to the constant that softmax removes."""
    logarithms = np.log(probabilities)
    return logarithms - logarithms.mean()


def _check_identity(model: Any, image: Any) -> None:
    """The mean of the map plus the bias is the score, for every class; the scores are the model's."""
    found = [explain(model, image, index) for index in range(model.output_shape[-1])]
    scores = np.array([item.score for item in found])
    for item in found:
        assert item.bias is not None
        assert item.evidence.mean() + item.bias == pytest.approx(item.score, rel=1e-4, abs=1e-5)
        assert item.heat.shape == image.shape[:2] and item.heat.dtype == np.float32
        assert item.heat.min() >= 0 and (item.heat.max() == 1 or (item.evidence <= 0).all())
    probabilities = outputs(model, image[None])[0]
    np.testing.assert_allclose([item.output for item in found], probabilities, atol=1e-5)
    np.testing.assert_allclose(scores - scores.mean(), _logits(probabilities), atol=1e-3)


def test_cam_mean_plus_bias_is_the_score(tiny: Any, pixels64: Any) -> None:
    _check_identity(tiny, pixels64[0])


@pytest.mark.parametrize("between", [None, keras.layers.BatchNormalization])
@pytest.mark.parametrize("compiled", [False, True])
def test_cam_mean_plus_bias_is_the_score_when_the_backbone_is_nested(
    tiny_variant: Any, pixels64: Any, between: Any, compiled: bool
) -> None:
    _check_identity(_nested(tiny_variant, between=between and between(), compiled=compiled), pixels64[0])


def test_cam_passes_through_a_dropout_of_ones_own(tiny_variant: Any, pixels64: Any) -> None:
    class Mine(keras.layers.Dropout):
        pass

    _check_identity(_nested(tiny_variant, between=Mine(0.5, seed=1)), pixels64[0])


def test_cam_works_on_a_sequential_model_with_flattened_pooling(tiny_variant: Any, pixels64: Any) -> None:
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            EfficientNet(tiny_variant, weights=None, include_top=False),
            keras.layers.GlobalAveragePooling2D(keepdims=True),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
            keras.layers.Softmax(),
        ]
    )
    randomize(model)
    _check_identity(model, pixels64[0])


def test_cam_of_a_loaded_model_is_that_of_the_saved_one(tmp_path: Path, tiny: Any, pixels64: Any) -> None:
    tiny.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(
        class_activation_map(loaded, pixels64[0], 2), class_activation_map(tiny, pixels64[0], 2), atol=1e-6
    )


def test_maps_take_any_size_when_the_model_does(tiny_variant: Any) -> None:
    model = EfficientNet(tiny_variant, weights=None, classes=5, input_shape=(None, None, 3))
    randomize(model)
    for size in ((64, 96), (100, 70)):
        image = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
        _check_identity(model, image)
        assert grad_cam(model, image).shape == size


def test_maps_follow_weights_that_change(tiny_variant: Any, pixels64: Any) -> None:
    model = _nested(tiny_variant)
    before = explain(model, pixels64[0], 1)
    randomize(model, seed=5)
    after = explain(model, pixels64[0], 1)
    assert before.score != after.score
    _check_identity(model, pixels64[0])


def test_explaining_leaves_the_model_as_it_was(tiny_variant: Any, pixels64: Any) -> None:
    model = _nested(tiny_variant)
    config, weights = json.dumps(model.get_config()), model.get_weights()
    grad_cam(model, pixels64[0])
    assert json.dumps(model.get_config()) == config
    for left, right in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_default_class_is_the_most_probable(tiny: Any, pixels64: Any) -> None:
    best = int(outputs(tiny, pixels64[:1]).argmax())
    assert explain(tiny, pixels64[0]).class_index == best
    np.testing.assert_array_equal(
        class_activation_map(tiny, pixels64[0]), class_activation_map(tiny, pixels64[0], best)
    )


def test_grad_cam_of_a_pooled_dense_head_is_the_cam(tiny: Any, pixels64: Any) -> None:
    for index in range(3):
        cam, gradient = (explain(tiny, pixels64[1], index, method=method) for method in ("cam", "grad-cam"))
        assert gradient.bias is None
        positions = cam.evidence.size  # d score / d feature is the kernel / positions
        np.testing.assert_allclose(gradient.evidence * positions, cam.evidence, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(gradient.heat, cam.heat, atol=1e-4)


def test_grad_cam_of_a_hidden_layer_is_the_gradient_by_hand(tiny_variant: Any, pixels64: Any) -> None:
    hidden = keras.layers.Dense(6, activation="relu", name="hidden")
    model = _nested(tiny_variant, between=hidden)
    with pytest.raises(InvalidInputError, match=r"'hidden'.*grad-cam"):
        class_activation_map(model, pixels64[0])
    backbone = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    features = np.asarray(backbone(pixels64[:1].astype("float32"), training=False))[0].astype(np.float64)
    kernel, bias = hidden.get_weights()
    last = model.layers[-1].get_weights()[0]
    active = features.mean(axis=(0, 1)) @ kernel + bias > 0
    expected = features @ ((kernel * active) @ last[:, 2]) / (features.shape[0] * features.shape[1])
    found = explain(model, pixels64[0], 2, method="grad-cam")
    np.testing.assert_allclose(found.evidence, expected, rtol=1e-3, atol=1e-5)


def test_grad_cam_of_an_inner_layer_is_the_gradient_by_its_offset(tiny: Any, pixels64: Any) -> None:
    """beta moves a channel at every position alike, so its own gradient is the sum over positions."""
    import tensorflow as tf

    name = "block2a_project_bn"
    layer, head = tiny.get_layer(name), tiny.get_layer("predictions")
    body = keras.Model(tiny.input, [layer.output, tiny.get_layer("avg_pool").output])
    with tf.GradientTape() as tape:
        features, pooled = body(pixels64[:1].astype("float32"), training=False)
        score = tf.matmul(pooled, head.kernel.value)[0, 1]
    gradient = np.asarray(tape.gradient(score, layer.beta.value))
    expected = np.asarray(features)[0] @ gradient / (features.shape[1] * features.shape[2])
    found = explain(tiny, pixels64[0], 1, method="grad-cam", layer=name)
    assert found.evidence.shape == (16, 16)
    np.testing.assert_allclose(found.evidence, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_maps_work_in_mixed_precision(tiny_variant: Any, pixels64: Any) -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = EfficientNet(tiny_variant, weights=None, classes=3)
        randomize(model)
        cam, gradient = (explain(model, pixels64[0], 1, method=method) for method in ("cam", "grad-cam"))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert cam.bias is not None
    assert cam.evidence.mean() + cam.bias == pytest.approx(cam.score, rel=0.05, abs=0.05)
    np.testing.assert_allclose(gradient.heat, cam.heat, atol=0.05)


def test_maps_agree_on_the_jax_backend(tmp_path: Path, pixels64: Any) -> None:
    """A few layers are enough: on JAX each layer outside of a compiled step is compiled by itself."""
    pytest.importorskip("jax")
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, strides=4, activation="swish", name="inner"),
            layers.Conv2D(6, 3, strides=2, activation="swish"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", pixels64[0])
    code = (
        "import sys, keras, numpy as np\nfrom keras_effnet.explain import explain\n"
        "assert keras.backend.backend() == 'jax'\n"
        "m, x = keras.models.load_model('m.keras'), np.load('x.npy')\n"
        "np.save('cam.npy', explain(m, x, 1).evidence)\n"
        "np.save('grad.npy', explain(m, x, 1, method='grad-cam', layer='inner').evidence)\n"
    )
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    cam = explain(model, pixels64[0], 1).evidence
    gradient = explain(model, pixels64[0], 1, method="grad-cam", layer="inner").evidence
    np.testing.assert_allclose(np.load(tmp_path / "cam.npy"), cam, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.load(tmp_path / "grad.npy"), gradient, rtol=1e-2, atol=1e-6)


def test_cam_finds_the_face_of_the_cat(lite0: Any) -> None:
    import skimage

    with Image.open(Path(skimage.__file__).parent / "data" / "chelsea.png") as picture:
        image = np.asarray(picture.convert("RGB").resize((224, 224)))
    found = explain(lite0, image, 285)  # Egyptian cat; its face fills the right of the upper half
    row, column = np.unravel_index(found.heat.argmax(), found.heat.shape)
    assert found.output > 0.5
    assert 20 < row < 180 and 60 < column < 190
    assert found.heat[:, :30].max() < 0.5


@pytest.fixture(scope="module")
def branched(tiny_variant: Any) -> dict[str, Any]:
    """A backbone with a box, a class, a decoder and an embedding on it, and the single models of each."""
    layers = keras.layers
    backbone = EfficientNet(tiny_variant, weights=None, include_top=False)
    features = backbone.output
    pooled = layers.GlobalAveragePooling2D(name="pooled")(features)
    classes = layers.Dense(4, activation="softmax", name="cls")(layers.Dropout(0.2)(pooled))
    deeper = layers.Conv2D(8, 3, padding="same", activation="relu", name="decoder_conv")(features)
    box = layers.Dense(4, name="box")(layers.GlobalAveragePooling2D()(deeper))
    mask = layers.Conv2D(1, 1, activation="sigmoid", name="mask")(layers.UpSampling2D(4)(deeper))
    randomize(keras.Model(backbone.input, [classes, box, mask]))
    ends = {"cls": classes, "box": box, "mask": mask}
    return {"picture": backbone.input, **ends, "alone": keras.Model(backbone.input, classes)}


def _same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found.evidence, expected.evidence, rtol=1e-4, atol=1e-6)
    assert found.class_index == expected.class_index
    assert found.output == pytest.approx(expected.output, abs=1e-6)


@pytest.mark.parametrize("method", ["cam", "grad-cam"])
@pytest.mark.parametrize("order", [("cls", "box"), ("box", "cls"), ("cls", "mask", "box")])
def test_explain_takes_the_output_it_is_told_and_no_sibling(
    branched: Any, pixels64: Any, order: Any, method: str
) -> None:
    model = keras.Model(branched["picture"], [branched[name] for name in order])
    expected = explain(branched["alone"], pixels64[0], method=method)
    _same(explain(model, pixels64[0], method=method, output="cls"), expected)
    _same(explain(model, pixels64[0], method=method, output=order.index("cls")), expected)
    named = keras.Model(branched["picture"], {name: branched[name] for name in order})
    _same(explain(named, pixels64[0], method=method, output="cls"), expected)


def test_grad_cam_of_a_branch_is_the_gradient_of_tensorflow(branched: Any, pixels64: Any) -> None:
    import tensorflow as tf

    model = keras.Model(branched["picture"], [branched["cls"], branched["mask"], branched["box"]])
    for name, index, layer in (
        ("box", 2, "decoder_conv"),
        ("box", 0, "top_activation"),
        ("cls", 3, "top_bn"),
    ):
        end = model.get_layer(name)
        ahead = keras.Model(model.input, model.get_layer(layer).output)
        behind = keras.Model(model.get_layer(layer).output, end.input)
        with tf.GradientTape() as tape:
            features = ahead(pixels64[:1].astype("float32"), training=False)
            tape.watch(features)
            score = (behind(features, training=False) @ end.kernel + end.bias)[0, index]
        weights = np.asarray(tape.gradient(score, features))[0].mean(axis=(0, 1))
        found = explain(model, pixels64[0], index, method="grad-cam", layer=layer, output=name)
        np.testing.assert_allclose(found.evidence, np.asarray(features)[0] @ weights, rtol=1e-3, atol=1e-5)
        assert found.score == pytest.approx(float(score), rel=1e-4, abs=1e-5)


def test_explain_lists_the_outputs_when_several_could_be_meant(branched: Any, pixels64: Any) -> None:
    model = keras.Model(branched["picture"], [branched["box"], branched["cls"]])
    with pytest.raises(InvalidInputError, match=r"output=.*0: 'box' \[None, 4\], 1: 'cls' \[None, 4\]"):
        explain(model, pixels64[0])
    for wrong in ("class", 2):
        with pytest.raises(InvalidInputError, match=r"0: 'box' .*1: 'cls'.*Received: "):
            explain(model, pixels64[0], output=wrong)


def test_explain_takes_the_classifier_beside_a_decoder(branched: Any, pixels64: Any) -> None:
    expected = explain(branched["alone"], pixels64[0])
    for order in (("cls", "mask"), ("mask", "cls")):
        model = keras.Model(branched["picture"], [branched[name] for name in order])
        _same(explain(model, pixels64[0]), expected)
    with pytest.raises(InvalidInputError, match=r"Expected a classifier.*'mask' \(Conv2D\) makes"):
        explain(model, pixels64[0], output="mask")


def test_explain_of_a_shared_backbone_follows_the_call_that_leads_to_the_output(
    tiny_variant: Any, pixels64: Any
) -> None:
    backbone = EfficientNet(tiny_variant, weights=None, include_top=False, pooling="avg")
    picture = keras.Input((64, 64, 3))
    dense = keras.layers.Dense(3, activation="softmax", name="cls")
    upright = dense(backbone(picture))
    turned = dense(backbone(keras.ops.flip(picture, axis=2)))
    alone = keras.Model(picture, upright)
    randomize(alone)
    expected = explain(alone, pixels64[0], 1)
    both = keras.Model(picture, [upright, turned])
    _same(explain(both, pixels64[0], 1, output=0), expected)
    mirrored = explain(alone, pixels64[0][:, ::-1], 1)
    _same(explain(both, pixels64[0], 1, output=1), mirrored)
    with pytest.raises(InvalidInputError, match=r"'cls'.*of which there are several"):
        explain(both, pixels64[0], 1, output="cls")


def test_explain_refuses_an_average_of_two_passes(tiny_variant: Any, pixels64: Any) -> None:
    """Before, the second pass was ignored: half of what the output depends on."""
    backbone = EfficientNet(tiny_variant, weights=None, include_top=False, pooling="avg")
    picture = keras.Input((64, 64, 3))
    passes = [backbone(picture), backbone(keras.ops.flip(picture, axis=2))]
    dense = keras.layers.Dense(3, activation="softmax")
    late = keras.layers.Average(name="mean")([dense(each) for each in passes])
    early = dense(keras.layers.Average(name="mean")(passes))
    with pytest.raises(InvalidInputError, match=r"'mean' \(Average\) makes.*explain a part"):
        explain(keras.Model(picture, late), pixels64[0])
    for method in ("cam", "grad-cam"):
        with pytest.raises(
            InvalidInputError, match=r"'top_activation' called 2 times.*Explain the model that is"
        ):
            explain(keras.Model(picture, early), pixels64[0], method=method)


def test_grad_cam_asks_for_the_layer_when_features_of_several_scales_are_joined(
    tiny_variant: Any, pixels64: Any
) -> None:
    layers = keras.layers
    backbone = EfficientNet(tiny_variant, weights=None, include_top=False)
    side = layers.Conv2D(4, 3, name="side")(backbone.get_layer("block5a_project_bn").output)
    pooled = [layers.GlobalAveragePooling2D()(each) for each in (backbone.output, side)]
    model = keras.Model(backbone.input, layers.Dense(3)(layers.Concatenate(name="joined")(pooled)))
    with pytest.raises(InvalidInputError, match=r"Received: 'top_activation', 'side'.*layer= and 'grad-cam'"):
        explain(model, pixels64[0], method="grad-cam")
    assert grad_cam(model, pixels64[0], 0, layer="side").shape == (64, 64)
    shared = grad_cam(model, pixels64[0], 0, layer="block5a_project_bn")
    assert shared.max() == 1


def test_explain_of_a_single_sigmoid_has_two_classes(pixels64: Any) -> None:
    layers = keras.layers
    for head in ([layers.Dense(1, "sigmoid")], [layers.Dense(1), layers.Activation("sigmoid")]):
        body = [layers.Rescaling(1 / 255), layers.Conv2D(4, 3, strides=4), layers.GlobalAveragePooling2D()]
        model = keras.Sequential([keras.Input((64, 64, 3)), *body, *head])
        randomize(model)
        for bias, answer in ((-4.0, 0), (4.0, 1)):
            model.layers[3].bias.assign([bias])
            probability = float(outputs(model, pixels64[:1])[0, 0])
            assert (probability > 0.5) == bool(answer)
            sides = [explain(model, pixels64[0], index) for index in (0, 1)]
            assert explain(model, pixels64[0]).class_index == answer
            assert [side.output for side in sides] == pytest.approx([1 - probability, probability], abs=1e-6)
            np.testing.assert_allclose(sides[0].evidence, -sides[1].evidence, rtol=1e-6)
            assert sides[1].score == pytest.approx(np.log(probability / (1 - probability)), rel=1e-3)
            for side in sides:
                assert side.evidence.mean() + side.bias == pytest.approx(side.score, rel=1e-4, abs=1e-5)
                gradient = explain(model, pixels64[0], side.class_index, method="grad-cam")
                np.testing.assert_allclose(gradient.heat, side.heat, atol=1e-4)
            with pytest.raises(InvalidInputError, match="class_index between 0 and 1"):
                explain(model, pixels64[0], 2)


def test_explain_of_several_inputs_says_which_ones(tiny_variant: Any, pixels64: Any) -> None:
    backbone = EfficientNet(tiny_variant, weights=None, include_top=False, pooling="avg")
    age = keras.Input((1,), name="age")
    joined = keras.layers.Concatenate()([backbone.output, age])
    mixed = keras.layers.Dense(3, name="mixed")(joined)
    with pytest.raises(
        InvalidInputError, match=r"one input, the picture. Received: 2 inputs, .*'age' \[None, 1\]"
    ):
        explain(keras.Model([backbone.input, age], mixed), pixels64[0])
    seen = keras.layers.Dense(2, name="seen")(backbone.output)
    model = keras.Model([backbone.input, age], [mixed, seen])
    expected = explain(keras.Model(backbone.input, seen), pixels64[0])
    _same(explain(model, pixels64[0], output="seen"), expected)


def test_overlay_mixes_picture_and_colours(pixels64: Any) -> None:
    heat = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    np.testing.assert_array_equal(overlay(pixels64[0], heat, 0.0), pixels64[0])
    np.testing.assert_array_equal(overlay(pixels64[0], heat, 1.0), colorize(heat))
    half = (pixels64[0].astype(float) + colorize(heat)) / 2
    np.testing.assert_allclose(overlay(pixels64[0], heat), half, atol=0.51)
    brightness = colorize(heat).mean(axis=2).ravel()
    assert (np.diff(brightness) >= -1).all() and brightness[-1] > brightness[0] + 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: explain(m, x, 7), "class_index between 0 and 6. Received: 7"),
        (lambda m, x: explain(m, x, -1), "class_index between 0 and 6"),
        (lambda m, x: explain(m, x, method="lime"), "Expected method to be one of cam, grad-cam"),
        (lambda m, x: explain(m, x, layer="top_conv"), "Expected no layer for 'cam'"),
        (lambda m, x: grad_cam(m, x, layer="top_conf"), "Did you mean 'top_conv'"),
        (lambda m, x: grad_cam(m, x, layer="avg_pool"), "with a feature map as its output"),
        (lambda m, x: explain(m, x[:32]), r"Expected image of shape \[N, 64, 64, 3\]"),
        (lambda m, x: explain(m, np.stack([x, x])), "Expected one picture"),
        (lambda m, x: explain(m, x * np.float32("nan")), "NaN or infinity"),
        (lambda m, x: explain("b0", x), "Expected a classifier.*Received: str 'b0'"),
        (lambda m, x: explain(keras.Model(m.input, m.get_layer("top_conv").output), x), "include_top=True"),
        (lambda m, x: overlay(x, np.zeros((3, 3))), "picture .H, W, 3. of the map's size"),
        (lambda m, x: overlay(x, np.zeros((64, 64)), 2.0), "strength between 0 and 1"),
        (lambda m, x: colorize(np.zeros(3)), "Expected a map"),
    ],
)
def test_wrong_use_is_told_in_one_sentence(tiny: Any, pixels64: Any, call: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call(tiny, pixels64[0])


def test_cam_refuses_maximum_pooling(tiny_variant: Any, pixels64: Any) -> None:
    backbone = EfficientNet(tiny_variant, weights=None, include_top=False, pooling="max")
    model = keras.Model(backbone.input, keras.layers.Dense(2)(backbone.output))
    with pytest.raises(InvalidInputError, match=r"Expected global average pooling.*'max_pool'"):
        class_activation_map(model, pixels64[0])
    assert grad_cam(model, pixels64[0], 0).shape == (64, 64)
