"""Writing TFLite flatbuffers: operator codes that every reader finds, and nothing said twice.

An integer file has a scale and a zero point for every output channel of every kernel and of every
bias. The zero points are all 0 and take eight bytes each; two vectors with the same content can be
one, which a flatbuffer's readers do not notice. It saves 9 % of an integer EfficientNet.

The LiteRT quantizer leaves `deprecated_builtin_code` of the operators that it inserts at 0, which is ADD,
and their version at 1. The runtime reads the larger of both codes; OpenVINO reads what old readers do, and
refuses the file.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np

from keras_effnet.errors import require

OLD_CODES = 127  # the largest that the old field, of one byte, can hold; it stands for all above, too


class _SharingBuilder(flatbuffers.Builder):  # the names are those of flatbuffers
    """A builder that writes each distinct vector of numbers once."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: Any) -> int:  # noqa: N802
        array = np.asarray(x)
        key = (array.dtype.str, array.tobytes())
        if key not in self._written:
            self._written[key] = int(super().CreateNumpyVector(array))
        return self._written[key]


def pack(model: Any) -> bytes:
    """The file of a `ModelT` of the schema's object API, whose operator codes are completed."""
    _complete_codes(model)
    builder = _SharingBuilder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _complete_codes(model: Any) -> None:
    """Old codes beside the new ones, and the versions of DEQUANTIZE that its input types came with."""
    schema = require("ai_edge_litert.schema_py_generated", "tflite")
    types = schema.TensorType
    versions = {types.INT8: 2, types.INT16: 3, types.FLOAT16: 3}
    for code in model.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
        code.deprecatedBuiltinCode = min(code.builtinCode, OLD_CODES)
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            if code.builtinCode == schema.BuiltinOperator.DEQUANTIZE:
                given = graph.tensors[int(operator.inputs[0])]
                code.version = max(code.version, versions.get(given.type, 1), _per_channel(given))


def _per_channel(tensor: Any) -> int:
    """The version of DEQUANTIZE that knows one scale for each channel, where it needs to."""
    scales = tensor.quantization.scale if tensor.quantization is not None else None
    return 5 if scales is not None and len(scales) > 1 else 1
