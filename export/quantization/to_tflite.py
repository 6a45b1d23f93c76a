"""From an integer network to a TFLite file: the LiteRT quantizer writes it, with our weights and ranges."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from keras_effnet.errors import ExportError, require

from ..tflite_file import convert_float, unpack
from . import litert
from .ends import int8_output, with_ends, without_dequantize
from .graph import Graph, IntegerNetwork, run
from .ops import OUTPUT, Operator, key_of, step_of
from .ranges import Array, Range
from .steps import Input, Island, Step
from .to_keras import to_keras
from .xnnpack import within_limits

PASSING = ("PAD", "RESHAPE", "CAST")
CHOICES = ("SELECT", "SELECT_V2")  # between branches, as only islands compute
SAME_VALUE = 1e-3  # of the largest: two ways of computing the same in float32
SAME_KERNEL = 1.0  # what the converter's own arithmetic moves, see `_distance`


def integer_tflite(
    network: IntegerNetwork,
    *,
    input_type: str = "uint8",
    output_type: str = "uint8",
    called: str | None = None,
) -> bytes:
    """The TFLite file of a quantized network, signature `serving_default`; for its ends see `ends.with_ends`.

    `called` is what errors call it.
    """
    quantized = network.quantized
    rebuilt = to_keras(quantized.graph, height=network.height, width=network.width)
    channels = int(quantized.graph.input_shape[2] or 0)
    shape = (network.height, network.width, channels)
    content = convert_float(rebuilt, shape, network.output_names, called=called)
    ranges = within_limits(quantized.graph, quantized.ranges)
    content = write(content, quantized.graph, ranges, quantized.lifted)
    ends = dict(zip(network.output_names, quantized.graph.outputs, strict=True))
    islands = {name: step for name, step in ends.items() if isinstance(quantized.graph[step], Island)}
    if islands and len(ends) > len(islands):
        content = without_dequantize(content)
    for name, step in islands.items():
        content = int8_output(content, name, ranges[step])
    return with_ends(content, input_type, output_type)


def tensor_names(content: bytes, graph: Graph) -> dict[str, str]:
    """Which tensor of a float32 TFLite file is which of the graph it was converted from: names there → keys here.

    Follows both in the order of execution, by kinds of operators; the converter's names are not used.

    Raises:
        ExportError: the file has another structure.
    """
    return _FileReader(content, graph).match()


class _FileReader:
    """Finds operators in a TFLite file by what they read; what `Operator.tflite` is given."""

    def __init__(self, content: bytes, graph: Graph) -> None:
        self.content = content
        self.graph = graph
        schema = require("ai_edge_litert.schema_py_generated", "tflite")
        self.model = unpack(content)
        self.subgraph = self.model.subgraphs[0]
        codes = {
            value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
        }
        self.operators = [
            (codes[self.model.operatorCodes[operator.opcodeIndex].builtinCode], operator)
            for operator in self.subgraph.operators
        ]
        self.keys: dict[int, str] = {}

    def match(self) -> dict[str, str]:
        for _ in self.graph.walk(self._step):
            pass
        return {self.subgraph.tensors[index].name.decode(): key for index, key in self.keys.items()}

    def _step(self, step: Step, sources: list[int]) -> int:
        def do(operator: Operator, *tensors: int, tensor: str | None = OUTPUT) -> int:
            found = operator.tflite(self, step.name, *tensors)
            if isinstance(operator, Island) and found in tensors and self._changes_nothing(step):
                return found
            return found if tensor is None else self.note(found, key_of(step.name, tensor))

        if isinstance(step, Input):
            return self.note(int(self.subgraph.inputs[0]), step.name)
        return int(step.compute(do, *sources))

    def note(self, index: int, key: str) -> int:
        """Remember which of the graph's tensors a tensor of the file is: the first, where it is several."""
        self.keys.setdefault(index, key)
        return index

    def after(
        self,
        code: str,
        *sources: int,
        constant: bool = False,
        kernel: Array | None = None,
        value: str | None = None,
    ) -> int:
        """Output of the one operator of a kind that reads all the given tensors.

        The converter leaves out the mean of a single pixel: of it, the tensor itself.

        Args:
            code: the kind.
            sources: what it reads.
            constant: it reads a constant too.
            kernel, value: which one, where several do: the weights that it holds, in the file's order, or the
                step whose values it gives.
        """
        found = self._reader(code, sources, constant=constant, kernel=kernel, value=value)
        if found is not None:
            return found
        if code == "MEAN" and list(self.subgraph.tensors[sources[0]].shape[1:3]) == [1, 1]:
            return sources[0]
        raise ExportError(
            f"Expected operator {code} behind {self.keys.get(sources[0])!r}. "
            f"The converted file has {sorted({found for found, _ in self.operators})}. "
            "Please report this with the versions of tensorflow and keras."
        )

    def _reader(
        self,
        code: str,
        sources: tuple[int, ...],
        *,
        constant: bool,
        kernel: Array | None,
        value: str | None,
    ) -> int | None:
        """`after`, also where it reads what the converter put behind a tensor and passes it on."""
        fitting = [operator for found, operator in self.operators if found == code]
        fitting = [operator for operator in fitting if set(sources) <= set(_reads(operator))]
        if constant:
            fitting = [operator for operator in fitting if self._has_constant(_reads(operator))]
        if len(fitting) > 1 and kernel is not None:
            apart = [self._distance(_reads(operator)[1], kernel) for operator in fitting]
            nearest = [o for o, distance in zip(fitting, apart, strict=True) if distance == min(apart)]
            fitting = nearest if min(apart) < SAME_KERNEL else fitting
        if len(fitting) > 1 and value is not None:
            goal = self._values[value]
            fitting = [o for o in fitting if self._holds(int(o.outputs[0]), goal)] or fitting
        if fitting:
            return int(fitting[0].outputs[0])
        for place, source in enumerate(sources):
            for found, operator in self.operators:
                if found in PASSING and int(operator.inputs[0]) == source:
                    passed = self.note(int(operator.outputs[0]), self.keys[source])
                    others = (*sources[:place], passed, *sources[place + 1 :])
                    reader = self._reader(code, others, constant=constant, kernel=kernel, value=value)
                    if reader is not None:
                        return reader
        return None

    def passed(self, code: str, source: int, value: str | None = None) -> int:
        """Output of the operator of a kind that reads a tensor; the tensor where the converter left it out.

        Args:
            code: the kind.
            source: what it reads.
            value: where several do, the step whose values it gives.
        """
        fitting = [
            int(operator.outputs[0])
            for found, operator in self.operators
            if found == code and int(operator.inputs[0]) == source
        ]
        if len(fitting) > 1 and value is not None:
            fitting = [index for index in fitting if self._holds(index, self._values[value])] or fitting
        return fitting[0] if fitting else source

    def island(self, name: str, *sources: int) -> int:
        """Output of an island, known by its values; the operators on the way to it are noted as its own."""
        goal = self._values[name]
        reached = set(sources)
        found = None
        for _, operator in self.operators:
            if not reached.intersection(int(index) for index in operator.inputs):
                continue
            reached.update(int(index) for index in operator.outputs)
            found = next((int(i) for i in operator.outputs if self._holds(int(i), goal)), None)
            if found is not None:
                found = self._chosen(found, goal)
                break
        if found is None:  # it changes nothing, or is a part of the operator in front
            found = next((source for source in sources if self._holds(source, goal)), None)
        if found is None:
            raise ExportError(
                f"Expected the output of {self.graph[name].name!r} in the converted file. It is not there. "
                "Please report this with the versions of tensorflow and keras."
            )
        self._note_inside(name, found, set(sources))
        return found

    def _chosen(self, index: int, goal: Array) -> int:
        """The tensor behind choices that all values here took alike: a branch's own values are not the island's end."""
        for code, operator in self.operators:
            if code in CHOICES and index in operator.inputs and self._holds(int(operator.outputs[0]), goal):
                index = int(operator.outputs[0])
        return index

    def _changes_nothing(self, step: Step) -> bool:
        before, after = self._values[step.inputs[0]], self._values[step.name]
        return before.shape == after.shape and bool(np.allclose(before, after))

    def _note_inside(self, name: str, output: int, ends: set[int]) -> None:
        """Note the tensors between an island's inputs and its output."""
        makers = {int(index): operator for _, operator in self.operators for index in operator.outputs}
        left, seen = [output], set(ends)
        while left:
            index = left.pop()
            if index in seen or index in self.keys or index not in makers:
                continue
            seen.add(index)
            left.extend(int(source) for source in makers[index].inputs)
            if index != output:
                self.note(index, key_of(name, f"inside{index}"))

    def _holds(self, index: int, goal: Array) -> bool:
        found = self._tensors[index]
        if found is None or found.shape != goal.shape:
            return False
        return float(np.abs(found - goal).max()) <= SAME_VALUE * max(float(np.abs(goal).max()), 1e-6)

    @cached_property
    def _picture(self) -> Array:
        shape = self.subgraph.tensors[self.subgraph.inputs[0]].shape
        return np.random.default_rng(0).integers(0, 256, [int(side) for side in shape]).astype(np.float32)

    @cached_property
    def _values(self) -> dict[str, Array]:
        """What the steps give for a picture."""
        return run(self.graph, self._picture, keep=lambda name: True)

    @cached_property
    def _tensors(self) -> list[Array | None]:
        """What the file's tensors hold for the same picture; None for those that are not float."""
        module = require("ai_edge_litert.interpreter", "tflite")
        interpreter = module.Interpreter(
            model_content=self.content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], self._picture)
        interpreter.invoke()
        floats = {d["index"] for d in interpreter.get_tensor_details() if d["dtype"] == np.float32}
        return [
            interpreter.get_tensor(index) if index in floats else None
            for index in range(len(self.subgraph.tensors))
        ]

    def _distance(self, index: int, kernel: Array) -> float:
        """The largest difference of a tensor's values from a kernel's, as a share of what may be rounding."""
        stored = self.model.buffers[self.subgraph.tensors[index].buffer].data
        if stored is None or 4 * kernel.size != len(stored):
            return np.inf
        found = np.frombuffer(np.asarray(stored, np.uint8).tobytes(), np.float32)
        return float(np.max(np.abs(found - kernel.reshape(-1)) / (1e-6 + 1e-5 * np.abs(found))))

    def _has_constant(self, tensors: list[int]) -> bool:
        buffers = self.model.buffers
        return any(buffers[self.subgraph.tensors[index].buffer].data is not None for index in tensors)


def _reads(operator: Any) -> list[int]:
    return [int(index) for index in operator.inputs]


def write(content: bytes, graph: Graph, ranges: Mapping[str, Range], lifted: Collection[str] = ()) -> bytes:
    """The integer file, with int8 input and output.

    Args:
        content: the float32 file converted from `graph`, whose weights lie on their 8-bit grids.
        ranges: of its tensors. A tensor without one must be the output of a sigmoid or softmax, whose
            integer scale is fixed, or lie between lifted steps.
        lifted: names of steps that are to stay float.
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
