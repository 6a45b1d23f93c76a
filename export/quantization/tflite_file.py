"""From an integer network to a TFLite file: the LiteRT quantizer writes it, with our weights and ranges."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from keras_effnet.errors import ExportError, require
from keras_effnet.export.quantization import litert
from keras_effnet.export.quantization.graph import Graph, Step
from keras_effnet.export.quantization.ranges import Range

WEIGHTED_OPERATORS = {"conv": "CONV_2D", "depthwise": "DEPTHWISE_CONV_2D", "dense": "FULLY_CONNECTED"}
PLAIN_OPERATORS = {"mean": "MEAN", "product": "MUL", "sum": "ADD"}
PASSING = ("PAD", "RESHAPE", "CAST")


def tensor_names(content: bytes, graph: Graph) -> dict[str, str]:
    """Which tensor of a float32 TFLite file is which tensor of the graph it was converted from.

    Follows both in the order of execution, by kinds of operators; the converter's names are not used.

    Args:
        content: the file.
        graph: what it computes.

    Returns:
        The graph's key (see `simulate`) by the file's tensor name.

    Raises:
        ExportError: the file has another structure.
    """
    return _Matcher(content).match(graph)


class _Matcher:
    """Finds operators in a TFLite file by what they read."""

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
        places: dict[str, int] = {}
        for step in graph:
            if step.kind == "input":
                places[step.name] = self._note(int(self.subgraph.inputs[0]), step.name)
            else:
                places[step.name] = self._step(step, [places[name] for name in step.inputs])
        return {self.subgraph.tensors[index].name.decode(): key for index, key in self.keys.items()}

    def _step(self, step: Step, sources: list[int]) -> int:
        name = step.name
        if step.kind in PLAIN_OPERATORS:
            return self._note(self._after(PLAIN_OPERATORS[step.kind], *sources), name)
        if step.kind == "affine":
            (x,) = sources
            if step.kernel is not None:
                x = self._note(self._after("MUL", x), f"{name}/scaled")
            return self._note(self._after("ADD", x), name)
        return self._activation(step, self._after(WEIGHTED_OPERATORS[step.kind], *sources))

    def _activation(self, step: Step, u: int) -> int:
        name = step.name
        if step.activation in ("linear", "relu6"):
            return self._note(u, name)
        self._note(u, f"{name}/pre")
        if step.activation == "softmax":
            return self._note(self._after("SOFTMAX", u), name)
        scaled = u if step.gain is None else self._note(self._after("MUL", u, constant=True), f"{name}/gate")
        gate = self._after("LOGISTIC", scaled)
        if step.activation == "swish":
            self._note(gate, f"{name}/sigmoid")
            return self._note(self._after("MUL", u, gate), name)
        return self._note(gate, name)

    def _note(self, index: int, key: str) -> int:
        self.keys[index] = key
        return index

    def _after(self, code: str, *sources: int, constant: bool = False) -> int:
        """Output of the one operator of a kind that reads all the given tensors."""
        for found, operator in self.operators:
            reads = [int(index) for index in operator.inputs]
            if found == code and set(sources) <= set(reads) and (not constant or self._has_constant(reads)):
                return int(operator.outputs[0])
        for found, operator in self.operators:
            if found in PASSING and int(operator.inputs[0]) == sources[0]:
                passed = self._note(int(operator.outputs[0]), self.keys[sources[0]])
                return self._after(code, passed, *sources[1:], constant=constant)
        raise ExportError(
            f"Expected operator {code} behind {self.keys.get(sources[0])!r}. "
            f"The converted file has {sorted({found for found, _ in self.operators})}. "
            "Please report this with the versions of tensorflow and keras."
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
        if key.split("/")[0] in lifted:
            worker.update_quantization_recipe(
                # it is searched for in "output;output;…", and "…/Mul" is a part of "…/Mul_1"
                f"(^|;){re.escape(name)}(;|$)",
                qtyping.TFLOperationName.ALL_SUPPORTED,
                algorithm_key=algorithms.NO_QUANTIZE,
            )
    found = {name: _statistics(ranges.get(key, Range(low=0.0, high=1.0))) for name, key in names.items()}
    return litert._finish(worker, found)


def _statistics(chosen: Range) -> dict[str, Any]:
    """A range as the quantizer stores what it measures."""
    limits = {"min": chosen.low, "max": chosen.high}
    arrays = {key: np.full((1, 1, 1, 1), value, np.float32) for key, value in limits.items()}
    return {**arrays, "num_samples": np.array(1)}
