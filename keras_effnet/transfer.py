"""Transfer learning with plain Keras: a classifier on a pretrained backbone, frozen and unfrozen by blocks.

    model = transfer.classifier("lite0", ["cat", "dog"])   # backbone frozen, ready for the head
    model.compile(…); model.fit(…)
    transfer.unfreeze(model, "block5a")                     # then compile again: Keras reads it there
    model.compile(…); model.fit(…)

Everything here is a functional model of Keras' own layers, so it is saved, loaded, cloned and trained
like any other, also by a program that never imports this package.

Two facts of Keras that this module relies on. A `BatchNormalization` whose `trainable` is False runs in
inference mode whatever `training=` says: it neither uses nor updates batch statistics. And `trainable`
is read when the model is compiled, so compile after freezing or unfreezing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any

import keras

from keras_effnet.applications import EfficientNet
from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.arguments import check_activation, check_rate, is_whole
from keras_effnet.network.conventions import Preprocessing
from keras_effnet.network.table import stage_of
from keras_effnet.network.variants import Variant, get_variant
from keras_effnet.pictures.class_names import check_labels, labels_layer_name, labels_of
from keras_effnet.pictures.framing import CROP_MARGIN, framing_of, margin_layer_name

__all__ = ["blocks", "classifier", "freeze", "head_layers", "labels_of", "reset_classifier", "unfreeze"]

_BLOCK = re.compile(r"^(block\d+[a-z]+)_")
_STEM = ("rescaling", "stem_")
_TOP = "top_"
_HEAD = ("avg_pool", "top_dropout", "predictions")  # what `classifier` puts behind the backbone


def classifier(
    variant: str | Variant,
    classes: int | Sequence[str],
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    input_shape: tuple[int | None, ...] | None = None,
    dropout_rate: float | None = None,
    drop_connect_rate: float = 0.2,
    classifier_activation: Any = "softmax",
    preprocessing: Preprocessing | None = None,
    trainable_from: str | None = None,
    crop_margin: int = CROP_MARGIN,
    name: str | None = None,
) -> keras.Model:
    """A pretrained backbone with a new, zero-initialized head; the backbone is frozen.

    Args:
        variant: `"b0"` … `"lite4"`, or a `Variant`.
        classes: how many, or their names in the order of the outputs. Names stay with the model: they
            survive `model.save`, and every export carries them.
        weights: a published set, a file, or None for random weights (then nothing is frozen).
        input_shape: (H, W, C); default: the variant's resolution, 3 channels.
        dropout_rate: before the classifier, 0–1; None for the variant's own.
        drop_connect_rate: rate that drop-connect reaches at the last block, 0–1.
        classifier_activation: None for logits.
        preprocessing: as in `EfficientNet`.
        trainable_from: unfreeze from this block on, see `unfreeze`.
        crop_margin: pixels that photographs for this network lose, see `load_image`. It stays with the
            model too; `keras-effnet predict` and the SavedModel's `serve_bytes` read photographs by it.
        name: name of the model.

    Returns:
        A functional `keras.Model` from RGB pixels 0–255 `[N, H, W, C]` to probabilities
        `[N, classes]`. Its layers are `EfficientNet`'s, by the same names.

    Raises:
        InvalidInputError: fewer than two classes, names that repeat, or another argument that cannot
            be used.
        WeightsError: the weights are missing, damaged or of another network.
    """
    chosen = get_variant(variant)
    labels, count = _labels_and_count(classes)
    _check_head(classes, count, dropout_rate, classifier_activation)
    side = chosen.resolution
    backbone = EfficientNet(
        chosen,
        include_top=False,
        pooling="avg",
        weights=weights,
        input_shape=input_shape or (side, side, 3),
        drop_connect_rate=drop_connect_rate,
        preprocessing=preprocessing,
    )
    rate = chosen.dropout if dropout_rate is None else dropout_rate
    x = _head(backbone.output, count, rate, classifier_activation, labels, crop_margin)
    model = keras.Model(backbone.input, x, name=name or chosen.title.lower())
    if weights is not None:
        freeze(model)
    if trainable_from is not None:
        unfreeze(model, trainable_from)
    return model


def reset_classifier(
    model: keras.Model,
    classes: int | Sequence[str],
    *,
    dropout_rate: float | None = None,
    classifier_activation: Any = "softmax",
    name: str | None = None,
) -> keras.Model:
    """The backbone of a trained model with a new, zero-initialized head, as many classes as you like.

    For a file there is `classifier(variant, classes, weights=file)`.

    Args:
        model: an EfficientNet of this package, with or without a classifier. It stays as it is, but shares
            its backbone with the new model: training the one changes both.
        classes: how many, or their names in the order of the outputs, as in `classifier`.
        dropout_rate: before the classifier, 0–1; None for that of `model`.
        classifier_activation: None for logits.
        name: of the new model; None for that of `model`.

    Returns:
        A functional `keras.Model` from pixels to probabilities `[N, classes]`. What was frozen stays frozen.

    Raises:
        InvalidInputError: no EfficientNet, or one inside another model; or an argument that cannot be used.
    """
    ends = [layer for layer in model.layers if layer.name.endswith("top_activation")]
    if len(ends) != 1:
        raise InvalidInputError(
            f"Expected an EfficientNet, whose last convolution ends in 'top_activation'. Received: {model.name!r} with "
            f"{len(ends)} such layers. Pass the EfficientNet itself, for example model.get_layer('efficientnetb0')."
        )
    labels, count = _labels_and_count(classes)
    _check_head(classes, count, dropout_rate, classifier_activation)
    if dropout_rate is None:
        dropout_rate = next((layer.rate for layer in model.layers if layer.name.endswith("top_dropout")), 0.2)
    pooled = keras.layers.GlobalAveragePooling2D(name="avg_pool", data_format="channels_last")(ends[0].output)
    x = _head(pooled, count, dropout_rate, classifier_activation, labels, framing_of(model).margin)
    return keras.Model(model.input, x, name=name or model.name)


def _check_head(classes: Any, count: int, dropout_rate: float | None, activation: Any) -> None:
    if count < 2:
        raise InvalidInputError(
            f"Expected at least two classes to tell apart. Received: {classes!r}. "
            "Pass their number, or their names in the order of the outputs."
        )
    if dropout_rate is not None:
        check_rate("dropout_rate", dropout_rate)
    check_activation(activation, keras)


def _labels_and_count(classes: Any) -> tuple[tuple[str, ...] | None, int]:
    """The names, if that is what was given, and how many classes there are; 0 for no usable number."""
    if is_whole(classes):
        return None, int(classes)
    if isinstance(classes, Real):
        return None, 0
    labels = check_labels(classes)
    return labels, len(labels)


def _head(
    x: Any,
    classes: int,
    dropout_rate: float,
    activation: Any,
    labels: tuple[str, ...] | None,
    crop_margin: int,
) -> Any:
    layers = keras.layers
    if dropout_rate > 0:
        x = layers.Dropout(dropout_rate, name="top_dropout")(x)
    if labels is not None:
        # it computes nothing: its name is the one text that a plain Keras file keeps for us
        x = layers.Identity(name=labels_layer_name(labels))(x)
    if crop_margin != CROP_MARGIN:
        x = layers.Identity(name=margin_layer_name(crop_margin))(x)
    return layers.Dense(
        classes,
        activation=activation,
        # all classes equally probable: the first steps learn from the features, not from a random head
        kernel_initializer="zeros",
        dtype="float32",
        name="predictions",
    )(x)


def freeze(model: keras.Model) -> None:
    """Freeze the backbone: only the head stays trainable. Compile the model afterwards.

    Args:
        model: one of `classifier`, of `EfficientNet`, or any model that contains one.

    Raises:
        InvalidInputError: no EfficientNet in it.
    """
    blocks(model)
    for layer, block in _placed(model):
        layer.trainable = block is None


def unfreeze(model: keras.Model, from_block: str = "block5a") -> list[str]:
    """Make the network trainable from one block on, and freeze what comes before it. Compile afterwards.

    A block is frozen or unfrozen as a whole: its shortcut ties its first layer to its last. Batch
    normalization stays frozen everywhere, statistics and scale: a few hundred photographs estimate
    the statistics worse than the training on a million did.

    Args:
        model: as in `freeze`.
        from_block: a block (`"block5a"`), a stage (`"block5"`), `"top"` for the last convolution
            alone, or `"stem"` for everything.

    Returns:
        The names of the blocks that are trainable now, in order; `"stem"` and `"top"` count as blocks.

    Raises:
        InvalidInputError: no such block, or no EfficientNet in the model.
    """
    order = blocks(model)
    first = next((name for name in order if name == from_block or _stage(name) == from_block), None)
    if first is None:
        raise unknown_name("from_block", from_block, order)
    chosen = order[order.index(first) :]
    for layer, block in _placed(model):
        normalizes = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = block is None or (block in chosen and not normalizes)
    return chosen


def blocks(model: keras.Model) -> list[str]:
    """The names of a model's blocks from input to output, `"stem"` first and `"top"` last.

    Raises:
        InvalidInputError: no EfficientNet in the model.
    """
    found = list(dict.fromkeys(block for _, block in _placed(model) if block is not None))
    if "stem" not in found or not any(_BLOCK.match(f"{name}_") for name in found):
        raise InvalidInputError(
            f"Expected a model with an EfficientNet in it. Received: {model.name!r}, which has no layers "
            "called stem_conv and block1a_…. Build it with keras_effnet.transfer.classifier."
        )
    return found


def head_layers(model: keras.Model) -> list[str]:
    """The names of the layers behind the backbone: the head."""
    return [layer.name for layer, block in _placed(model) if block is None]


def _stage(block: str) -> str:
    return stage_of(block) if block.startswith("block") else block


def _placed(model: Any) -> Iterator[tuple[Any, str | None]]:
    """Every layer with the block it belongs to; None for the head and for layers that are not ours.

    Models nested in `model` are unpacked; they themselves must be trainable, or Keras would keep all
    that is in them frozen.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            layer.trainable = True
            yield from _placed(layer)
            continue
        match = _BLOCK.match(layer.name)
        if match:
            yield layer, match[1]
        elif layer.name.startswith(_STEM):
            yield layer, "stem"
        elif layer.name.startswith(_TOP) and layer.name not in _HEAD:
            yield layer, "top"
        else:
            yield layer, None
