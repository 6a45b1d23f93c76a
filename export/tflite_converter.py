"""TensorFlow's converter: Keras → float32 TFLite, from which every other TFLite file is made."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from keras_effnet.errors import ExportError
from keras_effnet.system.files import system_said
from keras_effnet.system.quiet import quiet_native

from .failures import converting, write_out
from .model_facts import INPUT_NAME, OUTPUT_NAME

SIGNATURE = "serving_default"


def convert_float(model: Any, shape: tuple[int, int, int]) -> bytes:
    """The float32 file of a model, with a batch of one.

    Args:
        model: a Keras model that computes in float32.
        shape: of one picture, (height, width, channels).

    Raises:
        ExportError: the converter failed, or the folder for temporary files is full.
    """
    import keras
    import tensorflow as tf

    def serve(image: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: tf.cast(model(image, training=False), tf.float32)}

    with tempfile.TemporaryDirectory() as folder, converting(model.name, "TFLite"):
        archive = keras.export.ExportArchive()
        archive.add_endpoint(SIGNATURE, serve, [tf.TensorSpec((1, *shape), tf.float32, name=INPUT_NAME)])
        try:
            write_out(archive, Path(folder))
        except OSError as error:
            raise ExportError(
                f"Expected room for a SavedModel in {str(Path(folder).parent)!r}, which the converter reads. "
                f"The system said: {system_said(error)}. Free some space, or set TMPDIR to another disk."
            ) from error
        with quiet_native():
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
            return bytes(converter.convert())
