"""Keras → TFLite: static batch of one, named signature, labels inside the file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_effnet.errors import ExportError, InvalidInputError, require
from keras_effnet.export import tflite_metadata
from keras_effnet.export.archive import write_out
from keras_effnet.export.recipes import Recipe, get_recipe
from keras_effnet.export.subject import INPUT_NAME, OUTPUT_NAME, Subject, describe, missing_calibration
from keras_effnet.system.access import system_said
from keras_effnet.system.files import staged
from keras_effnet.system.quiet import quiet_native

SIGNATURE = "serving_default"


def to_tflite(
    model: Any,
    path: str | os.PathLike[str],
    recipe: str = "float32",
    calibration: Any = None,
    *,
    labels: Sequence[str] | None = None,
    size: int | None = None,
    min_agreement: float | None = None,
    input_type: str = "uint8",
    output_type: str = "int8",
    overwrite: bool = False,
) -> Path:
    """Write a TFLite file with the signature `serving_default`: `image` → `probabilities`.

    The input is one picture `[1, H, W, C]` of RGB pixels 0–255; integer files take uint8
    pixels as they are and return int8 with the scale and zero point that the file states. A static
    batch lets XNNPACK take the whole graph as one partition, except in `int16x8`.

    Args:
        model: a Keras model with one image input.
        path: file to create.
        recipe: `float32`, `float16`, `weight_int8`, `int8`, `int16x8`, `int8_qat`, `int8_pruned` or
            `int8_clustered`.
        calibration: for the integer recipes: photographs, uint8 or float32 0–255 `[N, H, W, C]`, or an
            iterable of such batches. A hundred are enough; labels are not needed. For `int8` also an
            `IntegerNetwork` that was prepared from them, so that one calibration serves several files.
        labels: class names; default: the model's own, or ImageNet's.
        size: side of the input in pixels, for a model that leaves it open.
        min_agreement: for `int8`: top-1 agreement with the model, 0–1, that held-out calibration
            photographs must show; the worst tensors are left in float until they do.
        input_type: of integer files: `uint8` (a pixel is its own value) or `int8` (pixel - 128). `int16x8`
            has int16 at both ends.
        output_type: of integer files: `int8` or `float32`.
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
    if chosen.integer and calibration is None:
        raise missing_calibration(subject)
    check_options(chosen, min_agreement, input_type, output_type)
    require("ai_edge_litert", "tflite")
    with staged(path, overwrite=overwrite) as temporary:
        if chosen.integer:
            ends = {"input_type": input_type, "output_type": output_type}
            content = _integer(subject, recipe, calibration, min_agreement, ends)
        else:
            content = _float(subject, recipe)
        tflite_metadata.write(content, temporary, subject)
    return Path(path)


def check_options(recipe: Recipe, min_agreement: float | None, input_type: str, output_type: str) -> None:
    """Raise InvalidInputError for an option that an integer recipe cannot follow."""
    from keras_effnet.export.quantization.post_training import check_types

    check_types(input_type, output_type)
    if min_agreement is not None and recipe.integer and recipe.name != "int8":
        raise InvalidInputError(
            f"Expected min_agreement with recipe 'int8', the one that can promise it. Received: {recipe.target}. "
            "Leave one of them out."
        )
    if recipe.name == "int16x8" and (input_type, output_type) != ("uint8", "int8"):
        raise InvalidInputError(
            f"Expected the types of input and output as they are: 'int16x8' has int16 at both ends. Received: "
            f"{input_type!r} and {output_type!r}. Leave them out."
        )


def _float(subject: Subject, recipe: str) -> bytes:
    """A file that computes in float."""
    from keras_effnet.export.quantization import litert

    content = convert_float(subject)
    if recipe == "float16":
        return litert.float16(content)
    return litert.weight_int8(content) if recipe == "weight_int8" else content


def _integer(
    subject: Subject, recipe: str, calibration: Any, min_agreement: float | None, ends: dict[str, str]
) -> bytes:
    """A file that computes in integers."""
    from keras_effnet.export.quantization import compression, post_training, qat

    model, size = subject.model, subject.size
    if recipe == "int8_qat":
        return post_training.to_tflite(qat.train(model, calibration, size=size), **ends)
    if recipe in compression.RECIPES:
        network = compression.compress(model, calibration, compression.RECIPES[recipe], size=size)
        return post_training.to_tflite(network, **ends)
    if recipe == "int16x8":
        return post_training.int16x8_tflite(model, calibration, size=size)
    if isinstance(calibration, post_training.IntegerNetwork):
        return post_training.to_tflite(calibration, **ends)
    return post_training.int8_tflite(model, calibration, min_agreement=min_agreement, size=size, **ends)


def convert_float(subject: Subject) -> bytes:
    """The float32 file, with a batch of one.

    Raises:
        ExportError: the converter failed, or the folder for temporary files is full.
    """
    import keras
    import tensorflow as tf

    model = subject.model
    shape = (1, subject.height, subject.width, subject.channels)

    def serve(image: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: tf.cast(model(image, training=False), tf.float32)}

    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.add_endpoint(SIGNATURE, serve, [tf.TensorSpec(shape, tf.float32, name=INPUT_NAME)])
        try:
            write_out(archive, Path(folder))
        except OSError as error:
            raise ExportError(
                f"Expected room for a SavedModel in {str(Path(folder).parent)!r}, which the converter reads. "
                f"The system said: {system_said(error)}. Free some space, or set TMPDIR to another disk."
            ) from error
        with quiet_native():
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
            try:
                return bytes(converter.convert())
            except Exception as error:  # the converter raises classes of its own, one for each failure
                raise ExportError(
                    f"Expected {subject.info.name!r} to convert to TFLite without other operators. "
                    f"The converter said: {str(error).splitlines()[0]}. Build the model from standard layers."
                ) from error
