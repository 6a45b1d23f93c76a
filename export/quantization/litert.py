"""The LiteRT quantizer, driven for our files: weights only, float16, and integer with min/max ranges."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from keras_effnet.errors import require
from keras_effnet.system.quiet import quiet_native

from .ranges import PIXELS


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
    return finish(worker)


def weight_int8(content: bytes) -> bytes:
    """Store weights as int8, one scale for each output channel; compute in float32."""
    quantizer, _, _ = _modules()
    recipe = require("litert_quantizer.recipe", "tflite")
    return finish(quantizer.Quantizer(bytearray(content), recipe.weight_only_wi8_afp32()))


def int8(content: bytes, images: npt.NDArray[np.float32]) -> bytes:
    """Weights and activations in int8, ranges from the smallest and largest value ever seen.

    Takes a float32 file with a static batch of one and photographs, float32 0–255 `[N, H, W, C]`. The input has
    scale 1 and zero point -128: pixel p enters as p - 128.
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
    return finish(worker, _ranges(worker, images))


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
        merged[name]["min"] = np.full_like(merged[name]["min"], PIXELS.low)
        merged[name]["max"] = np.full_like(merged[name]["max"], PIXELS.high)
    return merged


def _input_tensors(ranges: dict[str, Any]) -> Iterator[str]:
    return (name for name, found in ranges.items() if name.startswith("serving_default_image") and found)


def finish(worker: Any, ranges: dict[str, Any] | None = None) -> bytes:
    """The file that a prepared quantizer writes, silently."""
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
