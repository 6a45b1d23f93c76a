"""Keras → ONNX: dynamic batch, no transposes inside, constants folded."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import ExportError, InvalidInputError, require, unknown_name
from keras_effnet.export.onnx_batching import BATCHINGS, each_picture
from keras_effnet.export.recipes import get_recipe
from keras_effnet.export.subject import (
    INPUT_NAME,
    METADATA_KEY,
    OUTPUT_NAME,
    Subject,
    describe,
    missing_calibration,
)
from keras_effnet.system.files import staged
from keras_effnet.system.quiet import quiet_native

LAYOUTS = ("nchw", "nhwc")
OPSET = 17
LABELS_KEY = "labels"
PASSES = (
    "optimize_transpose",
    "fold_constants",
    "global_pool_optimizer",
    "remove_identity",
    "remove_back_to_back",
)
CATCH_ERRORS = "TF2ONNX_CATCH_ERRORS"  # read by tf2onnx from the environment


def to_onnx(
    model: Any,
    path: str | os.PathLike[str],
    recipe: str = "float32",
    calibration: Any = None,
    layout: str = "nchw",
    *,
    labels: Sequence[str] | None = None,
    size: int | None = None,
    min_agreement: float | None = None,
    batching: str = "whole",
    overwrite: bool = False,
) -> Path:
    """Write an ONNX file with input `image` (float32 pixels 0–255) and output `probabilities`.

    Args:
        model: a Keras model with one image input.
        path: file to create.
        recipe: `float32`, `float16` (kernels stored as float16, arithmetic in float32), or `int8`
            (quantize/dequantize pairs, uint8 activations, int8 weights with a scale per channel; of
            networks with swishes stages 1 to 4 compute in float, which ONNX Runtime does faster).
        calibration: for `int8`, as in `to_tflite`.
        layout: `nchw` for an input `[N, C, H, W]`, which servers compute fastest, or `nhwc` for
            `[N, H, W, C]`, which costs one Transpose at the start.
        labels: class names; default: the model's own, or ImageNet's. A JSON list in the metadata.
        size: side of the input in pixels, for a model that leaves it open.
        min_agreement: for `int8`, as in `to_tflite`.
        batching: `whole` computes a batch layer by layer, as GPUs want it; `each` one picture after the
            other, which CPUs compute faster. The batch is free in both.
        overwrite: replace an existing file.

    Returns:
        The file.

    Raises:
        InvalidInputError: unknown recipe, layout or batching, an existing path.
        MissingExtraError: the extra `onnx` is not installed.
        ExportError: the converter failed.
    """
    chosen = get_recipe("onnx", recipe)
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if batching not in BATCHINGS:
        raise unknown_name("batching", batching, BATCHINGS)
    subject = describe(model, recipe, labels=labels, size=size, layout=layout)
    if not model.output_shape[-1]:
        raise InvalidInputError(f"Expected a model with a known output. Received: {model.output_shape}.")
    if chosen.integer and calibration is None:
        raise missing_calibration(subject)
    onnx = require("onnx", "onnx")
    with staged(path, overwrite=overwrite) as temporary:
        proto = _integer(subject, calibration, min_agreement) if chosen.integer else convert_float(subject)
        if recipe == "float16":
            _store_float16(proto)
        if batching == "each":
            proto = each_picture(proto)
        _annotate(proto, subject)
        onnx.checker.check_model(proto)
        onnx.save(proto, str(temporary))
    return Path(path)


def _integer(subject: Subject, calibration: Any, min_agreement: float | None) -> Any:
    """The integer graph, as it is fastest in ONNX Runtime unless another network is given."""
    from keras_effnet.export.quantization import folding, onnx_file, post_training

    network = calibration
    if not isinstance(network, post_training.IntegerNetwork):
        try:
            network = post_training.network(
                subject.model, calibration, min_agreement=min_agreement, target="onnx", size=subject.size
            )
        except folding.UnsupportedModelError as error:
            raise ExportError(f"{error} Use onnx:float32, or tflite:int8, which has a plain path.") from error
    return onnx_file.to_onnx(
        network.quantized,
        height=network.height,
        width=network.width,
        input_name=INPUT_NAME,
        output_name=OUTPUT_NAME,
        layout=subject.info.layout,
    )


def convert_float(subject: Subject) -> Any:
    """The float32 graph as an `onnx.ModelProto`, simplified.

    Raises:
        ExportError: the converter failed.
    """
    import tensorflow as tf

    tf2onnx = require("tf2onnx", "onnx")
    onnxslim = require("onnxslim", "onnx")
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    shape = (None, subject.height, subject.width, subject.channels)
    nchw = subject.info.layout == "nchw"
    with quiet_native():
        try:
            with _without_copies():
                proto, _ = tf2onnx.convert.from_keras(
                    _functional(subject.model),
                    [tf.TensorSpec(shape, tf.float32, name=INPUT_NAME)],
                    opset=OPSET,
                    inputs_as_nchw=[INPUT_NAME] if nchw else None,
                    optimizers=_passes(),
                )
                _name_ends(proto)
                # folds constants and drops the no-op reshapes around the squeeze-and-excite branches
                return onnxslim.slim(proto)
        except Exception as error:  # tf2onnx raises whatever its handlers meet
            said = next(iter(str(error).splitlines()), "")
            raise ExportError(
                f"Expected {subject.info.name!r} to convert to ONNX. The converter said: "
                f"{type(error).__name__}: {said}. Build the model from standard layers."
            ) from error


def _functional(model: Any) -> Any:
    """A Sequential as a functional model: tf2onnx looks for its outputs by names that it does not have."""
    import keras

    if not isinstance(model, keras.Sequential):
        return model
    return keras.Model(model.inputs, model.outputs, name=model.name)


def _passes() -> dict[str, Any]:
    """The passes of tf2onnx that such networks need.

    Each pass keeps a copy of all weights until the end, and tf2onnx repeats them until none finds
    anything to do: with all twelve of them B7 needs 13 GB, with these 5.
    """
    known = require("tf2onnx.optimizer", "onnx")._get_optimizers()
    return {name: known[name] for name in PASSES}


@contextmanager
def _without_copies() -> Iterator[None]:
    """Keep tf2onnx from copying the graph before each pass; a pass that fails is an error here."""
    before = os.environ.get(CATCH_ERRORS)
    os.environ[CATCH_ERRORS] = "FALSE"
    try:
        yield
    finally:
        if before is None:
            del os.environ[CATCH_ERRORS]
        else:
            os.environ[CATCH_ERRORS] = before


def _name_ends(proto: Any) -> None:
    """One name for the batch axis, and a stable name for the output."""
    graph = proto.graph
    old = graph.output[0].name
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = OUTPUT_NAME
    graph.output[0].name = OUTPUT_NAME
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]  # written for the old batch name; inferred again below


def _store_float16(proto: Any) -> None:
    """Store the kernels of convolutions and the classifier as float16, in place.

    The arithmetic stays float32: runtimes fold the Cast when they load the file, so it is as fast as
    float32 on a CPU, where a float16 graph is slower. Depthwise kernels and biases stay float32: they
    are 3 % of the bytes, and rounding them too makes Lite0's largest error 6e-3 instead of 3e-3.
    """
    onnx = require("onnx", "onnx")
    graph = proto.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    casts = []
    for node in graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm") or node.input[1] not in initializers:
            continue
        groups = next((item.i for item in node.attribute if item.name == "group"), 1)
        tensor = initializers[node.input[1]]
        if groups != 1 or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        half = f"{tensor.name}_float16"
        if half not in initializers:
            values = onnx.numpy_helper.to_array(tensor)
            initializers[half] = onnx.numpy_helper.from_array(values.astype(np.float16), half)
            casts.append(onnx.helper.make_node("Cast", [half], [tensor.name], to=onnx.TensorProto.FLOAT))
    stored = {cast.output[0] for cast in casts}
    nodes = [*casts, *graph.node]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensor for name, tensor in initializers.items() if name not in stored)


def _annotate(proto: Any, subject: Subject) -> None:
    onnx = require("onnx", "onnx")
    proto.producer_name = "keras_effnet"
    proto.graph.name = subject.info.name
    properties = {
        METADATA_KEY: subject.info.to_json(),
        "preprocessing": subject.info.usage,
        "layout": subject.info.layout,
    }
    if subject.labels:
        properties[LABELS_KEY] = json.dumps(list(subject.labels))
    onnx.helper.set_model_props(proto, properties)
