"""The models that commands are given: a variant with weights, or a Keras file that holds both."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from keras_effnet.commands.options import weights_of
from keras_effnet.errors import InvalidInputError, WeightsError
from keras_effnet.network.variants import Variant
from keras_effnet.pictures.labels import IMAGENET_CLASSES
from keras_effnet.system.access import reachable
from keras_effnet.system.quiet import import_keras

KERAS_SUFFIX = ".keras"


def build(
    variant: Variant, arguments: argparse.Namespace, *, input_shape: tuple[int, int, int] | None = None
) -> Any:
    """The Keras model of a variant, with `--weights` and as many classes as they have.

    Args:
        variant: which one.
        arguments: with the option of `add_weights`.
        input_shape: (H, W, C) in pixels; None for the variant's own.

    Raises:
        InvalidInputError: neither a published set nor a file.
        WeightsError: weights that are missing, damaged or of another network.
    """
    from keras_effnet.applications import EfficientNet

    weights = weights_of(arguments)
    return EfficientNet(variant, weights=weights, classes=_classes_of(weights), input_shape=input_shape)


def load_keras(path: str | Path) -> Any:
    """The model of a `.keras` file.

    Raises:
        InvalidInputError: no such file, or one that Keras cannot read.
    """
    check_keras_file(path)
    import_keras()
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever the reader of zip, JSON or HDF5 met
        raise InvalidInputError(
            f"Expected a Keras model in {str(path)!r}. It cannot be read ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}). Save it with model.save('name.keras')."
        ) from error


def check_keras_file(path: str | Path) -> None:
    """Make sure that there is a file, without the seconds that Keras takes to start.

    Raises:
        InvalidInputError: there is none, or it may not be read.
    """
    with reachable(path, "a Keras model that can be read"):
        if not Path(path).is_file():
            raise InvalidInputError(
                f"Expected a .keras file. Received: {str(path)!r}, which does not exist. Check the path."
            )
        with Path(path).open("rb"):
            pass


def refuse_weights(arguments: argparse.Namespace, file: str | Path) -> None:
    """Make sure that `--weights` is not given with a file, which has weights of its own.

    Raises:
        InvalidInputError: it is.
    """
    if arguments.weights is not None:
        raise InvalidInputError(
            f"Expected --weights with a variant only: {str(file)!r} has its own. Received: --weights "
            f"{arguments.weights}. Leave it out, or name the variant."
        )


def _classes_of(weights: str | None) -> int:
    """How many classes the classifier in a weight file has; 1,000 where that cannot be seen from outside."""
    from keras_effnet.weights.catalog import SET_NAMES
    from keras_effnet.weights.checkpoint import TOP_LAYER
    from keras_effnet.weights.readers import open_checkpoint, tensorflow

    if weights is None or weights in SET_NAMES:
        return IMAGENET_CLASSES
    path = Path(weights)
    with reachable(path, "a weight file that can be read", WeightsError):
        absent = not path.exists() and not Path(f"{path}.index").exists()
        if absent or tensorflow.is_archive(path):  # the builder has the word for it; unpacking takes long
            return IMAGENET_CLASSES
    with open_checkpoint(path) as checkpoint:
        bias = checkpoint.layers.get(TOP_LAYER, {}).get("bias")
        return int(bias.shape[-1]) if bias is not None and bias.shape else IMAGENET_CLASSES
