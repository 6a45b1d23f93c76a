"""The ends of an integer TFLite file: what it takes and returns, around int8 inside.

Clients differ in what they open. MediaPipe Tasks (Python and web), LiteRT.js and the TFLite Task Library
take outputs of type uint8 and float32, and refuse int8; an NPU takes int8 and uint8, and leaves float32
to the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_effnet.errors import require

from ..tflite_file import pack
from .ranges import Range

UNSIGNED = 128  # lies between the integers of int8 and those of uint8 that mean the same


def with_ends(content: bytes, input_type: str, output_type: str) -> bytes:
    """An int8-to-int8 file with the ends that were asked for: one operator more for each that differs.

    The input is `"uint8"` (scale 1, zero point 0: pixels as they are) or `"int8"` (pixel - 128), the output
    `"uint8"` or `"int8"`, or `"float32"` (the last softmax runs on dequantized logits). Probabilities have the
    scale 1/256 and the zero point 0, as int8 -128. Logits, embeddings and maps have those of the calibration,
    the same scale in both types.
    """
    ends = {"uint8": uint8_output, "float32": float_output}
    if input_type == "uint8":
        content = uint8_input(content)
    return ends[output_type](content) if output_type in ends else content


def uint8_input(content: bytes) -> bytes:
    """Let a file take uint8 with scale 1 and zero point 0: a pixel is its own quantized value."""
    model, schema = _read(content)
    graph = model.subgraphs[0]
    inner = int(graph.inputs[0])
    tensor = _tensor_like(graph.tensors[inner], schema, schema.TensorType.UINT8)
    tensor.quantization.scale = np.array([1.0], np.float32)
    tensor.quantization.zeroPoint = np.array([0], np.int64)
    # the inner tensor keeps its name for those who look for it; the outer one takes the signature
    outer = _add(graph, tensor, b"pixels_uint8")
    graph.operators.insert(0, _operator(model, schema, "QUANTIZE", outer, inner))
    graph.inputs = np.array([outer], np.int32)
    model.signatureDefs[0].inputs[0].tensorIndex = outer
    return pack(model)


def int8_output(content: bytes, chosen: Range) -> bytes:
    """Let a file that ends in a float island return int8 of the given range, as all others do."""
    model, schema = _read(content)
    graph = model.subgraphs[0]
    inner = graph.tensors[int(graph.outputs[0])]
    if inner.type != schema.TensorType.FLOAT32:
        return content
    tensor = _tensor_like(inner, schema, schema.TensorType.INT8)
    tensor.quantization.scale = np.array([chosen.scale], np.float32)
    tensor.quantization.zeroPoint = np.array([chosen.zero_point], np.int64)
    _end(model, schema, "QUANTIZE", tensor, b"output_int8")
    return pack(model)


def uint8_output(content: bytes) -> bytes:
    """Let a file return uint8 of the same scale: a QUANTIZE at the end, which moves the zero point."""
    model, schema = _read(content)
    graph = model.subgraphs[0]
    inner = graph.tensors[int(graph.outputs[0])]
    tensor = _tensor_like(inner, schema, schema.TensorType.UINT8)
    tensor.quantization.scale = inner.quantization.scale
    tensor.quantization.zeroPoint = np.asarray(inner.quantization.zeroPoint) + UNSIGNED
    _end(model, schema, "QUANTIZE", tensor, b"output_uint8")
    return pack(model)


def float_output(content: bytes) -> bytes:
    """Let a file return float32: a DEQUANTIZE at the end, in front of a last SOFTMAX if there is one.

    An 8-bit SOFTMAX knows multiples of 1/256 only, XNNPACK does not take it, and a DEQUANTIZE behind it
    would become a second partition.
    """
    model, schema = _read(content)
    graph = model.subgraphs[0]
    last = graph.operators[-1]
    outer = int(graph.outputs[0])
    if model.operatorCodes[last.opcodeIndex].builtinCode == schema.BuiltinOperator.SOFTMAX:
        logits = int(last.inputs[0])
        float_logits = _add(graph, _float_like(graph.tensors[logits], schema), b"logits_float32")
        dequantize = _operator(model, schema, "DEQUANTIZE", logits, float_logits)
        graph.operators.insert(len(graph.operators) - 1, dequantize)
        last.inputs = np.array([float_logits], np.int32)
        name = graph.tensors[outer].name
        graph.tensors[outer] = _float_like(graph.tensors[outer], schema)
        graph.tensors[outer].name = name
    else:
        _end(model, schema, "DEQUANTIZE", _float_like(graph.tensors[outer], schema), b"output_float32")
    return pack(model)


def _end(model: Any, schema: Any, code: str, tensor: Any, name: bytes) -> None:
    """Put an operator behind the output; the tensor that it makes takes the signature."""
    graph = model.subgraphs[0]
    inner, outer = int(graph.outputs[0]), _add(graph, tensor, name)
    graph.operators.append(_operator(model, schema, code, inner, outer))
    graph.outputs = np.array([outer], np.int32)
    model.signatureDefs[0].outputs[0].tensorIndex = outer


def _float_like(other: Any, schema: Any) -> Any:
    tensor = _tensor_like(other, schema, schema.TensorType.FLOAT32)
    tensor.quantization = None
    return tensor


def _read(content: bytes) -> tuple[Any, Any]:
    utils = require("litert_quantizer.utils.tfl_flatbuffer_utils", "tflite")
    return utils.read_model(bytearray(content)), require("ai_edge_litert.schema_py_generated", "tflite")


def _tensor_like(other: Any, schema: Any, kind: int) -> Any:
    tensor = schema.TensorT()
    tensor.shape, tensor.shapeSignature = other.shape, other.shapeSignature
    tensor.type = kind
    tensor.buffer = 0  # by convention the empty buffer
    tensor.quantization = schema.QuantizationParametersT()
    return tensor


def _add(graph: Any, tensor: Any, name: bytes) -> int:
    tensor.name = name
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(model: Any, schema: Any, code: str, source: int, target: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(model, schema, getattr(schema.BuiltinOperator, code))
    operator.inputs, operator.outputs = np.array([source], np.int32), np.array([target], np.int32)
    options = f"{code.title()}Options"
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
    operator.builtinOptions = getattr(schema, f"{options}T")()
    return operator


def _code(model: Any, schema: Any, builtin: int) -> int:
    """Index of an operator code, added when the file has none."""
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
