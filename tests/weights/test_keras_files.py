"""Keras files of people: the network says what happened to a pixel, and a backbone may lie inside another network.

The reference is always the model that wrote the file: its probabilities, its features.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.applications import efficientnet as theirs

import keras_effnet
from keras_effnet import EfficientNet, EfficientNetB0
from keras_effnet.errors import EffNetWarning, InvalidInputError, WeightsError
from keras_effnet.network.conventions import CONVENTIONS
from keras_effnet.weights import facts
from keras_effnet.weights.convert import convert
from tests.material import outputs
from tests.weights.test_keras_applications import ENDINGS, randomize, save, set_constants

SIZE = 64
STD = np.array([0.229, 0.224, 0.225])
IMAGENET = ([0.485, 0.456, 0.406], STD**2)
NEVER_ADAPTED = ([0.0] * 3, np.ones(3))
ADAPTED = ([0.31, 0.42, 0.27], np.array([0.04, 0.09, 0.0625]))
TRAP = ([0.485, 0.456, 0.406], STD)
WEIGHTS_ONLY = (".weights-only.h5", ".weights.h5")
WHOLE = (".h5", ".keras")


def their_network(**arguments: Any) -> Any:
    """The code of keras.applications at the scale of the tiny variant."""
    keras.utils.set_random_seed(3)
    options = {"weights": None, "classes": 5, "input_shape": (SIZE, SIZE, 3), "dropout_rate": 0.1} | arguments
    return theirs.EfficientNet(0.25, 0.3, SIZE, name="efficientnetb0", weights_name="b0", **options)


@pytest.fixture(scope="module")
def trained() -> Any:
    """A network of keras.applications with five classes, trained from scratch as far as a test can see."""
    model = their_network()
    randomize(model)
    return model


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same behind `weights="imagenet"`: with the extra Rescaling, from a file like the published ones."""
    published = their_network(classes=1000)
    randomize(published)
    set_constants(published, *TRAP)
    path = save(published, tmp_path_factory.mktemp("published") / "published.weights-only.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs.file_utils, "get_file", lambda *_, **__: str(path))
        return their_network(weights="imagenet", classes=1000)


def assert_same(model: Any, reference: Any, pictures: np.ndarray) -> None:
    built, wanted = (facts.built_with(each)["preprocessing"] for each in (model, reference))
    if built is not None and wanted is not None:  # a fresh network's outputs hardly depend on it
        assert built.same_as(wanted)
    np.testing.assert_allclose(outputs(model, pictures), outputs(reference, pictures), rtol=1e-3, atol=1e-5)


def pasted(message: str) -> list[Any]:
    """The values behind each `preprocessing=` of a message, as if typed by its reader."""
    return [eval(text) for text in re.findall(r"preprocessing=('\w+'|\(\(.*?\), \(.*?\)\))", message)]


@pytest.mark.parametrize(
    ("constants", "ending"),
    [*((NEVER_ADAPTED, ending) for ending in ENDINGS), (ADAPTED, ".keras"), (ADAPTED, ".weights.h5")],
    ids=lambda value: value if isinstance(value, str) else "adapted" if value is ADAPTED else "never adapted",
)
def test_file_of_keras_applications_gives_its_networks_probabilities(
    tmp_path: Path, tiny_variant: Any, trained: Any, pictures: np.ndarray, constants: Any, ending: str
) -> None:
    set_constants(trained, *constants)
    path = save(trained, tmp_path / f"k{ending}")
    assert_same(EfficientNet(tiny_variant, weights=path, classes=5), trained, pictures)


def test_b0_trained_from_scratch_in_keras_applications_gives_its_probabilities(
    tmp_path: Path, pictures: np.ndarray
) -> None:
    model = keras.applications.EfficientNetB0(weights=None, classes=5, input_shape=(SIZE, SIZE, 3))
    randomize(model)
    model.save(tmp_path / "k.keras")
    ours = EfficientNetB0(weights=tmp_path / "k.keras", classes=5, input_shape=(SIZE, SIZE, 3))
    assert_same(ours, model, pictures)
    assert facts.built_with(ours)["preprocessing"] == CONVENTIONS["unit"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_file_saved_behind_imagenets_weights_gives_its_networks_probabilities(
    tmp_path: Path, tiny_variant: Any, finetuned: Any, pictures: np.ndarray, ending: str
) -> None:
    ours = EfficientNet(tiny_variant, weights=save(finetuned, tmp_path / f"k{ending}"))
    assert_same(ours, finetuned, pictures)
    assert facts.built_with(ours)["preprocessing"] == CONVENTIONS["imagenet"]


def test_file_of_tf_keras_gives_its_networks_probabilities(
    tmp_path: Path, tiny_variant: Any, pictures: np.ndarray
) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    shape = (SIZE, SIZE, 3)
    build = importlib.import_module("tf_keras.src.applications.efficientnet").EfficientNet
    model = build(0.25, 0.3, SIZE, dropout_rate=0.1, weights=None, classes=5, input_shape=shape)
    backbone = tf_keras.Model(model.input, model.get_layer("avg_pool").output)
    around = tf_keras.Sequential(
        [tf_keras.Input(shape), tf_keras.layers.RandomFlip(), backbone, tf_keras.layers.Dense(2)]
    )
    model.save(tmp_path / "plain.h5")
    around.save(tmp_path / "around.h5")
    assert_same(EfficientNet(tiny_variant, weights=tmp_path / "plain.h5", classes=5), model, pictures)
    ours = EfficientNet(tiny_variant, weights=tmp_path / "around.h5", include_top=False, pooling="avg")
    assert_same(ours, backbone, pictures)


@pytest.mark.parametrize("ending", WHOLE)
def test_whole_model_of_tensorflow_2_9_gives_its_networks_probabilities(
    tmp_path: Path, tiny_variant: Any, trained: Any, pictures: np.ndarray, ending: str
) -> None:
    set_constants(trained, *TRAP)
    path = save(trained, tmp_path / f"old{ending}")
    assert_same(EfficientNet(tiny_variant, weights=path, classes=5), trained, pictures)


@pytest.mark.parametrize("ending", WEIGHTS_ONLY)
def test_weights_alone_of_tensorflow_2_9_ask_which_preprocessing_they_need(
    tmp_path: Path, tiny_variant: Any, trained: Any, pictures: np.ndarray, ending: str
) -> None:
    set_constants(trained, *TRAP)
    path = save(trained, tmp_path / f"old{ending}")
    with pytest.raises(WeightsError, match="standard deviation where a variance belongs") as caught:
        EfficientNet(tiny_variant, weights=path, classes=5)
    assert "\n" not in str(caught.value)
    name, as_it_stands = pasted(str(caught.value))
    assert name == "imagenet"
    ours = EfficientNet(tiny_variant, weights=path, classes=5, preprocessing=as_it_stands)
    assert_same(ours, trained, pictures)
    repaired = EfficientNet(tiny_variant, weights=path, classes=5, preprocessing="imagenet")
    set_constants(trained, *IMAGENET)
    assert_same(repaired, trained, pictures)


def test_model_with_other_preprocessing_than_the_files_is_refused_with_the_argument(
    tmp_path: Path, tiny: Any, tiny_variant: Any, trained: Any
) -> None:
    set_constants(trained, *NEVER_ADAPTED)
    path = save(trained, tmp_path / "k.keras")
    with pytest.raises(
        WeightsError, match=r"built with preprocessing='unit'.*Received one with .*'imagenet'"
    ):
        keras_effnet.load_weights(tiny, path)
    with pytest.raises(InvalidInputError, match=r"Build the model with preprocessing='unit'"):
        EfficientNet(tiny_variant, weights=path, classes=5, preprocessing="imagenet")


@pytest.mark.parametrize(
    ("preprocessing", "ending"),
    [
        ("unit", ".h5"),
        ("advprop", ".keras"),
        (((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)), ".keras"),
        ((0.5, 0.25), ".h5"),
    ],
    ids=str,
)
def test_whole_model_of_ours_brings_its_preprocessing_along(
    tmp_path: Path, tiny_variant: Any, pictures: np.ndarray, preprocessing: Any, ending: str
) -> None:
    model = EfficientNet(tiny_variant, weights=None, classes=5, preprocessing=preprocessing)
    path = save(model, tmp_path / f"ours{ending}")
    assert_same(EfficientNet(tiny_variant, weights=path, classes=5), model, pictures)
    assert_same(keras.saving.load_model(path, compile=False), model, pictures)


@pytest.mark.parametrize("preprocessing", ["imagenet", "advprop", "unit"])
@pytest.mark.parametrize("ending", WEIGHTS_ONLY)
def test_weights_alone_of_ours_bring_a_named_preprocessing_along_without_a_word(
    tmp_path: Path, tiny_variant: Any, pictures: np.ndarray, preprocessing: str, ending: str
) -> None:
    model = EfficientNet(tiny_variant, weights=None, classes=5, preprocessing=preprocessing)
    path = save(model, tmp_path / f"ours{ending}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", EffNetWarning)
        assert_same(EfficientNet(tiny_variant, weights=path, classes=5), model, pictures)
        EfficientNet(tiny_variant, weights=path, classes=5, include_preprocessing=False)


@pytest.mark.parametrize("ending", WEIGHTS_ONLY)
def test_weights_alone_of_ours_ask_for_constants_of_ones_own(
    tmp_path: Path, tiny_variant: Any, pictures: np.ndarray, ending: str
) -> None:
    own = EfficientNet(tiny_variant, weights=None, classes=5, preprocessing=(0.4, 0.2))
    path = save(own, tmp_path / f"own{ending}")
    with pytest.raises(
        WeightsError, match=r"not the constants of its Rescaling\. Pass preprocessing= as one of"
    ):
        EfficientNet(tiny_variant, weights=path, classes=5)
    ours = EfficientNet(tiny_variant, weights=path, classes=5, preprocessing=(0.4, 0.2))
    assert_same(ours, own, pictures)


def test_weights_alone_of_b8_that_may_be_of_either_say_what_is_assumed(
    tmp_path: Path, tiny_variant: Any
) -> None:
    EfficientNet(tiny_variant, weights=None, classes=5).save_weights(tmp_path / "ours.weights.h5")
    b8 = dataclasses.replace(tiny_variant, name="b8")
    with pytest.warns(EffNetWarning, match=r"'advprop' is assumed\. Pass preprocessing='advprop' to say so"):
        EfficientNet(b8, weights=tmp_path / "ours.weights.h5", classes=5)


@pytest.mark.parametrize("ending", WEIGHTS_ONLY)
def test_weights_alone_behind_a_layer_of_ones_own_ask_for_the_preprocessing(
    tmp_path: Path, tiny_variant: Any, ending: str
) -> None:
    """Two Rescaling layers: such are in keras.applications' networks behind ImageNet's weights, too."""
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(keras.Input((SIZE, SIZE, 3)))
    theirs_behind = their_network(input_tensor=x)
    path = save(theirs_behind, tmp_path / f"theirs{ending}")
    with pytest.raises(WeightsError, match="not the constants of the layers that scale its pixels"):
        EfficientNet(tiny_variant, weights=path, classes=5)
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(keras.Input((SIZE, SIZE, 3)))
    ours = EfficientNet(tiny_variant, weights=None, classes=5, input_tensor=x, include_preprocessing=False)
    path = save(ours, tmp_path / f"ours{ending}")
    with pytest.raises(WeightsError, match="not the constants of its Rescaling"):
        EfficientNet(tiny_variant, weights=path, classes=5)


@pytest.mark.parametrize(
    ("preprocessing", "ending"),
    [("unit", ".weights.h5"), (((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)), ".safetensors")],
    ids=["unit", "own"],
)
def test_converted_file_brings_its_preprocessing_along(
    tmp_path: Path, pictures: np.ndarray, preprocessing: Any, ending: str
) -> None:
    options: dict[str, Any] = {"include_top": False, "pooling": "avg", "input_shape": (SIZE, SIZE, 3)}
    model = keras_effnet.EfficientNetLite0(weights=None, preprocessing=preprocessing, **options)
    model.save(tmp_path / "ours.keras")
    path = convert(tmp_path / "ours.keras", tmp_path / f"converted{ending}")
    assert_same(keras_effnet.EfficientNetLite0(weights=path, **options), model, pictures)


def test_padding_and_epsilon_of_a_whole_model_are_taken_over(tmp_path: Path, tiny_variant: Any) -> None:
    flags: dict[str, Any] = {"padding": "symmetric", "epsilon": 1e-5}
    EfficientNet(tiny_variant, weights=None, classes=5, **flags).save(tmp_path / "ours.keras")
    again = EfficientNet(tiny_variant, weights=tmp_path / "ours.keras", classes=5)
    assert {key: facts.built_with(again)[key] for key in flags} == flags
    with pytest.raises(InvalidInputError, match=r"Build the model with padding='symmetric', epsilon=1e-05\."):
        EfficientNet(tiny_variant, weights=tmp_path / "ours.keras", classes=5, padding="same", epsilon=1e-3)


def test_rescaling_around_the_network_counts(tmp_path: Path, tiny_variant: Any, pictures: np.ndarray) -> None:
    inner = EfficientNet(
        tiny_variant, weights=None, include_top=False, pooling="avg", include_preprocessing=False
    )
    layers = [
        keras.Input((SIZE, SIZE, 3)),
        keras.layers.RandomFlip(),
        keras.layers.Rescaling(1 / 127.5, -1.0),
    ]
    model = keras.Sequential([*layers, inner, keras.layers.Dense(3)])
    for ending in WHOLE:
        path = save(model, tmp_path / f"around{ending}")
        ours = EfficientNet(tiny_variant, weights=path, include_top=False, pooling="avg")
        assert_same(ours, keras.Sequential(model.layers[:-1]), pictures)
    model.save_weights(tmp_path / "around.weights.h5")
    with pytest.raises(WeightsError, match="not the constants of the layers that scale its pixels"):
        EfficientNet(tiny_variant, weights=tmp_path / "around.weights.h5", include_top=False)


def test_layer_in_front_that_does_more_than_scale_is_named(tmp_path: Path, tiny_variant: Any) -> None:
    inputs = keras.Input((SIZE, SIZE, 1))
    inner = EfficientNet(tiny_variant, weights=None, include_top=False)
    model = keras.Model(inputs, inner(keras.layers.Conv2D(3, 1)(inputs)))
    model.save(tmp_path / "gray.keras")
    with pytest.raises(WeightsError, match="a layer of the class 'Conv2D' in front of 'stem_conv'"):
        EfficientNet(tiny_variant, weights=tmp_path / "gray.keras", include_top=False)


# Networks around a backbone


def as_in_the_guide(flat: bool) -> tuple[Any, Any]:
    """A fine-tuned network as Keras' guide builds it, and its features."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.RandomFlip("horizontal")(inputs)
    placed = {"input_tensor": x} if flat else {}
    backbone = their_network(include_top=False, **placed)
    randomize(backbone)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(backbone.output if flat else backbone(x))
    features = keras.Model(inputs, x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dense(3, activation="softmax", name="pred")(keras.layers.Dropout(0.2)(x))
    return keras.Model(inputs, x), features


def nested_twice() -> tuple[Any, Any]:
    """A Sequential in a Sequential, with augmentation as a model of its own."""
    augment = keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1)], name="augment")
    backbone = their_network(include_top=False, pooling="avg")
    randomize(backbone)
    body = keras.Sequential([keras.Input((SIZE, SIZE, 3)), augment, backbone], name="body")
    head = keras.Sequential([keras.Input(backbone.output_shape[1:]), keras.layers.Dense(3)], name="head")
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), body, head]), body


AROUND: dict[str, tuple[Callable[[], tuple[Any, Any]], tuple[str, str]]] = {
    "flat": (lambda: as_in_the_guide(True), (".keras", ".h5")),
    "nested": (lambda: as_in_the_guide(False), (".h5", ".weights.h5")),
    "twice": (nested_twice, (".h5", ".keras")),
}


@pytest.mark.parametrize("kind", AROUND)
def test_backbone_is_found_inside_a_finetuned_network(
    tmp_path: Path, tiny_variant: Any, pictures: np.ndarray, kind: str
) -> None:
    build, endings = AROUND[kind]
    model, features = build()
    for ending in endings:
        path = save(model, tmp_path / f"guide{ending}")
        ours = EfficientNet(tiny_variant, weights=path, include_top=False, pooling="avg")
        assert_same(ours, features, pictures)
        with pytest.raises(
            WeightsError, match=r"layers of its own: .*Take its backbone, with include_top=False"
        ):
            EfficientNet(tiny_variant, weights=path, classes=3)


def test_prefix_of_the_layers_is_no_part_of_the_weights(
    tmp_path: Path, tiny_variant: Any, pictures: np.ndarray
) -> None:
    inputs = keras.Input((SIZE, SIZE, 3))
    options: dict[str, Any] = {"include_top": False, "pooling": "avg"}
    left, right = (
        EfficientNet(
            tiny_variant, weights=None, input_tensor=inputs, prefix=prefix, preprocessing="unit", **options
        )
        for prefix in ("left_", "right_")
    )
    left.save_weights(tmp_path / "left.weights.h5")
    assert_same(EfficientNet(tiny_variant, weights=tmp_path / "left.weights.h5", **options), left, pictures)
    keras_effnet.load_weights(right, tmp_path / "left.weights.h5")
    assert_same(right, left, pictures)
    both = keras.layers.Concatenate()([left.output, right.output])
    keras.Model(inputs, both).save(tmp_path / "both.keras")
    with pytest.raises(
        WeightsError, match=r"Received 2, whose layers begin with '(left_', 'right_|right_', 'left_)'"
    ):
        EfficientNet(tiny_variant, weights=tmp_path / "both.keras", **options)


def test_another_network_is_called_so(tmp_path: Path) -> None:
    keras.applications.MobileNet(weights=None, alpha=0.25, input_shape=(32, 32, 3)).save(tmp_path / "m.keras")
    with pytest.raises(
        WeightsError, match=r"Expected an EfficientNet inside .*m\.keras.*Received layers like 'conv"
    ):
        EfficientNetB0(weights=tmp_path / "m.keras", preprocessing="imagenet")


@pytest.mark.parametrize(
    ("author", "ending"), [("ours", ".keras"), ("ours", ".weights.h5"), ("theirs", ".h5")]
)
def test_bfloat16_file_gives_its_networks_probabilities(
    tmp_path: Path, tiny_variant: Any, pictures: np.ndarray, author: str, ending: str
) -> None:
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = EfficientNet(tiny_variant, weights=None, classes=5) if author == "ours" else their_network()
        path = save(model, tmp_path / f"half{ending}")
    finally:
        keras.config.set_dtype_policy("float32")
    ours = EfficientNet(
        tiny_variant, weights=path, classes=5, **({} if author == "theirs" else {"preprocessing": "imagenet"})
    )
    kernel = np.asarray(model.get_layer("stem_conv").kernel, np.float32)
    assert np.array_equal(ours.get_layer("stem_conv").get_weights()[0], kernel)
    np.testing.assert_allclose(
        outputs(ours, pictures), np.asarray(outputs(model, pictures), np.float32), atol=0.03
    )


def test_efficientnet_v2_is_called_so(tmp_path: Path) -> None:
    theirs = keras.applications.EfficientNetV2B0(weights=None, include_top=False, input_shape=(32, 32, 3))
    for ending in (".weights.h5", ".keras"):
        path = save(theirs, tmp_path / f"v2{ending}")
        with pytest.raises(WeightsError, match="Received an EfficientNetV2, another network"):
            EfficientNetB0(weights=path, include_top=False, preprocessing="imagenet")
        with pytest.raises(WeightsError, match="Received an EfficientNetV2, another network"):
            convert(path, tmp_path / "v2.safetensors")
