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
from dataclasses import dataclass
from numbers import Real
from typing import Any

import keras

from keras_effnet.applications import EfficientNet
from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.builder import check_activation, check_rate, is_whole
from keras_effnet.network.conventions import Preprocessing
from keras_effnet.network.table import stage_of
from keras_effnet.network.variants import STEM_LAYER, Variant, get_variant
from keras_effnet.pictures.framing import CROP_MARGIN, framing_of, margin_layer_name
from keras_effnet.pictures.labels import check_labels, labels_layer_name, labels_of
from keras_effnet.pictures.thresholds import thresholds_of
from keras_effnet.transfer.resolution import fix_resolution
from keras_effnet.transfer.temperature import scale_temperature, with_thresholds

__all__ = [
    "blocks",
    "classifier",
    "fix_resolution",
    "freeze",
    "labels_of",
    "reset_classifier",
    "scale_temperature",
    "thresholds_of",
    "unfreeze",
    "with_thresholds",
]


def __dir__() -> list[str]:
    return __all__


_PART = re.compile(
    r"(?P<block>block\d+[a-z]+)_(expand_conv|expand_bn|expand_activation|dwconv_pad|dwconv|bn|activation|"
    r"se_[a-z]+|project_conv|project_bn|drop|add)"
    r"|(?P<end>stem|top)_(conv_pad|conv|bn|activation)"
)


def classifier(
    variant: str | Variant,
    classes: int | Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    weights: str | os.PathLike[str] | None = "imagenet",
    input_shape: tuple[int | None, ...] | None = None,
    dropout_rate: float | None = None,
    drop_connect_rate: float = 0.2,
    classifier_activation: Any = "auto",
    preprocessing: Preprocessing | None = None,
    trainable_from: str | None = None,
    crop_margin: int = CROP_MARGIN,
    name: str | None = None,
) -> keras.Model:
    """A pretrained backbone with a new, zero-initialized head; the backbone is frozen.

    Args:
        variant: `"b0"` … `"lite4"`, or a `Variant`.
        classes: how many, or their names in the order of the outputs. Names stay with the model: they
            survive `model.save`, and every export carries them. 1 makes a single sigmoid that decides
            between two classes: 0 for the first, 1 for the second, as `label_mode="binary"` of
            `keras.utils.image_dataset_from_directory` numbers them. It is fitted with
            `binary_crossentropy`; everything else goes with `sparse_categorical_crossentropy` (class
            numbers) or `categorical_crossentropy` (one-hot).
        labels: class names where `classes` is a number; two for the single sigmoid.
        weights: a published set, a file, or None for random weights (then nothing is frozen).
        input_shape: (H, W, C); default: the variant's resolution, 3 channels.
        dropout_rate: before the classifier, 0–1; None for the variant's own.
        drop_connect_rate: rate that drop-connect reaches at the last block, 0–1.
        classifier_activation: `"auto"` for softmax, or sigmoid where there is one output; None for
            logits.
        preprocessing: as in `EfficientNet`.
        trainable_from: unfreeze from this block on, see `unfreeze`.
        crop_margin: pixels that photographs for this network lose, see `load_image`. It stays with the
            model too; `keras-effnet predict` and the SavedModel's `serve_bytes` read photographs by it.
        name: name of the model.

    Returns:
        A functional `keras.Model` from RGB pixels 0–255 `[N, H, W, C]` to probabilities
        `[N, classes]`. Its layers are `EfficientNet`'s, by the same names.

    Raises:
        InvalidInputError: classes that cannot be told apart, names that repeat or of another number, or
            another argument that cannot be used.
        WeightsError: the weights are missing, damaged or of another network.
    """
    chosen = get_variant(variant)
    names, count = _names_and_outputs(classes, labels)
    activation = _activation(classifier_activation, count)
    rate = chosen.dropout if dropout_rate is None else dropout_rate
    check_rate("dropout_rate", rate)
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
    x = _head(backbone.output, count, rate, activation, names, crop_margin)
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
    labels: Sequence[str] | None = None,
    dropout_rate: float | None = None,
    classifier_activation: Any = "auto",
    name: str | None = None,
) -> keras.Model:
    """The backbone of a trained model with a new, zero-initialized head, as many classes as you like.

    For a file there is `classifier(variant, classes, weights=file)`.

    Args:
        model: an EfficientNet of this package, with or without a classifier. It stays as it is, but shares
            its backbone with the new model: training the one changes both.
        classes, labels: as in `classifier`.
        dropout_rate: before the classifier, 0–1; None for that of `model`.
        classifier_activation: as in `classifier`.
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
    names, count = _names_and_outputs(classes, labels)
    activation = _activation(classifier_activation, count)
    if dropout_rate is None:
        dropout_rate = next((layer.rate for layer in model.layers if layer.name.endswith("top_dropout")), 0.2)
    check_rate("dropout_rate", dropout_rate)
    pooled = keras.layers.GlobalAveragePooling2D(name="avg_pool", data_format="channels_last")(ends[0].output)
    x = _head(pooled, count, dropout_rate, activation, names, framing_of(model).margin)
    return keras.Model(model.input, x, name=name or model.name)


def _names_and_outputs(classes: Any, labels: Any) -> tuple[tuple[str, ...] | None, int]:
    """The class names, if anybody gave them, and how many outputs there are."""
    given = check_labels(classes) if not isinstance(classes, Real) else None
    if given is not None and labels is not None:
        raise InvalidInputError(
            f"Expected labels only where classes is a number. Received: classes={list(given)!r} and labels="
            f"{labels!r}. Leave one out."
        )
    outputs = len(given) if given is not None else int(classes) if is_whole(classes) else 0
    if outputs < (1 if given is None else 2):
        raise InvalidInputError(
            f"Expected at least two classes to tell apart. Received: {classes!r}. "
            "Pass their names in the order of the outputs, or their number; 1 for a single sigmoid."
        )
    names = given if labels is None else check_labels(labels)
    expected = max(outputs, 2)  # a single sigmoid decides between two
    if names is not None and len(names) != expected:
        raise InvalidInputError(
            f"Expected {expected} labels for classes={classes!r}. Received: {len(names)}. Pass one name per class."
        )
    return names, outputs


def _activation(wanted: Any, outputs: int) -> Any:
    if isinstance(wanted, str) and wanted == "auto":
        return "softmax" if outputs > 1 else "sigmoid"
    check_activation(wanted, keras)
    if outputs == 1 and keras.activations.get(wanted) is keras.activations.softmax:
        raise InvalidInputError(
            "Expected another activation than softmax for one output, which would be 1 for every picture. "
            "Received: 'softmax'. Leave it out for a sigmoid, or pass classes=2."
        )
    return wanted


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


@dataclass(frozen=True, kw_only=True)
class _Backbone:
    """An EfficientNet that was found in a model.

    Attributes:
        containers: the models that it lies in, from the outermost one to the one that has its layers.
        name: of the innermost one, for messages.
        placed: each of its layers with its block; `"stem"` and `"top"` count as blocks.
    """

    containers: tuple[Any, ...]
    name: str
    placed: tuple[tuple[Any, str], ...]

    @property
    def blocks(self) -> list[str]:
        return list(dict.fromkeys(block for _, block in self.placed))


def freeze(model: keras.Model) -> None:
    """Freeze the EfficientNet in a model. Compile the model afterwards.

    Layers that are not the EfficientNet's stay as they are: the head that `classifier` put on it is
    trainable, a second network beside it or a layer that somebody froze is not.

    Args:
        model: one of `classifier`, of `EfficientNet`, or any model that contains one.

    Raises:
        InvalidInputError: no EfficientNet in it, or several that could be meant.
    """
    for layer, _ in _backbone(model).placed:
        layer.trainable = False


def unfreeze(model: keras.Model, from_block: str = "block5a") -> list[str]:
    """Make the network trainable from one block on, and freeze what comes before it. Compile afterwards.

    A block is frozen or unfrozen as a whole: its shortcut ties its first layer to its last. Batch
    normalization stays frozen everywhere, statistics and scale: a few hundred photographs estimate
    the statistics worse than the training on a million did. Layers that are not the EfficientNet's stay
    as they are.

    Args:
        model: as in `freeze`.
        from_block: a block (`"block5a"`), a stage (`"block5"`), `"top"` for the last convolution
            alone, or `"stem"` for everything.

    Returns:
        The names of the blocks that are trainable now, in order; `"stem"` and `"top"` count as blocks.

    Raises:
        InvalidInputError: no such block, no EfficientNet in the model, or several that could be meant.
    """
    backbone = _backbone(model)
    order = backbone.blocks
    first = next((name for name in order if name == from_block or _stage(name) == from_block), None)
    if first is None:
        raise unknown_name("from_block", from_block, order)
    chosen = order[order.index(first) :]
    _open(backbone)
    for layer, block in backbone.placed:
        normalizes = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = block in chosen and not normalizes
    return chosen


def blocks(model: keras.Model) -> list[str]:
    """The names of a model's blocks from input to output, `"stem"` first and `"top"` last.

    Raises:
        InvalidInputError: no EfficientNet in the model, or several that could be meant.
    """
    return _backbone(model).blocks


def _open(backbone: _Backbone) -> None:
    """Let frozen models around a backbone have trainable layers again, without thawing what else is in them.

    Keras trains nothing inside a frozen model, and `trainable = True` on it reaches every layer below.
    """
    inner = [*backbone.containers[1:], *(layer for layer, _ in backbone.placed)]
    ours = {id(each) for each in inner}
    for container in backbone.containers:
        if not container.trainable:
            container.trainable = True
            for layer in container.layers:
                if id(layer) not in ours:
                    layer.trainable = False


def _stage(block: str) -> str:
    return stage_of(block) if block.startswith("block") else block


def _backbone(model: Any) -> _Backbone:
    """The EfficientNet in a model; where there are several, the one that is not frozen as a whole."""
    found = list(_backbones((model,)))
    if not found:
        raise InvalidInputError(
            f"Expected a model with an EfficientNet in it. Received: {model.name!r}, which has no layers called "
            "stem_conv, block1a_dwconv …, top_conv. Build it with keras_effnet.transfer.classifier."
        )
    in_use = [each for each in found if all(container.trainable for container in each.containers[1:])]
    candidates = found if len(found) == 1 else in_use
    if len(candidates) != 1:
        raise InvalidInputError(
            f"Expected one EfficientNet in the model {model.name!r}. Received: {len(found)}, "
            f"{', '.join(repr(each.name) for each in found)}. Pass the one that is meant: "
            "model.get_layer(name), or in a flat model keras.Model(model.input, its last layer's output)."
        )
    return candidates[0]


def _backbones(containers: tuple[Any, ...]) -> Iterator[_Backbone]:
    """Every EfficientNet in the last of these models, and in the models inside it.

    It is known by its structure: a stem, blocks that all have a depthwise convolution and a projection
    (those of EfficientNetV2 have not), and a last convolution.
    """
    layers = {layer.name: layer for layer in containers[-1].layers}
    for stem in (name for name in layers if name.endswith(STEM_LAYER)):
        prefix = stem.removesuffix(STEM_LAYER)  # two networks in one graph need names that differ
        placed = []
        for name, layer in layers.items():
            match = _PART.fullmatch(name.removeprefix(prefix)) if name.startswith(prefix) else None
            if match:
                placed.append((layer, match["block"] or match["end"]))
        numbered = {block for _, block in placed if block.startswith("block")}
        complete = all(
            f"{prefix}{block}_{part}" in layers for block in numbered for part in ("dwconv", "project_conv")
        )
        if numbered and complete and f"{prefix}top_conv" in layers:
            name = f"{containers[-1].name}/{prefix}…" if prefix else containers[-1].name
            yield _Backbone(containers=containers, name=name, placed=tuple(placed))
    for layer in containers[-1].layers:
        if isinstance(layer, keras.Model):
            yield from _backbones((*containers, layer))
