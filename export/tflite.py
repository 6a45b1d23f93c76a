"""Keras → TFLite: static batch of one, named signature, labels inside the file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from keras_effnet.export import tflite_metadata
from keras_effnet.export.files import staged
from keras_effnet.export.recipes import get_recipe
from keras_effnet.export.subject import Subject, describe

from keras_effnet.errors import ExportError, InvalidInputError, require
from keras_effnet.quiet import quiet_native

SIGNATURE = "serving_default"
INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"


def to_tflite(
    model: Any,
    path: str | os.PathLike[str],
    recipe: str = "float32",
    calibration: Any = None,
    *,
    labels: Sequence[str] | None = None,
    size: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a TFLite file with the signature `serving_default`: `image` → `probabilities`.

    The input is one picture `[1, H, W, C]` of RGB pixels 0–255; integer files take and return int8
    with the scale and zero point that the file states. A static batch lets XNNPACK take the whole
    graph as one partition.

    Args:
        model: a Keras model with one image input.
        path: file to create.
        recipe: `float32`, `float16`, `weight_int8` or `int8`.
        calibration: for `int8`: photographs, uint8 or float32 0–255 `[N, H, W, C]`, or an iterable
            of such batches. A hundred are enough; labels are not needed.
        labels: class names; default: ImageNet's for 1,000 classes.
        size: side of the input in pixels, for a model that leaves it open.
        overwrite: replace an existing file.

    Returns:
        The file.

    Raises:
        InvalidInputError: unknown recipe, a missing or unusable calibration, an existing path.
        MissingExtraError: the extra `tflite` is not installed.
        ExportError: the converter failed.
    """
    chosen = get_recipe("tflite", recipe)
    subject = describe(model, recipe, labels=labels, size=size)
    if chosen.needs_calibration and calibration is None:
        raise InvalidInputError(
            f"Expected calibration photographs for recipe {recipe!r}. Received: none. Pass "
            f"calibration=[N, {subject.height}, {subject.width}, {subject.channels}], or on the command "
            "line --calibration DIR."
        )
    require("ai_edge_litert", "tflite")
    with staged(path, overwrite=overwrite) as temporary:
        content = _quantized(subject, recipe, calibration)
        tflite_metadata.write(content, temporary, subject)
    return Path(path)


def _quantized(subject: Subject, recipe: str, calibration: Iterable[Any] | None) -> bytes:
    from keras_effnet.export.quantization import litert, post_training

    if recipe == "int8":
        return post_training.int8_tflite(subject.model, calibration, size=subject.height)
    content = convert_float(subject)
    if recipe == "float16":
        return litert.float16(content)
    if recipe == "weight_int8":
        return litert.weight_int8(content)
    return content


def convert_float(subject: Subject) -> bytes:
    """The float32 file, with a batch of one.

    Raises:
        ExportError: the converter failed.
    """
    import keras
    import tensorflow as tf

    model = subject.model
    shape = (1, subject.height, subject.width, subject.channels)

    def serve(image: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: tf.cast(model(image, training=False), tf.float32)}

    with tempfile.TemporaryDirectory() as folder, quiet_native():
        archive = keras.export.ExportArchive()
        archive.add_endpoint(SIGNATURE, serve, [tf.TensorSpec(shape, tf.float32, name=INPUT_NAME)])
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        try:
            return bytes(converter.convert())
        except Exception as error:  # the converter raises classes of its own, one for each failure
            raise ExportError(
                f"Expected {subject.info.name!r} to convert to TFLite without other operators. "
                f"The converter said: {str(error).splitlines()[0]}. Build the model from standard layers."
            ) from error
