"""Keras → ONNX: dynamic batch, no transposes inside, constants folded; a batch at once or picture by picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import ExportError, require
from keras_effnet.system.quiet import quiet_native
from keras_effnet.weights.checkpoint import METADATA_KEY

from .failures import converting
from .model_facts import INPUT_NAME, ModelFacts
from .onnx_file import converted
from .onnx_finish import finished, rename_tensors
from .onnx_pictures import SIDE_KEY, check_readable_for, with_reader
from .options import OPSET, Options
from .outputs import tensors_of
from .quantization.fold import UnsupportedModelError
from .quantization.graph import IntegerNetwork
from .quantization.prepare import prepare
from .quantization.runtimes import get_runtime
from .quantization.to_onnx import integer_onnx

LABELS_KEY = "labels"
_END = "keras_effnet_output_"
_PICTURE, _RESULT, _AXIS = "picture", "picture_probabilities", "picture_axis"  # inside the loop


def write_float32(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write an ONNX file that stores and computes in float32."""
    del calibration
    _write(convert_float(facts, options.operators), path, facts, options)


def write_float16(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write an ONNX file whose kernels are stored in half the bytes."""
    del calibration
    proto = convert_float(facts, options.operators)
    _store_float16(proto)
    _write(proto, path, facts, options)


def write_float16_gpu(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write an ONNX file in which everything is float16, input and output too."""
    del calibration
    convert = require("onnxruntime.transformers.float16", "onnx").convert_float_to_float16
    proto = convert_float(facts, options.operators)
    _write(convert(proto), path, facts, options)


def write_int8(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write an ONNX file of quantize/dequantize pairs: of `options.network`, or of photographs.

    Raises:
        ExportError: a model that cannot be taken apart.
    """
    network = options.network
    if network is None:
        try:
            network = prepare_int8(facts, calibration, options)
        except UnsupportedModelError as error:
            raise ExportError(f"{error} Use onnx:float32, or tflite:int8, which has a plain path.") from error
    proto = integer_onnx(
        network,
        input_name=INPUT_NAME,
        output_names=facts.output_names,
        layout=facts.info.layout,
        runtime=get_runtime(options.runtime),
        opset=min(options.operators, OPSET),
    )
    _write(proto, path, facts, options)


def prepare_int8(facts: ModelFacts, calibration: Any, options: Options) -> IntegerNetwork:
    """The integer network as it is fastest in the runtime that the file is for.

    Raises:
        UnsupportedModelError: a model that cannot be taken apart.
    """
    return prepare(
        facts,
        calibration,
        min_agreement=options.min_agreement,
        target="onnx",
        runtime=options.runtime,
        first_integer=options.first_integer,
    )


def _write(proto: Any, path: Path, facts: ModelFacts, options: Options) -> None:
    onnx = require("onnx", "onnx")
    if options.input == "jpeg":
        check_readable_for(facts)
    proto = finished(proto, facts, options)
    if options.batching == "each":
        proto = each_picture(proto)
    if options.input == "jpeg":
        proto = with_reader(proto, facts, options)
    _annotate(proto, facts, options)
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))


def convert_float(facts: ModelFacts, opset: int = OPSET) -> Any:
    """The float32 graph as an `onnx.ModelProto` of one's own, simplified.

    Raises:
        ExportError: the converter failed.
    """
    onnx = require("onnx", "onnx")
    key = ("onnx", facts.info.layout, min(opset, OPSET))
    return onnx.ModelProto.FromString(
        facts.converted(key, lambda: _simplified(facts, opset).SerializeToString())
    )


def _simplified(facts: ModelFacts, opset: int) -> Any:
    onnxslim = require("onnxslim", "onnx")
    proto = converted(
        _functional(facts.model) if len(facts.outputs) == 1 else _numbered(facts.model),
        {INPUT_NAME: (facts.height, facts.width, facts.channels)},
        name=facts.info.name,
        opset=min(opset, OPSET),  # the newest that tf2onnx' optimizer was written for
        nchw_inputs=[INPUT_NAME] if facts.info.layout == "nchw" else [],
    )
    with quiet_native(), converting(facts.info.name, "ONNX"):
        _name_ends(proto, facts.output_names)
        # folds constants and drops the no-op reshapes around the squeeze-and-excite branches
        return onnxslim.slim(proto)


def _functional(model: Any) -> Any:
    """A Sequential, or a model of one output in a dictionary, as one that tf2onnx finds its output in by name."""
    import keras

    if not isinstance(model, keras.Model):
        return model
    if not isinstance(model, keras.Sequential) and hasattr(model.output, "shape"):
        return model
    return keras.Model(model.inputs, model.outputs, name=model.name)


def _numbered(model: Any) -> Any:
    """A model of several outputs as one that tf2onnx finds them in: layers of their own, called like their keys."""
    import keras

    ends = {f"{_END}{place}": tensor for place, tensor in enumerate(tensors_of(model))}
    layer = keras.layers.Activation
    return keras.Model(
        model.inputs,
        {name: layer("linear", name=name)(tensor) for name, tensor in ends.items()},
        name=model.name,
    )


def _name_ends(proto: Any, names: Sequence[str]) -> None:
    """One name for the batch axis, and stable names for the outputs."""
    graph = proto.graph
    numbered = {f"{_END}{place}": name for place, name in enumerate(names)}
    renamed = numbered if len(names) > 1 else {graph.output[0].name: names[0]}
    rename_tensors(graph, renamed)
    for output in graph.output:
        output.name = renamed[output.name]
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


def _annotate(proto: Any, facts: ModelFacts, options: Options) -> None:
    onnx = require("onnx", "onnx")
    proto.producer_name = "keras_effnet"
    proto.graph.name = facts.info.name
    properties = {
        METADATA_KEY: facts.info.to_json(),
        "preprocessing": facts.info.usage,
        "layout": facts.info.layout,
    }
    if options.input == "jpeg":
        del properties["layout"]
        properties[SIDE_KEY] = str(facts.height)
    if any(output.labels for output in facts.outputs):
        named = {output.name: list(output.labels) for output in facts.outputs if output.labels}
        properties[LABELS_KEY] = json.dumps(named if len(facts.outputs) > 1 else list(facts.labels))
    onnx.helper.set_model_props(proto, properties)


def each_picture(proto: Any) -> Any:
    """A model with one input and batched outputs as a loop over its batch.

    A runtime computes a batch layer by layer, so the maps of sixteen pictures travel through memory between
    any two layers. A `Scan` computes one picture to its end before the next, which is faster on CPUs; a GPU
    wants the whole batch at once.

    Args:
        proto: `onnx.ModelProto`; input `[N, ...]`, outputs `[N, ...]`.

    Returns:
        Another one with the same input and outputs. Weights lie inside the loop, where runtimes that
        rearrange them look for them.
    """
    onnx = require("onnx", "onnx")
    helper, outer = onnx.helper, proto.graph
    (given,), several = outer.input, len(outer.output) > 1
    body = onnx.GraphProto()
    body.name = "one_picture"
    body.initializer.extend(outer.initializer)
    body.initializer.append(helper.make_tensor(_AXIS, onnx.TensorProto.INT64, [1], [0]))
    # the ends keep their names, now those of a batch of one
    body.node.append(helper.make_node("Unsqueeze", [_PICTURE, _AXIS], [given.name]))
    body.node.extend(outer.node)
    results = {
        taken.name: f"{_RESULT}_{place}" if several else _RESULT for place, taken in enumerate(outer.output)
    }
    for name, result in results.items():
        body.node.append(helper.make_node("Squeeze", [name, _AXIS], [result]))
    inner = [(body.input, _PICTURE, given), *((body.output, results[end.name], end) for end in outer.output)]
    for values, name, end in inner:
        kind = end.type.tensor_type.elem_type
        values.append(helper.make_tensor_value_info(name, kind, _shape(end)[1:]))
    # names of an inner graph must not hide those of the outer one
    rename_tensors(body, {name: f"{name}/one" for name in (given.name, *results)})
    loop = helper.make_node("Scan", [given.name], [*results], name="pictures", num_scan_inputs=1, body=body)
    graph = helper.make_graph([loop], outer.name, [given], outer.output)
    return helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)


def _shape(value: Any) -> list[int | str | None]:
    return [dim.dim_value or dim.dim_param or None for dim in value.type.tensor_type.shape.dim]
