"""The LiteRT quantizer, driven for our files: weights only, float16, and integer with min/max ranges."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from keras_effnet.errors import InvalidInputError, require, warn
from keras_effnet.export.subject import Subject
from keras_effnet.pictures.reading import check_pixels
from keras_effnet.system.quiet import quiet_native

ENOUGH_IMAGES = 16  # fewer photographs leave many channels at ranges they exceed in use
PIXEL_RANGE = (0.0, 255.0)
OVERSHOOT = 64.0  # bicubic resizing in float leaves 0–255 by up to a quarter


def calibration_images(calibration: Any, subject: Subject) -> npt.NDArray[np.float32]:
    """Check calibration photographs and collect them.

    Args:
        calibration: `[N, H, W, C]`, or an iterable of such batches.
        subject: the model they are for.

    Returns:
        float32 `[N, H, W, C]`, 0–255.

    Raises:
        InvalidInputError: empty, of another shape, not finite, without any contrast, or not 0–255.
    """
    size, channels = (subject.height, subject.width), subject.channels
    is_array = hasattr(calibration, "shape")
    if not is_array and (isinstance(calibration, str) or not isinstance(calibration, Iterable)):
        raise InvalidInputError(
            f"Expected calibration photographs as an array [N, {size[0]}, {size[1]}, {channels}] or an iterable of "
            f"such batches. Received: {calibration!r}. Read them with keras_effnet.load_image and stack them."
        )
    batches: Iterable[Any] = [calibration] if is_array else calibration
    checked = [
        check_pixels(batch, size=size, channels=channels, what="calibration photographs").astype(np.float32)
        for batch in batches
    ]
    if not checked:
        check_pixels(
            np.zeros((0, *size, channels)), size=size, channels=channels, what="calibration photographs"
        )
    images = np.concatenate(checked)
    if float(np.ptp(images)) == 0:
        raise InvalidInputError(
            f"Expected calibration photographs. Received pictures in which every pixel is {images.flat[0]:g}. "
            "Pass real photographs like those the model will see."
        )
    low, high = float(images.min()), float(images.max())
    if low < -OVERSHOOT or high > PIXEL_RANGE[1] + OVERSHOOT or (low < 0 and high < OVERSHOOT):
        raise InvalidInputError(
            f"Expected calibration photographs with pixels 0-255. Received values from {low:.4g} to {high:.4g}, "
            "as if they had been normalized. The preprocessing is inside the graph: pass raw pixels."
        )
    images = np.clip(images, *PIXEL_RANGE)
    if len(images) < ENOUGH_IMAGES:
        warn(
            f"Expected at least {ENOUGH_IMAGES} calibration photographs. Received {len(images)}; "
            "the integer ranges may not fit other pictures.",
        )
    return images


def float16(content: bytes) -> bytes:
    """Store the weights of convolutions and the classifier as float16; compute in float32.

    Depthwise kernels and biases stay float32: they are 3 % of the bytes and cause most of the error.
    """
    quantizer, qtyping, algorithms = _modules()
    worker = quantizer.Quantizer(bytearray(content))
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=16, dtype=qtyping.TensorDataType.FLOAT
        ),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    for operator in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.FULLY_CONNECTED):
        worker.update_quantization_recipe(".*", operator, config, algorithms.FLOAT_CASTING)
    return _finish(worker)


def weight_int8(content: bytes) -> bytes:
    """Store weights as int8, one scale for each output channel; compute in float32."""
    quantizer, _, _ = _modules()
    recipe = require("litert_quantizer.recipe", "tflite")
    return _finish(quantizer.Quantizer(bytearray(content), recipe.weight_only_wi8_afp32()))


def int8(content: bytes, images: npt.NDArray[np.float32]) -> bytes:
    """Weights and activations in int8, ranges from the smallest and largest value ever seen.

    Args:
        content: a float32 TFLite file with a static batch of one.
        images: calibration photographs, float32 0–255 `[N, H, W, C]`.

    Returns:
        The integer file. Its input has scale 1 and zero point -128: pixel p enters as p - 128.
    """
    return _static(content, images, "static_wi8_ai8")


def int16x8(content: bytes, images: npt.NDArray[np.float32]) -> bytes:
    """As `int8`, with activations in int16."""
    return _static(content, images, "static_wi8_ai16")


def _static(content: bytes, images: npt.NDArray[np.float32], recipe: str) -> bytes:
    """Quantize by one of the quantizer's static recipes."""
    quantizer, _, _ = _modules()
    recipes = require("litert_quantizer.recipe", "tflite")
    worker = quantizer.Quantizer(bytearray(content), getattr(recipes, recipe)())
    return _finish(worker, _ranges(worker, images))


def _ranges(worker: Any, images: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Smallest and largest value of every tensor.

    The quantizer's own update is a moving average, which forgets the extremes of early pictures and
    depends on their order; so each picture is measured on its own.
    """
    merged: dict[str, Any] = {}
    for image in tqdm(images, desc="calibrating", unit="image", disable=None, leave=False):
        with _silent():
            ranges = worker.calibrate({"serving_default": [{"image": image[np.newaxis]}]})
        for name, found in ranges.items():
            if name not in merged or not found:
                merged.setdefault(name, found)
                continue
            merged[name]["min"] = np.minimum(merged[name]["min"], found["min"])
            merged[name]["max"] = np.maximum(merged[name]["max"], found["max"])
    for name in _input_tensors(merged):
        merged[name]["min"] = np.full_like(merged[name]["min"], PIXEL_RANGE[0])
        merged[name]["max"] = np.full_like(merged[name]["max"], PIXEL_RANGE[1])
    return merged


def _input_tensors(ranges: dict[str, Any]) -> Iterator[str]:
    return (name for name, found in ranges.items() if name.startswith("serving_default_image") and found)


def _finish(worker: Any, ranges: dict[str, Any] | None = None) -> bytes:
    with _silent(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the quantizer casts infinities of unused entries
        result = worker.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _modules() -> tuple[Any, Any, Any]:
    quantizer = require("litert_quantizer.quantizer", "tflite")
    qtyping = require("litert_quantizer.qtyping", "tflite")
    algorithms = require("litert_quantizer.algorithm_manager", "tflite").AlgorithmName
    return quantizer, qtyping, algorithms


@contextmanager
def _silent() -> Iterator[None]:
    """The quantizer prints a report and bars of its own that cannot be turned off."""
    with (
        quiet_native(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
