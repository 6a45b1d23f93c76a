"""From an integer network to a TFLite file: the LiteRT quantizer writes it, with our weights and ranges."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from keras_effnet.errors import ExportError, require

from ..tflite_converter import convert_float
from ..tflite_pack import pack
from . import litert
from .graph import Graph, IntegerNetwork
from .ops import OUTPUT, Operator, key_of, step_of
from .ranges import Range
from .steps import Input, Step
from .to_keras import to_keras

PASSING = ("PAD", "RESHAPE", "CAST")


def integer_tflite(network: IntegerNetwork, *, input_type: str = "uint8", output_type: str = "int8") -> bytes:
    """The TFLite file of a quantized network.

    Args:
        network: from `prepare`.
        input_type: `"uint8"` (scale 1, zero point 0: pixels as they are) or `"int8"` (pixel - 128).
        output_type: `"int8"` (probabilities in steps of 1/256) or `"float32"` (the last softmax runs on
            dequantized logits).

    Returns:
        The file, signature `serving_default`.
    """
    quantized = network.quantized
    rebuilt = to_keras(quantized.graph, height=network.height, width=network.width)
    channels = int(quantized.graph.input_shape[2] or 0)
    content = convert_float(rebuilt, (network.height, network.width, channels))
    content = write(content, quantized.graph, quantized.ranges, quantized.lifted)
    return with_ends(content, input_type, output_type)


def with_ends(content: bytes, input_type: str, output_type: str) -> bytes:
    """An int8-to-int8 file with the ends that were asked for: one operator more for each that differs."""
    if output_type == "float32":
        content = float_output(content)
    return uint8_input(content) if input_type == "uint8" else content


def tensor_names(content: bytes, graph: Graph) -> dict[str, str]:
    """Which tensor of a float32 TFLite file is which tensor of the graph it was converted from.

    Follows both in the order of execution, by kinds of operators; the converter's names are not used.

    Args:
        content: the file.
        graph: what it computes.

    Returns:
        The graph's key (see `ops.key_of`) by the file's tensor name.

    Raises:
        ExportError: the file has another structure.
    """
    return _FileReader(content).match(graph)


class _FileReader:
    """Finds operators in a TFLite file by what they read; what `Operator.tflite` is given."""

    def __init__(self, content: bytes) -> None:
        utils = require("litert_quantizer.utils.tfl_flatbuffer_utils", "tflite")
        schema = require("ai_edge_litert.schema_py_generated", "tflite")
        self.model = utils.read_model(bytearray(content))
        self.subgraph = self.model.subgraphs[0]
        codes = {
            value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
        }
        self.operators = [
            (codes[self.model.operatorCodes[operator.opcodeIndex].builtinCode], operator)
            for operator in self.subgraph.operators
        ]
        self.keys: dict[int, str] = {}

    def match(self, graph: Graph) -> dict[str, str]:
        for _ in graph.walk(self._step):
            pass
        return {self.subgraph.tensors[index].name.decode(): key for index, key in self.keys.items()}

    def _step(self, step: Step, sources: list[int]) -> int:
        def do(operator: Operator, *tensors: int, tensor: str | None = OUTPUT) -> int:
            found = operator.tflite(self, step.name, *tensors)
            return found if tensor is None else self.note(found, key_of(step.name, tensor))

        if isinstance(step, Input):
            return self.note(int(self.subgraph.inputs[0]), step.name)
        return int(step.compute(do, *sources))

    def note(self, index: int, key: str) -> int:
        """Remember which of the graph's tensors a tensor of the file is."""
        self.keys[index] = key
        return index

    def after(self, code: str, *sources: int, constant: bool = False) -> int:
        """Output of the one operator of a kind that reads all the given tensors."""
        for found, operator in self.operators:
            reads = [int(index) for index in operator.inputs]
            if found == code and set(sources) <= set(reads) and (not constant or self._has_constant(reads)):
                return int(operator.outputs[0])
        for found, operator in self.operators:
            if found in PASSING and int(operator.inputs[0]) == sources[0]:
                passed = self.note(int(operator.outputs[0]), self.keys[sources[0]])
                return self.after(code, passed, *sources[1:], constant=constant)
        raise ExportError(
            f"Expected operator {code} behind {self.keys.get(sources[0])!r}. "
            f"The converted file has {sorted({found for found, _ in self.operators})}. "
            "Please report this with the versions of tensorflow and keras."
        )

    def passed(self, code: str, source: int) -> int:
        """Output of the operator of a kind that reads a tensor; the tensor where the converter left it out."""
        return next(
            (
                int(operator.outputs[0])
                for found, operator in self.operators
                if found == code and int(operator.inputs[0]) == source
            ),
            source,
        )

    def _has_constant(self, tensors: list[int]) -> bool:
        buffers = self.model.buffers
        return any(buffers[self.subgraph.tensors[index].buffer].data is not None for index in tensors)


def write(content: bytes, graph: Graph, ranges: Mapping[str, Range], lifted: Collection[str] = ()) -> bytes:
    """The integer file.

    Args:
        content: the float32 file converted from `graph`, whose weights lie on their 8-bit grids.
        graph: the integer network's steps.
        ranges: of its tensors. A tensor without one must be the output of a sigmoid or softmax, whose
            integer scale is fixed, or lie between lifted steps.
        lifted: names of steps that are to stay float.

    Returns:
        The file, with int8 input and output.
    """
    quantizer = require("litert_quantizer.quantizer", "tflite")
    recipe = require("litert_quantizer.recipe", "tflite")
    qtyping = require("litert_quantizer.qtyping", "tflite")
    algorithms = require("litert_quantizer.algorithm_manager", "tflite").AlgorithmName
    worker = quantizer.Quantizer(bytearray(content), recipe.static_wi8_ai8())
    names = tensor_names(content, graph)
    for name, key in names.items():
        if step_of(key) in lifted:
            worker.update_quantization_recipe(
                # it is searched for in "output;output;…", and "…/Mul" is a part of "…/Mul_1"
                f"(^|;){re.escape(name)}(;|$)",
                qtyping.TFLOperationName.ALL_SUPPORTED,
                algorithm_key=algorithms.NO_QUANTIZE,
            )
    found = {name: _statistics(ranges.get(key, Range(low=0.0, high=1.0))) for name, key in names.items()}
    return litert.finish(worker, found)


def _statistics(chosen: Range) -> dict[str, Any]:
    """A range as the quantizer stores what it measures."""
    limits = {"min": chosen.low, "max": chosen.high}
    arrays = {key: np.full((1, 1, 1, 1), value, np.float32) for key, value in limits.items()}
    return {**arrays, "num_samples": np.array(1)}


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
    graph.operators.insert(0, _operator(model, schema, "QUANTIZE", "QuantizeOptions", outer, inner))
    graph.inputs = np.array([outer], np.int32)
    model.signatureDefs[0].inputs[0].tensorIndex = outer
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
        dequantize = _operator(model, schema, "DEQUANTIZE", "DequantizeOptions", logits, float_logits)
        graph.operators.insert(len(graph.operators) - 1, dequantize)
        last.inputs = np.array([float_logits], np.int32)
        name = graph.tensors[outer].name
        graph.tensors[outer] = _float_like(graph.tensors[outer], schema)
        graph.tensors[outer].name = name
        return pack(model)
    inner, outer = outer, _add(graph, _float_like(graph.tensors[outer], schema), b"output_float32")
    graph.operators.append(_operator(model, schema, "DEQUANTIZE", "DequantizeOptions", inner, outer))
    graph.outputs = np.array([outer], np.int32)
    model.signatureDefs[0].outputs[0].tensorIndex = outer
    return pack(model)


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


def _operator(model: Any, schema: Any, code: str, options: str, source: int, target: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(model, schema, getattr(schema.BuiltinOperator, code))
    operator.inputs, operator.outputs = np.array([source], np.int32), np.array([target], np.int32)
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
