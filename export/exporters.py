"""The three exporters: one function for each format, which differ in what may be asked of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .formats import ONNX, SAVED_MODEL, TFLITE
from .model_facts import facts_of
from .options import (
    Batching,
    InputType,
    Layout,
    OnnxInput,
    OnnxRecipe,
    OnnxRuntimeName,
    Options,
    OutputType,
    TFLiteRecipe,
)
from .outputs import SaidKinds, SaidLabels
from .targets import Target, check_options, check_path, get_target, write_artefact


def to_saved_model(
    model: Any,
    path: str | os.PathLike[str],
    *,
    labels: SaidLabels = None,
    kinds: SaidKinds = None,
    size: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a SavedModel.

    Signatures, all with a dynamic batch and the output `probabilities` `[N, classes]` float32, or several by name:

    - `serving_default`: `image`, float32 RGB pixels 0–255 `[N, H, W, C]`
    - `serve_uint8`: the same as uint8
    - `serve_bytes`: `image_bytes`, encoded pictures `[N]`: JPEG, PNG, WebP (no animation), GIF (its first
      picture, if it fills the canvas) and BMP (8, 24 or 32 bits, not compressed). It sees what
      `load_image(…, model)` sees: upright, over white, with the crop and interpolation of its variant (or what
      the model was trained with, see `transfer.classifier`). A picture that is damaged, of another kind
      or of more than 134 million pixels costs only its own row, which is NaN; N may be 0. Only for models of
      three channels or one.

    Args:
        model: a Keras model with one image input. Several outputs leave by the keys of its dictionary, or the
            names of their layers.
        path: directory to create.
        labels: class names, for several outputs by name; default: the model's own, or ImageNet's. Written to
            `assets.extra/labels.txt`.
        kinds: what the outputs are, where their layers do not show it: `classes`, `sigmoid`, `sigmoids`,
            `logits`, `embedding` or `map`; for several outputs by name. The file says it, and `verify` judges
            each by it.
        size: side of the input in pixels, for a model that leaves it open.
        overwrite: replace an existing directory.

    Returns:
        The directory.

    Raises:
        InvalidInputError: a model or path that cannot be used, as `to_tflite`.
        ExportError: writing failed.
    """
    target = get_target(SAVED_MODEL, "float32")
    return _export(target, model, path, Options(), None, labels, kinds, size, overwrite)


def to_tflite(
    model: Any,
    path: str | os.PathLike[str],
    recipe: TFLiteRecipe = "float32",
    calibration: Any = None,
    *,
    labels: SaidLabels = None,
    kinds: SaidKinds = None,
    size: int | None = None,
    min_agreement: float | None = None,
    input_type: InputType = "uint8",
    output_type: OutputType = "uint8",
    network: Any = None,
    overwrite: bool = False,
) -> Path:
    """Write a TFLite file with the signature `serving_default`: `image` → `probabilities`, or several by name.

    The input is one picture `[1, H, W, C]` of RGB pixels 0–255; integer files take uint8
    pixels as they are and return uint8, probabilities as multiples of 1/256, other outputs with the scale
    and zero point of the calibration, which the file states. A static batch lets XNNPACK take the whole
    graph as one partition, except in `int16x8`.

    Args:
        model: a Keras model with one image input; see `to_saved_model` for several outputs.
        path: file to create.
        recipe: `float32`, `float16`, `weight_int8`, `int8`, `int16x8`, `int8_qat`, `int8_pruned` or
            `int8_clustered`.
        calibration: for the integer recipes: photographs, uint8 or float32 0–255 `[N, H, W, C]`, or an
            iterable of such batches. A hundred are enough; labels are not needed. The others have no use
            for them.
        labels, kinds: as in `to_saved_model`.
        size: side of the input in pixels, for a model that leaves it open.
        min_agreement: for `int8`: agreement with the model, 0–1, that held-out calibration photographs must
            show, of each output that decides something (the best class, yes or no); the worst tensors are left
            in float until they do. Embeddings and maps decide nothing.
        input_type: of integer files: `uint8` (a pixel is its own value) or `int8` (pixel - 128). `int16x8`
            has int16 at both ends.
        output_type: of integer files: `uint8`, which every client opens, `int8` (the same minus 128), which
            MediaPipe Tasks, LiteRT.js and the TFLite Task Library refuse, or `float32`.
        network: for `int8`, instead of `calibration`: an `IntegerNetwork` that was prepared already, so that
            one calibration serves several files.
        overwrite: replace an existing file.

    Returns:
        The file.

    Raises:
        InvalidInputError: unknown recipe, an option that it cannot follow, a missing or unusable calibration,
            a path that exists or whose ending belongs to another format.
        MissingExtraError: the extra `tflite` is not installed.
        ExportError: the converter failed.
    """
    options = Options(
        min_agreement=min_agreement, input_type=input_type, output_type=output_type, network=network
    )
    target = get_target(TFLITE, recipe)
    return _export(target, model, path, options, calibration, labels, kinds, size, overwrite)


def to_onnx(
    model: Any,
    path: str | os.PathLike[str],
    recipe: OnnxRecipe = "float32",
    calibration: Any = None,
    layout: Layout = "nchw",
    *,
    labels: SaidLabels = None,
    kinds: SaidKinds = None,
    size: int | None = None,
    min_agreement: float | None = None,
    batching: Batching = "whole",
    runtime: OnnxRuntimeName = "onnxruntime",
    first_integer: str | None = None,
    opset: int | None = None,
    input: OnnxInput = "pixels",
    input_name: str | None = None,
    output_name: str | None = None,
    network: Any = None,
    overwrite: bool = False,
) -> Path:
    """Write an ONNX file with input `image` (float32 pixels 0–255) and output `probabilities`, or several by name.

    Args:
        model: a Keras model with one image input; see `to_saved_model` for several outputs.
        path: file to create.
        recipe: `float32`, `float16` (kernels stored as float16, arithmetic and both ends float32),
            `float16_gpu` (all of it float16, input and output too), or `int8` (quantize/dequantize pairs,
            int8 weights with a scale per channel).
        calibration: for `int8`, as in `to_tflite`.
        layout: `nchw` for an input `[N, C, H, W]`, which servers compute fastest, or `nhwc` for
            `[N, H, W, C]`, which costs one Transpose at the start.
        labels: as in `to_saved_model`. A JSON list in the metadata, or an object of them by output.
        kinds: as in `to_saved_model`.
        size: side of the input in pixels, for a model that leaves it open.
        min_agreement: for `int8`, as in `to_tflite`.
        batching: `whole` computes a batch layer by layer, as GPUs want it; `each` one picture after the
            other, which CPUs compute faster. The batch is free in both.
        runtime: for `int8`: what will open the file. `onnxruntime`: uint8 activations everywhere, or, of
            networks with swishes, from where on it is fastest. `openvino`: only what convolutions and sums
            read is rounded. `tensorrt`: likewise, as int8 with the zero point 0.
        first_integer: for `int8`, of a network with swishes: what the name of the first layer begins with
            that computes in integers, for example `block5`, or `stem` for all; those before it compute in
            float. None measures a few places where the file is made for `onnxruntime`, and takes the fastest;
            for the other runtimes it is all.
        opset: version of ONNX' operators, 13 to 24; default 17, or 18 with `input="jpeg"`.
        input: `pixels`, or `jpeg`: the input is `image_bytes`, uint8 `[bytes]`, of one JPEG or PNG, and the outputs
            have one row. It is decoded by onnxruntime-extensions, cropped and resized as `load_image` does, but not
            turned upright (EXIF); it must be whole: see docs/onnx.md before strangers send theirs. For ONNX Runtime
            and square RGB pictures.
        input_name, output_name: of the file's input and output, where `image` and `probabilities` do not suit.
        network: for `int8`, as in `to_tflite`.
        overwrite: replace an existing file.

    Returns:
        The file.

    Raises:
        InvalidInputError: as `to_tflite`.
        MissingExtraError: the extra `onnx`, or for a JPEG `onnx-jpeg`, is not installed.
        ExportError: the converter failed.
    """
    target = get_target(ONNX, recipe)
    options = Options(
        layout=layout,
        batching=batching,
        min_agreement=min_agreement,
        runtime=runtime,
        first_integer=first_integer,
        opset=opset,
        input=input,
        input_name=input_name,
        output_name=output_name,
        network=network,
    )
    return _export(target, model, path, options, calibration, labels, kinds, size, overwrite)


def _export(
    target: Target,
    model: Any,
    path: str | os.PathLike[str],
    options: Options,
    calibration: Any,
    labels: SaidLabels,
    kinds: SaidKinds,
    size: int | None,
    overwrite: bool,
) -> Path:
    check_options([target], options)
    check_path(target, path)
    facts = facts_of(model, size, labels, kinds)
    return write_artefact(target, facts, Path(path), options, calibration, overwrite=overwrite)
