"""The ends of an integer TFLite file: what it takes and returns, around int8 inside.

Clients differ in what they open. MediaPipe Tasks (Python and web), LiteRT.js and the TFLite Task Library
take outputs of type uint8 and float32, and refuse int8; an NPU takes int8 and uint8, and leaves float32
to the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet.errors import require

from ..tflite_file import pack, unpack
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


def int8_output(content: bytes, name: str, chosen: Range) -> bytes:
    """Let an output that is a float island's come as int8 of the given range, as all others do.

    Args:
        content: the file.
        name: of the output.
        chosen: the range.
    """
    model, schema = _read(content)
    (end,) = (end for end in _ends(model) if len(_ends(model)) == 1 or end.entry.name.decode() == name)
    inner = end.tensor
    if inner.type != schema.TensorType.FLOAT32:
        return content
    tensor = _tensor_like(inner, schema, schema.TensorType.INT8)
    tensor.quantization.scale = np.array([chosen.scale], np.float32)
    tensor.quantization.zeroPoint = np.array([chosen.zero_point], np.int64)
    end.append(schema, "QUANTIZE", tensor, b"output_int8")
    return pack(model)


def without_dequantize(content: bytes) -> bytes:
    """Let all outputs come in integers that have them.

    Where one output is a float island's, the LiteRT quantizer takes none of them for an integer one.
    """
    model, schema = _read(content)
    for end in _ends(model):
        if (last := end.maker(schema, "DEQUANTIZE")) is not None:
            if not end.is_read:  # by a float island
                end.graph.operators.remove(last)
            end.move(int(last.inputs[0]))
    return pack(model)


def uint8_output(content: bytes) -> bytes:
    """Let a file return uint8 of the same scale: a QUANTIZE at each end, which moves the zero point."""
    model, schema = _read(content)
    for end in _ends(model):
        inner = end.tensor
        tensor = _tensor_like(inner, schema, schema.TensorType.UINT8)
        tensor.quantization.scale = inner.quantization.scale
        tensor.quantization.zeroPoint = np.asarray(inner.quantization.zeroPoint) + UNSIGNED
        end.append(schema, "QUANTIZE", tensor, b"output_uint8")
    return pack(model)


def float_output(content: bytes) -> bytes:
    """Let a file return float32: a DEQUANTIZE at each end, in front of a last SOFTMAX if there is one.

    An 8-bit SOFTMAX knows multiples of 1/256 only, XNNPACK does not take it, and a DEQUANTIZE behind it
    would become a second partition.
    """
    model, schema = _read(content)
    for end in _ends(model):
        last = end.softmax(schema)
        if last is None:
            end.append(schema, "DEQUANTIZE", _float_like(end.tensor, schema), b"output_float32")
            continue
        graph = model.subgraphs[0]
        logits, outer = int(last.inputs[0]), end.index
        float_logits = _add(graph, _float_like(graph.tensors[logits], schema), b"logits_float32" + end.mark)
        dequantize = _operator(model, schema, "DEQUANTIZE", logits, float_logits)
        graph.operators.insert(graph.operators.index(last), dequantize)
        last.inputs = np.array([float_logits], np.int32)
        name = graph.tensors[outer].name
        graph.tensors[outer] = _float_like(graph.tensors[outer], schema)
        graph.tensors[outer].name = name
    return pack(model)


@dataclass(frozen=True)
class _End:
    """One output of a file: its entry in the signature, and its place among the outputs of the graph."""

    model: Any
    entry: Any
    place: int

    @property
    def graph(self) -> Any:
        return self.model.subgraphs[0]

    @property
    def index(self) -> int:
        """Of its tensor."""
        return int(self.graph.outputs[self.place])

    @property
    def tensor(self) -> Any:
        return self.graph.tensors[self.index]

    @property
    def mark(self) -> bytes:
        """What sets the names of its tensors apart from those of other outputs."""
        return b"" if len(self.graph.outputs) == 1 else b"_%d" % self.place

    @property
    def is_read(self) -> bool:
        """Whether an operator of the file reads it."""
        return any(self.index in operator.inputs for operator in self.graph.operators)

    def append(self, schema: Any, code: str, tensor: Any, name: bytes) -> None:
        """Put an operator behind the output; the tensor that it makes takes the signature."""
        inner, outer = self.index, _add(self.graph, tensor, name + self.mark)
        self.graph.operators.append(_operator(self.model, schema, code, inner, outer))
        self.move(outer)

    def move(self, outer: int) -> None:
        """Let another tensor be the output."""
        outputs = self.graph.outputs
        self.graph.outputs = np.array(
            [outer if place == self.place else index for place, index in enumerate(outputs)], np.int32
        )
        self.entry.tensorIndex = outer

    def maker(self, schema: Any, code: str) -> Any:
        """The operator of a kind that makes it; None where another one does."""
        wanted = getattr(schema.BuiltinOperator, code)
        (found,) = (operator for operator in self.graph.operators if self.index in operator.outputs)
        return found if self.model.operatorCodes[found.opcodeIndex].builtinCode == wanted else None

    def softmax(self, schema: Any) -> Any:
        """The SOFTMAX that makes it and that nobody else reads; else None."""
        return None if self.is_read else self.maker(schema, "SOFTMAX")


def _ends(model: Any) -> list[_End]:
    """The outputs of a file."""
    entries, outputs = model.signatureDefs[0].outputs, [int(index) for index in model.subgraphs[0].outputs]
    taken: set[int] = set()
    ends = []
    for entry in entries:  # two outputs may be one tensor
        place = next(at for at, index in enumerate(outputs) if index == entry.tensorIndex and at not in taken)
        taken.add(place)
        ends.append(_End(model, entry, place))
    return ends


def _float_like(other: Any, schema: Any) -> Any:
    tensor = _tensor_like(other, schema, schema.TensorType.FLOAT32)
    tensor.quantization = None
    return tensor


def _read(content: bytes) -> tuple[Any, Any]:
    return unpack(content), require("ai_edge_litert.schema_py_generated", "tflite")


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
