"""From an integer network to a TFLite file: the LiteRT quantizer writes it, with our weights and ranges."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from keras_effnet.errors import ExportError, require

from ..tflite_file import convert_float
from . import litert
from .ends import with_ends
from .graph import Graph, IntegerNetwork
from .ops import OUTPUT, Operator, key_of, step_of
from .ranges import Range
from .steps import Input, Step
from .to_keras import to_keras
from .xnnpack import within_limits

PASSING = ("PAD", "RESHAPE", "CAST")


def integer_tflite(
    network: IntegerNetwork, *, input_type: str = "uint8", output_type: str = "uint8"
) -> bytes:
    """The TFLite file of a quantized network.

    Args:
        network: from `prepare`.
        input_type, output_type: see `ends.with_ends`.

    Returns:
        The file, signature `serving_default`.
    """
    quantized = network.quantized
    rebuilt = to_keras(quantized.graph, height=network.height, width=network.width)
    channels = int(quantized.graph.input_shape[2] or 0)
    content = convert_float(rebuilt, (network.height, network.width, channels))
    ranges = within_limits(quantized.graph, quantized.ranges)
    content = write(content, quantized.graph, ranges, quantized.lifted)
    return with_ends(content, input_type, output_type)


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
        """Remember which of the graph's tensors a tensor of the file is: the first, where it is several."""
        self.keys.setdefault(index, key)
        return index

    def after(self, code: str, *sources: int, constant: bool = False) -> int:
        """Output of the one operator of a kind that reads all the given tensors.

        The converter leaves out the mean of a single pixel: of it, the tensor itself.
        """
        found = self._reader(code, sources, constant)
        if found is not None:
            return found
        if code == "MEAN" and list(self.subgraph.tensors[sources[0]].shape[1:3]) == [1, 1]:
            return sources[0]
        raise ExportError(
            f"Expected operator {code} behind {self.keys.get(sources[0])!r}. "
            f"The converted file has {sorted({found for found, _ in self.operators})}. "
            "Please report this with the versions of tensorflow and keras."
        )

    def _reader(self, code: str, sources: tuple[int, ...], constant: bool) -> int | None:
        """`after`, also where it reads what the converter put behind a tensor and passes it on."""
        for found, operator in self.operators:
            reads = [int(index) for index in operator.inputs]
            if found == code and set(sources) <= set(reads) and (not constant or self._has_constant(reads)):
                return int(operator.outputs[0])
        for place, source in enumerate(sources):
            for found, operator in self.operators:
                if found in PASSING and int(operator.inputs[0]) == source:
                    passed = self.note(int(operator.outputs[0]), self.keys[source])
                    others = (*sources[:place], passed, *sources[place + 1 :])
                    if (reader := self._reader(code, others, constant)) is not None:
                        return reader
        return None

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
