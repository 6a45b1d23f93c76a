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
from material import randomize
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
    probabilities = model.predict(image[None], verbose=0)[0]
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
    best = int(tiny.predict(pixels64[:1], verbose=0).argmax())
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
