"""FixRes: a trained network learns how things look at the size at which it will be used."""

from __future__ import annotations

from typing import Any

import keras

from keras_effnet.errors import InvalidInputError
from keras_effnet.network.builder import is_whole
from keras_effnet.network.table import MIN_SIZE
from keras_effnet.pictures.framing import input_side

PARTS = ("top_bn", "predictions")  # of what a fixed network learns


def fix_resolution(model: keras.Model, size: int, *, top_conv: bool = False) -> keras.Model:
    """The same network for photographs of another size, ready to get used to it: compile it and fit it.

    Random crops of training show things larger than the central crop of a test does, so a network is better a good
    deal above the size that it was trained at; and what its last layers get has other statistics there. A few
    epochs with the photographs as the test reads them set that right (Touvron et al., arXiv:1906.06423). Only the
    last batch normalization, statistics and scale, and the classifier are trainable; all else stays in inference mode.

        fixed = transfer.fix_resolution(model, 288)
        fixed.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "sparse_categorical_crossentropy")
        fixed.fit(photographs_of_288_pixels, epochs=10)

    Args:
        model: an EfficientNet of this package with a classifier and a square input. It stays as it is.
        size: side of the new input in pixels, at least 32 and another than the model's.
        top_conv: train the last 1×1 convolution too.

    Returns:
        A functional `keras.Model` `[N, size, size, C]` → probabilities with layers of its own by the same names, so
        that its input, `load_image(path, model)` and every export have the new size.

    Raises:
        InvalidInputError: no such model, or a size that cannot be used or that it has already.
    """
    check_fix_size(size, input_side(model))
    if padded := [layer.name for layer in model.layers if _pads_by_size(layer)]:
        raise InvalidInputError(
            f"Expected a model of this package. Received: {model.name!r}, whose {padded[0]!r} was made for its size. "
            "Load its weights with keras_effnet.EfficientNet."
        )
    trained = (*PARTS, "top_conv") if top_conv else PARTS
    missing = [name for name in trained if not any(layer.name == name for layer in model.layers)]
    if missing:
        raise InvalidInputError(
            f"Expected an EfficientNet with its classifier. Received: {model.name!r} without {missing[0]!r}. "
            "Build it with keras_effnet.transfer.classifier."
        )
    fixed = at_size(model, size)
    for layer in fixed.layers:
        layer.trainable = layer.name in trained
    return fixed


def at_size(model: keras.Model, size: int) -> keras.Model:
    """A copy of a network, weights included, for square photographs of another size."""
    inputs = keras.Input((size, size, model.input_shape[3]), name=model.layers[0].name)
    copy = keras.models.clone_model(model, input_tensors=inputs)
    copy.set_weights(model.get_weights())
    return copy


def check_fix_size(size: Any, old: int) -> None:
    """Make sure that a network for photographs of `old` pixels can be fixed to `size`.

    Raises:
        InvalidInputError: it cannot.
    """
    if not is_whole(size) or size < MIN_SIZE or size == old:
        raise InvalidInputError(
            f"Expected a size to fix to of at least {MIN_SIZE} pixels, other than the {old} that the network has. "
            f"Received: {size!r}. A good fifth more is usual: {round(old * 1.28)}."
        )


def _pads_by_size(layer: Any) -> bool:
    """Whether a layer pads unevenly, as keras.applications does by the size of its input."""
    return (
        type(layer).__name__ == "ZeroPadding2D" and len({side for pair in layer.padding for side in pair}) > 1
    )
