"""FixRes: a trained network learns how things look at the size at which it will be used."""

from __future__ import annotations

import keras

from keras_effnet.errors import InvalidInputError
from keras_effnet.network.resizing import at_size, check_fix_size
from keras_effnet.pictures.framing import input_side

PARTS = ("top_bn", "predictions")  # of what a fixed network learns


def fix_resolution(model: keras.Model, size: int, *, top_conv: bool = True) -> keras.Model:
    """The same network for photographs of another size, ready to get used to it: compile it and fit it.

    Random crops of training show things larger than the central crop of a test does, so a network is better a good
    deal above the size that it was trained at; and what its last layers get has other statistics there. A few
    epochs with the photographs as the test reads them set that right (Touvron et al., arXiv:1906.06423). Only the
    last convolution, its batch normalization, statistics too, and the classifier are trainable; all else stays in
    inference mode.

        fixed = transfer.fix_resolution(model, 288)
        fixed.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "sparse_categorical_crossentropy")
        fixed.fit(photographs_of_288_pixels, epochs=10)

    Args:
        model: an EfficientNet of this package with a classifier and a square input. It stays as it is.
        size: side of the new input in pixels, at least 32 and another than the model's.
        top_conv: whether the last 1×1 convolution is trainable too.

    Returns:
        A functional `keras.Model` `[N, size, size, C]` → probabilities with layers of its own by the same names, so
        that its input, `load_image(path, model)` and every export have the new size.

    Raises:
        InvalidInputError: no such model, or a size that cannot be used or that it has already.
    """
    check_fix_size(size, input_side(model))
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
