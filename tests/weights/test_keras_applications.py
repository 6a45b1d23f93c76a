"""Round trips with keras.applications itself: its files, its outputs."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import keras_effnet
from keras_effnet.network.variants import VARIANTS
from keras_effnet.weights import facts, sources
from keras_effnet.weights.readers import open_checkpoint
from tests.material import outputs

SIZE = 64
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def randomize(model: Any, seed: int = 0) -> None:
    """Random weights and batch normalization statistics, tame enough for a deep network."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape[0]
            # quiet residual branches: fifty of them at full strength would amplify rounding a thousandfold
            strength = 0.3 if layer.name.endswith("project_bn") else 1.0
            layer.set_weights(
                [
                    rng.uniform(0.8, 1.2, size) * strength,
                    rng.uniform(-0.2, 0.2, size),
                    rng.uniform(-0.2, 0.2, size),
                    rng.uniform(0.5, 1.5, size),
                ]
            )
        elif getattr(layer, "bias", None) is not None:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.uniform(-0.5, 0.5, bias.shape)])


def their_model(variant: str, *, size: int = SIZE, **arguments: Any) -> Any:
    """keras.applications' model with the constants that its published files come with."""
    keras.utils.set_random_seed(3)  # its kernels come from Keras' own initializers
    constructor = getattr(keras.applications, f"EfficientNet{variant.upper()}")
    model = constructor(weights=None, input_shape=(size, size, 3), **arguments)
    set_constants(model, MEAN, np.square(STD))
    randomize(model)
    return model


def set_constants(model: Any, mean: Any, variance: Any) -> None:
    normalization = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    normalization.adapt_mean.assign(np.asarray(mean))
    normalization.adapt_variance.assign(np.asarray(variance))
    normalization.finalize_state()


def save(model: Any, path: Path) -> Path:
    """In the format that the name asks for; `.weights-only.h5` is that of the published files."""
    if path.name.endswith(".weights-only.h5"):
        from keras.src.legacy.saving import legacy_h5_format

        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
    elif path.name.endswith(".weights.h5"):
        model.save_weights(str(path))
    else:
        model.save(str(path))
    return path


ENDINGS = (".weights-only.h5", ".h5", ".weights.h5", ".keras")


def test_weights_saved_by_keras_applications_give_its_outputs(tmp_path: Path, pictures: np.ndarray) -> None:
    """In every format; of B2, in that of the published files, `test_builder.py` says it."""
    theirs = their_model("b0", classifier_activation=None)
    expected = outputs(theirs, pictures)
    ours = keras_effnet.EfficientNet(
        "b0", weights=None, input_shape=(SIZE, SIZE, 3), classifier_activation=None
    )
    for ending in ENDINGS:
        randomize(ours, seed=9)
        keras_effnet.load_weights(ours, save(theirs, tmp_path / f"b0{ending}"))
        np.testing.assert_allclose(outputs(ours, pictures), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected).max() > 0.1


def test_features_saved_by_keras_applications_give_its_outputs(tmp_path: Path, pictures: np.ndarray) -> None:
    theirs = their_model("b0", include_top=False)
    path = save(theirs, tmp_path / "b0_notop.weights-only.h5")
    ours = keras_effnet.EfficientNetB0(weights=path, include_top=False, input_shape=(SIZE, SIZE, 3))
    expected = outputs(theirs, pictures)
    np.testing.assert_allclose(outputs(ours, pictures), expected, rtol=1e-4, atol=1e-4)


def test_standard_deviation_in_the_variance_slot_of_a_published_file_changes_nothing(
    tmp_path: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = their_model("b0", classifier_activation=None)
    expected = outputs(theirs, pictures)
    set_constants(theirs, MEAN, STD)
    path = save(theirs, tmp_path / "b0.weights-only.h5")
    entry = sources.find_set("imagenet", VARIANTS["b0"])
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    published = replace(entry, sources=(replace(entry.sources[0], hash=f"md5:{digest}"),))
    monkeypatch.setattr(facts, "CATALOG", (published,))
    ours = keras_effnet.EfficientNetB0(weights=path, input_shape=(SIZE, SIZE, 3), classifier_activation=None)
    np.testing.assert_allclose(outputs(ours, pictures), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["b0", "b1", "lite0"])
def test_file_without_layer_names_is_read_by_order(tmp_path: Path, variant: str) -> None:
    model = keras_effnet.EfficientNet(variant, weights=None, classes=5)
    randomize(model)
    path = tmp_path / "early.weights.h5"
    model.save_weights(str(path))
    with h5py.File(path, "r+") as file:  # as Keras 3 wrote it before names were stored
        file["layers"].visititems(lambda _, group: group.attrs.pop("name", None))
    with open_checkpoint(path) as checkpoint:
        for layer in model.layers:
            found = checkpoint.layers.get(layer.name, {})
            assert [array.read().tolist() for array in found.values()] == [
                w.tolist() for w in layer.get_weights()
            ]


def test_weights_of_a_tf_keras_twin_load_in_both_directions(tmp_path: Path, pictures: np.ndarray) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    arguments: dict[str, Any] = {
        "weights": None,
        "input_shape": (SIZE, SIZE, 3),
        "classifier_activation": None,
    }
    ours = keras_effnet.EfficientNetB0(**arguments)
    randomize(ours)
    twin = keras_effnet.EfficientNetB0(**arguments, namespace=tf_keras)
    keras_effnet.load_weights(twin, save(ours, tmp_path / "ours.weights.h5"))
    expected = outputs(ours, pictures)
    np.testing.assert_allclose(outputs(twin, pictures), expected, rtol=1e-4, atol=1e-4)
    twin.save_weights(str(tmp_path / "twin.h5"))
    randomize(ours, seed=9)
    keras_effnet.load_weights(ours, tmp_path / "twin.h5")
    np.testing.assert_allclose(outputs(ours, pictures), expected, rtol=1e-4, atol=1e-4)
