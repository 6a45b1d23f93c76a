"""Keras → TFLite: one writer for each recipe. Static batch of one, named signature, labels inside the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError, warn

from . import tflite_file
from .model_facts import ModelFacts
from .options import Options
from .quantization import litert
from .quantization.ends import with_ends
from .quantization.fold import UnsupportedModelError
from .quantization.graph import IntegerNetwork
from .quantization.prepare import calibration_images, prepare, warn_if_untrained
from .quantization.to_tflite import integer_tflite
from .quantization.trained import compression, qat
from .tflite_file import convert_float


def write_float32(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write a TFLite file that stores and computes in float32."""
    del options, calibration
    tflite_file.write(_float32(facts), path, facts)


def write_float16(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write a TFLite file whose weights are stored in float16."""
    del options, calibration
    tflite_file.write(litert.float16(_float32(facts)), path, facts)


def write_weight_int8(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write a TFLite file whose weights are stored in 8 bits and which computes in float."""
    del options, calibration
    tflite_file.write(litert.weight_int8(_float32(facts)), path, facts)


def prepare_int8(facts: ModelFacts, calibration: Any, options: Options) -> IntegerNetwork:
    """The integer network that `write_int8` writes.

    Raises:
        UnsupportedModelError: a model that cannot be taken apart.
    """
    return prepare(facts, calibration, min_agreement=options.min_agreement)


def write_int8(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write an integer file: of `options.network`, or of photographs.

    Of a model that cannot be taken apart, with a warning: its ranges are then minimum and maximum.
    """
    try:
        network = options.network or prepare_int8(facts, calibration, options)
    except UnsupportedModelError as error:
        if options.min_agreement is not None:
            raise InvalidInputError(
                f"min_agreement needs a model that can be taken apart. {error}"
            ) from error
        warn(f"{error} Taking the plain path: ranges from minimum and maximum.")
        content = litert.int8(_float32(facts), _photographs(facts, calibration))
        content = with_ends(content, options.input_type, options.output_type)
        tflite_file.write(content, path, facts)
    else:
        _write_network(network, path, facts, options)


def write_int16x8(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write a TFLite file with int8 weights and int16 activations: for NPUs, and as an accuracy reference.

    65,536 levels hold any channel, so minimum and maximum are good ranges and nothing is corrected. CPUs
    run it through TFLite's own kernels, not XNNPACK, and about fifty times slower than int8.
    """
    del options
    images = _photographs(facts, calibration)
    tflite_file.write(litert.int16x8(_float32(facts), images), path, facts)


def write_int8_qat(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write an integer file whose weights were trained under their rounding."""
    _write_network(qat.train(facts, calibration), path, facts, options)


def write_int8_pruned(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write an integer file with zeros among the weights."""
    _write_network(compression.compress(facts, calibration, compression.PRUNED), path, facts, options)


def write_int8_clustered(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write an integer file with few different weights."""
    _write_network(compression.compress(facts, calibration, compression.CLUSTERED), path, facts, options)


def _write_network(network: IntegerNetwork, path: Path, facts: ModelFacts, options: Options) -> None:
    ends = {"input_type": options.input_type, "output_type": options.output_type}
    content = integer_tflite(network, **ends, called=facts.model.name)
    tflite_file.write(content, path, facts)


def _float32(facts: ModelFacts) -> bytes:
    """The float32 file without metadata, which the other float recipes and the plain integer ones begin with."""
    return facts.converted(("tflite",), lambda: convert_float(facts.model, facts.shape, facts.output_names))


def _photographs(facts: ModelFacts, calibration: Any) -> Any:
    """The photographs of a recipe that goes without `prepare`."""
    images = calibration_images(calibration, facts)
    warn_if_untrained(facts.model)
    return images
