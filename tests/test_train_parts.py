"""A classifier in two parts computes what the whole does; what is the same in every epoch is computed once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import randomize, slim_variant
from PIL import Image

from keras_effnet import transfer
from keras_effnet.network.table import EFFICIENTNET_B0
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import read_listing
from keras_effnet.train import batches as feeding
from keras_effnet.train.batches import Augmentation, Course, evaluation_batches, shown_once, training_batches
from keras_effnet.train.parts import parts_of
from keras_effnet.train.splits import split_listing

PIXELS = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
ANSWERS = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]


@pytest.fixture(scope="module")
def model() -> Any:
    """Three stages with squeeze-and-excite: 3×3 and 5×5 kernels, of stride 1 and 2."""
    baseline = replace(EFFICIENTNET_B0, stages=EFFICIENTNET_B0.stages[:3])
    found = transfer.classifier(
        replace(slim_variant(), baseline=baseline), 3, weights=None, drop_connect_rate=0
    )
    randomize(found)
    return found


def _gradients(model: Any, pixels: Any) -> dict[int, Any]:
    import keras
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = keras.losses.categorical_crossentropy(ANSWERS, model(pixels, training=False))
    learning = model.trainable_variables
    slopes = tape.gradient(loss, [variable.value for variable in learning])
    return {id(variable): np.asarray(slope) for variable, slope in zip(learning, slopes, strict=True)}


@pytest.mark.parametrize("first", ["block2b", "block3b", "stem"])
def test_the_parts_of_a_classifier_learn_as_the_whole_does(model: Any, first: str) -> None:
    transfer.unfreeze(model, first)
    parts = parts_of(model)
    assert (parts.frozen is None) == (first == "stem")
    maps = PIXELS if parts.frozen is None else parts.frozen(PIXELS, training=False)
    expected = np.asarray(model(PIXELS, training=False))
    np.testing.assert_allclose(parts.learning(maps, training=False), expected, atol=1e-5)
    wanted, found = _gradients(model, PIXELS), _gradients(parts.learning, maps)
    assert set(found) == set(wanted)  # the classifier's own variables
    for key, slope in wanted.items():
        np.testing.assert_allclose(found[key], slope, atol=2e-4 * np.abs(slope).max())


def test_parts_of_unusual_convolutions_say_the_same() -> None:
    import keras

    layers = keras.layers
    image = keras.Input((32, 32, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, dilation_rate=2, use_bias=False)(image))
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x))
    x = layers.Dense(3, activation="softmax", name="predictions")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    randomize(model)
    for layer in model.layers[:-1]:
        layer.trainable = isinstance(layer, layers.Conv2D)  # the first learns: nothing is in front of it
    parts = parts_of(model)
    np.testing.assert_allclose(
        parts.learning(PIXELS, training=False), model(PIXELS, training=False), atol=1e-5
    )


def test_parts_leave_no_trace_in_the_classifier(model: Any) -> None:
    transfer.unfreeze(model, "block3a")
    before = {layer.name: len(layer._inbound_nodes) for layer in model.layers}
    parts_of(model)
    assert {layer.name: len(layer._inbound_nodes) for layer in model.layers} == before


@pytest.mark.parametrize(("limit", "passes"), [(1 << 20, 1), (0, 2)])
def test_photographs_are_read_once_where_they_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, passes: int
) -> None:
    for place in range(8):
        path = tmp_path / "ab"[place % 2] / f"{place}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (place, 0, 0)).save(path)
    listing = split_listing(read_listing(tmp_path), validation=0.25, test=0, seed=0)
    framing, read, plain = Framing("bilinear", 0), [], Framing.read

    def counted(self: Framing, source: Any, *rest: Any, **named: Any) -> Any:
        read.append(str(source))
        return plain(self, source, *rest, **named)

    monkeypatch.setattr(Framing, "read", counted)
    monkeypatch.setattr(feeding, "KEPT_BYTES", limit)
    given: dict[str, Any] = {"batch_size": 2, "seed": 0, "epochs": range(2)}
    training = training_batches(
        Course(listing), Augmentation(lambda *both: both), 32, framing, **given, shown=_red
    )
    seen = np.concatenate([np.asarray(red)[:, 0] for red, _ in training])
    assert len(read) == passes * len(listing.of("train"))
    assert sorted(seen) == sorted(2 * [int(Path(listing.files[index]).stem) for index in listing.of("train")])
    read.clear()
    checks = shown_once(
        evaluation_batches(listing, listing.of("validation"), 32, framing, batch_size=1), _red
    )
    first, second = ([float(np.asarray(red)[0, 0]) for red, _ in checks] for _ in range(2))
    assert first == second == [float(Path(listing.files[index]).stem) for index in listing.of("validation")]
    assert len(read) == passes * len(first)


def _red(pixels: Any) -> Any:
    import tensorflow as tf

    return tf.cast(pixels[:, 0, 0, :1], tf.float32)
