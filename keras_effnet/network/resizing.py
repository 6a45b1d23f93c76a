"""The same network for pictures of another size."""

from __future__ import annotations

from typing import Any

from keras_effnet.errors import InvalidInputError
from keras_effnet.network.builder import is_whole
from keras_effnet.network.reader import flat_layers
from keras_effnet.network.table import MIN_SIZE


def at_size(model: Any, size: int) -> Any:
    """A copy of a Keras model, with its weights, for square pictures of another size.

    Args:
        model: a functional model with one input of pictures `[N, H, W, C]`.
        size: the new side, in pixels.

    Returns:
        The copy; the model itself where it has this size already. A size that a model leaves open becomes fixed.

    Raises:
        InvalidInputError: a network that depends on its size: the layers that flatten, or fixed paddings of
            keras.applications where the new size has other remainders.
    """
    import keras

    *_, channels = model.input_shape
    if model.input_shape[1:3] == (size, size):
        return model
    try:
        pixels = keras.Input((size, size, channels), name=model.inputs[0].name, dtype=model.inputs[0].dtype)
        copy = keras.models.clone_model(model, input_tensors=pixels)
        copy.set_weights(model.get_weights())
    except Exception as error:  # whichever layer does not fit has an error of its own
        said = (str(error).splitlines() or [""])[0]
        raise InvalidInputError(
            f"Expected a network that takes pictures of {size} pixels. Received: {model.name!r}, built for "
            f"{model.input_shape[1]}, whose layers depend on it ({type(error).__name__}: {said}). Use its own size."
        ) from error
    _check_paddings(model, copy, size)
    return copy


def _check_paddings(model: Any, copy: Any, size: int) -> None:
    """Make sure that fixed paddings are those the network would have been built with.

    keras.applications pads before each strided convolution by one pixel less above and left where the side is even.
    """
    pairs = [
        (old, new)
        for old, new in zip(flat_layers(model), flat_layers(copy), strict=True)
        if type(old).__name__ == "ZeroPadding2D"
    ]
    sides = [(old.input.shape[1], new.input.shape[1]) for old, new in pairs]
    uneven = any(before != after for old, _ in pairs for before, after in old.padding)
    even = any(old is None or old % 2 == 0 for old, _ in sides)
    if (uneven or not even) and any(old is None or old % 2 != new % 2 for old, new in sides):
        raise InvalidInputError(
            f"Expected a size for which the paddings of {model.name!r} are right. Received: {size}, built for "
            f"{model.input_shape[1]}. Pass another multiple of 32, or build the network for that size."
        )


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
