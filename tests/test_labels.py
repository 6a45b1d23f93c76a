"""Whose names a model's classes get: its own, ImageNet's only for ImageNet's classifier, else numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_effnet import EfficientNetLite0, decode_predictions, export, transfer
from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.labels import both_sides, imagenet_labels, known_labels, labels_of


def _small(*head: Any) -> Any:
    """A picture of 32 px, three channels on average, and a head."""
    body = [keras.Input((32, 32, 3)), keras.layers.Rescaling(1 / 255), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([*body, *head])


def test_imagenet_classifiers_have_imagenets_names(tmp_path: Path) -> None:
    ours = EfficientNetLite0(weights=None, name="student")
    assert known_labels(ours) == imagenet_labels()
    ours.save(tmp_path / "m.keras")
    assert known_labels(keras.saving.load_model(tmp_path / "m.keras")) == imagenet_labels()
    assert known_labels(keras.applications.MobileNet(weights=None, alpha=0.25)) == imagenet_labels()


@pytest.mark.parametrize(
    "head",
    [
        (keras.layers.Dense(1000, name="embedding"),),
        (keras.layers.Dense(1000, "softmax", name="products"),),
        (keras.layers.Dense(1000, "softmax", name="predictions"),),
        (keras.layers.Dense(1000, name="predictions"),),
    ],
    ids=["embedding", "softmax", "by its name", "logits"],
)
def test_a_thousand_outputs_of_ones_own_have_no_names(head: Any) -> None:
    """Before, the number alone made them ImageNet's."""
    assert known_labels(_small(*head)) is None


def test_a_thousand_classes_of_a_transfer_classifier_have_no_names() -> None:
    assert known_labels(transfer.classifier("lite0", 1000, weights=None)) is None
    assert known_labels(EfficientNetLite0(weights=None, classifier_activation=None)) is None


def test_exports_of_an_embedding_carry_no_names(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    path = export.to_tflite(_small(keras.layers.Dense(1000)), tmp_path / "m.tflite")
    assert export.load(path).labels == ()


def test_labels_of_a_classifier_inside_another_model_are_found(tiny_variant: Any) -> None:
    inner = transfer.classifier(tiny_variant, ["cat", "dog"], weights=None)
    outer = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.RandomFlip(seed=1), inner])
    assert labels_of(outer) == known_labels(outer) == ("cat", "dog")


def test_decode_predictions_takes_labels_of_ones_own() -> None:
    scores = [[0.2, 0.7, 0.1], [0.5, 0.1, 0.4]]
    decoded = decode_predictions(scores, top=2, labels=["cat", "dog", "fox"])
    assert decoded == [[("", "dog", 0.7), ("", "cat", 0.2)], [("", "cat", 0.5), ("", "fox", 0.4)]]
    assert len(decode_predictions(scores, labels=["cat", "dog", "fox"])[0]) == 3
    with pytest.raises(
        InvalidInputError, match=r"shape \[N, 2\]. Received \[2, 3\]. Pass one label for each"
    ):
        decode_predictions(scores, labels=["cat", "dog"])


def test_decode_predictions_names_the_first_of_equal_classes_first() -> None:
    (decoded,) = decode_predictions([[0.1, 0.3, 0.3, 0.0, 0.3]], labels=list("abcde"))
    assert [guess[1] for guess in decoded] == ["b", "c", "e", "a", "d"]


def test_decode_predictions_of_a_single_sigmoid_names_either_class() -> None:
    decoded = decode_predictions([[0.25], [0.75]], labels=["cat", "dog"])
    assert [row[0][1:] for row in decoded] == [("cat", 0.75), ("dog", 0.75)]
    np.testing.assert_array_equal(both_sides(np.array([[0.25]]), 2), [[0.75, 0.25]])
    np.testing.assert_array_equal(both_sides(np.array([[0.25, 0.75]]), 2), [[0.25, 0.75]])
