"""Keras → TFLite: static batch of one, named signature, labels inside the file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from keras_effnet.errors import ExportError
from keras_effnet.system.files import system_said
from keras_effnet.system.quiet import quiet_native

from . import tflite_metadata
from .archive import write_out
from .model_facts import INPUT_NAME, OUTPUT_NAME, ModelFacts
from .options import Options

SIGNATURE = "serving_default"


def write_float32(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write a TFLite file that stores and computes in float32."""
    del options, calibration
    _write(convert_float(facts), path, facts)


def write_float16(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write a TFLite file whose weights are stored in float16."""
    from .quantization import litert

    del options, calibration
    _write(litert.float16(convert_float(facts)), path, facts)


def write_weight_int8(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write a TFLite file whose weights are stored in 8 bits and which computes in float."""
    from .quantization import litert

    del options, calibration
    _write(litert.weight_int8(convert_float(facts)), path, facts)


def prepare_int8(facts: ModelFacts, calibration: Any, options: Options) -> Any:
    """The integer network that `write_int8` writes.

    Raises:
        UnsupportedModelError: a model that cannot be taken apart.
    """
    from .quantization import post_training

    return post_training.network(
        facts.model, calibration, min_agreement=options.min_agreement, size=facts.asked_size
    )


def write_int8(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write an integer file: of `options.network`, or of photographs; of any model, see `int8_tflite`."""
    from .quantization import post_training

    ends = {"input_type": options.input_type, "output_type": options.output_type}
    if options.network is not None:
        content = post_training.to_tflite(options.network, **ends)
    else:
        content = post_training.int8_tflite(
            facts.model, calibration, min_agreement=options.min_agreement, size=facts.asked_size, **ends
        )
    _write(content, path, facts)


def write_int16x8(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write a TFLite file with int8 weights and int16 activations."""
    from .quantization import post_training

    del options
    _write(post_training.int16x8_tflite(facts.model, calibration, size=facts.asked_size), path, facts)


def write_int8_qat(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write an integer file whose weights were trained under their rounding."""
    from .quantization import qat

    _write_network(qat.train(facts.model, calibration, size=facts.asked_size), path, facts, options)


def write_int8_pruned(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write an integer file with zeros among the weights."""
    _write_compressed("int8_pruned", facts, path, options, calibration)


def write_int8_clustered(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write an integer file with few different weights."""
    _write_compressed("int8_clustered", facts, path, options, calibration)


def _write_compressed(recipe: str, facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    from .quantization.compression import RECIPES, compress

    network = compress(facts.model, calibration, RECIPES[recipe], size=facts.asked_size)
    _write_network(network, path, facts, options)


def _write_network(network: Any, path: Path, facts: ModelFacts, options: Options) -> None:
    from .quantization import post_training

    content = post_training.to_tflite(network, input_type=options.input_type, output_type=options.output_type)
    _write(content, path, facts)


def _write(content: bytes, path: Path, facts: ModelFacts) -> None:
    tflite_metadata.write(content, path, facts)


def convert_float(facts: ModelFacts) -> bytes:
    """The float32 file, with a batch of one.

    Raises:
        ExportError: the converter failed, or the folder for temporary files is full.
    """
    import keras
    import tensorflow as tf

    model = facts.model
    shape = (1, facts.height, facts.width, facts.channels)

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
                    f"Expected {facts.info.name!r} to convert to TFLite without other operators. "
                    f"The converter said: {str(error).splitlines()[0]}. Build the model from standard layers."
                ) from error
