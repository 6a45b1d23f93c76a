"""Keras → TFLite: static batch of one, named signature, labels inside the file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError, require, unknown_name
from keras_effnet.system.files import staged

from . import tflite_metadata
from .quantization import litert
from .quantization.fold import UnsupportedModelError
from .quantization.graph import IntegerNetwork
from .quantization.prepare import calibration_images, check_network, prepare, warn_if_untrained
from .quantization.to_tflite import integer_tflite, with_ends
from .quantization.trained import compression, qat
from .recipes import Recipe, get_recipe
from .subject import Subject, describe, missing_calibration
from .tflite_converter import convert_float

INPUT_TYPES = ("uint8", "int8")
OUTPUT_TYPES = ("int8", "float32")


def to_tflite(
    model: Any,
    path: str | os.PathLike[str],
    recipe: str = "float32",
    calibration: Any = None,
    *,
    network: IntegerNetwork | None = None,
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
            iterable of such batches. A hundred are enough; labels are not needed.
        network: for `int8`, instead of photographs: an integer network that `quantization.prepare` made
            of them, so that one calibration serves several files.
        labels: class names; default: ImageNet's for 1,000 classes.
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
    if chosen.integer and calibration is None and network is None:
        raise missing_calibration(subject)
    check_options(chosen, min_agreement, input_type, output_type)
    check_network(network, recipe, min_agreement)
    require("ai_edge_litert", "tflite")
    ends = {"input_type": input_type, "output_type": output_type}
    with staged(path, overwrite=overwrite) as temporary:
        if not chosen.integer:
            content = _float(subject, recipe)
        elif recipe == "int16x8":
            content = _int16x8(subject, calibration)
        elif recipe == "int8":
            content = _int8(subject, calibration, network, min_agreement, ends)
        else:
            content = _trained(subject, recipe, calibration, ends)
        tflite_metadata.write(content, temporary, subject)
    return Path(path)


def check_options(recipe: Recipe, min_agreement: float | None, input_type: str, output_type: str) -> None:
    """Raise InvalidInputError for an option that an integer recipe cannot follow."""
    if input_type not in INPUT_TYPES:
        raise unknown_name("input_type", input_type, INPUT_TYPES)
    if output_type not in OUTPUT_TYPES:
        raise unknown_name("output_type", output_type, OUTPUT_TYPES)
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
    content = convert_float(subject.model, subject.shape)
    if recipe == "float16":
        return litert.float16(content)
    return litert.weight_int8(content) if recipe == "weight_int8" else content


def _int16x8(subject: Subject, calibration: Any) -> bytes:
    """A file with int8 weights and int16 activations: for NPUs, and as an accuracy reference.

    65,536 levels hold any channel, so minimum and maximum are good ranges and nothing is corrected. CPUs
    run it through TFLite's own kernels, not XNNPACK, and about fifty times slower than int8.
    """
    images = calibration_images(calibration, subject)
    warn_if_untrained(subject.model)
    return litert.int16x8(convert_float(subject.model, subject.shape), images)


def _int8(
    subject: Subject,
    calibration: Any,
    network: IntegerNetwork | None,
    min_agreement: float | None,
    ends: dict[str, str],
) -> bytes:
    """A fully integer file; of a model that cannot be taken apart with ranges from minimum and maximum."""
    try:
        network = network or prepare(subject, calibration, min_agreement=min_agreement)
    except UnsupportedModelError as error:
        if min_agreement is not None:
            raise InvalidInputError(
                f"min_agreement needs a model that can be taken apart. {error}"
            ) from error
        warnings.warn(
            f"{error} Taking the plain path: ranges from minimum and maximum.", UserWarning, stacklevel=3
        )
        return _plain_int8(subject, calibration, ends)
    return integer_tflite(network, **ends)


def _plain_int8(subject: Subject, calibration: Any, ends: dict[str, str]) -> bytes:
    """An integer file of any convertible model, ranges from minimum and maximum."""
    images = calibration_images(calibration, subject)
    warn_if_untrained(subject.model)
    content = litert.int8(convert_float(subject.model, subject.shape), images)
    return with_ends(content, **ends)


def _trained(subject: Subject, recipe: str, calibration: Any, ends: dict[str, str]) -> bytes:
    """An integer file whose weights were trained for it."""
    if recipe == "int8_qat":
        return integer_tflite(qat.train(subject, calibration), **ends)
    return integer_tflite(compression.compress(subject, calibration, compression.RECIPES[recipe]), **ends)
