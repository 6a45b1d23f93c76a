"""From an integer network to an ONNX file: QuantizeLinear/DequantizeLinear pairs, uint8 × int8.

Weights are int8 with one scale per output channel. What activations and biases are depends on the runtime
(see `runtimes`). Graph, weights and ranges are those of the network that is given, which can be the TFLite
file's. Lifted steps compute in float, with the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError, require

from ..options import OPSET
from .activations import DividedSwish
from .graph import Graph, IntegerNetwork, Quantized, shapes_of
from .onnx_islands import write_island
from .ops import LARGEST, OUTPUT, PRE, Operator, Softmax, Swish, key_of
from .ranges import SIGMOID_RANGE, Array, Range
from .runtimes import ONNX_RUNTIME, OnnxRuntime
from .steps import Input, Island, Step
from .weighted import Weighted


def integer_onnx(
    network: IntegerNetwork,
    *,
    input_name: str,
    output_names: Sequence[str],
    layout: str = "nchw",
    runtime: OnnxRuntime = ONNX_RUNTIME,
    opset: int = OPSET,
) -> Any:
    """The ONNX file of an integer network.

    Args:
        network: from `prepare`.
        input_name, output_names: of the graph's ends. The input is float32 pixels 0–255, the outputs float32.
        layout: `"nchw"` or `"nhwc"`, of the input.
        runtime: what it is for.
        opset: version of ONNX' operators.

    Returns:
        An `onnx.ModelProto` with a free batch size.
    """
    channels = network.quantized.graph.input_shape[2]
    shape = (network.height, network.width, int(channels or 0))
    if runtime.signed and _lopsided(network.quantized):
        raise InvalidInputError(
            f"Expected a network whose zero points are 0. Received: one that was not prepared for {runtime.name}. "
            f"Pass target='onnx', runtime={runtime.name!r} to prepare()."
        )
    quantized = _divided(network.quantized) if network.only_read else network.quantized
    return _Writer(quantized, shape, runtime, opset).model(input_name, output_names, layout, shape)


def _divided(quantized: Quantized) -> Quantized:
    """The same network, whose equalized swishes are plain ones with a product behind."""
    changed = []
    for step in quantized.graph.weighted:
        if isinstance(step.activation, Swish) and (gain := step.activation.gain) is not None:
            kernel = (step.kernel * step.by_channel(gain)).astype(np.float32)
            swish = DividedSwish(divisor=gain)
            changed.append(replace(step, kernel=kernel, bias=step.bias * gain, activation=swish))
    return replace(quantized, graph=quantized.graph.updated(*changed))


def write_quantized(quantized: Quantized, shape: tuple[int, int, int], runtime: OnnxRuntime) -> Any:
    """The file of a network as it is, to measure: input `image`, outputs by their steps' names."""
    return _Writer(quantized, shape, runtime, OPSET).model("image", quantized.graph.outputs, "nchw", shape)


def _lopsided(quantized: Quantized) -> list[str]:
    """The tensors whose zero point is not 0 and is no shift of a bias behind; the picture is never rounded."""
    graph = quantized.graph
    whole = {step.name for step in graph if isinstance(step, Input) or graph.takes_shift(step.name)}
    return [key for key, chosen in quantized.ranges.items() if chosen.zero_point and key not in whole]


class _Writer:
    """Collects nodes and initializers, step by step; what `Operator.onnx` is given."""

    def __init__(
        self, quantized: Quantized, shape: tuple[int, int, int], runtime: OnnxRuntime, opset: int
    ) -> None:
        self.onnx = require("onnx", "onnx")
        self.runtime = runtime
        self.opset = opset
        self.graph: Graph = quantized.graph
        self.picture = shape
        self.ranges = quantized.ranges
        self.lifted = quantized.lifted
        self.between = quantized.between
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.scales: dict[str, float] = {}
        self.shifts: dict[str, float] = {}

    def model(
        self, input_name: str, output_names: Sequence[str], layout: str, shape: tuple[int, int, int]
    ) -> Any:
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        height, width, channels = shape
        dims = ["batch", channels, height, width] if layout == "nchw" else ["batch", height, width, channels]
        image = input_name
        if layout == "nhwc":
            image = self.node("Transpose", [input_name], f"{input_name}/nchw", perm=[0, 3, 1, 2])

        def written(step: Step, sources: list[str]) -> str:
            return image if isinstance(step, Input) else str(step.compute(self._do(step), *sources))

        values = self.graph.results_of(written)
        ends = [
            helper.make_tensor_value_info(name, kind, self._end(self.graph[step], value, name))
            for name, step, value in zip(output_names, self.graph.outputs, values, strict=True)
        ]
        graph = helper.make_graph(
            self.nodes,
            "keras_effnet_int8",
            [helper.make_tensor_value_info(input_name, kind, dims)],
            ends,
            self.initializers,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        # the newest runtime is not everybody's: the IR version of the operator set is enough
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets)
        )

    def _do(self, step: Step) -> Any:
        """Writes an operator, and rounds what it gives to the range of that tensor."""

        def do(operator: Operator, *values: str, tensor: str | None = OUTPUT) -> str:
            value = operator.onnx(self, step.name, *values)
            if tensor is None or isinstance(operator, Softmax):
                return value
            if not operator.fixed:
                return self._held(value, key_of(step.name, tensor))
            if step.name in self.lifted:
                in_float = tensor != OUTPUT or step.name in self.between
            else:
                in_float = key_of(step.name, PRE) not in self.ranges
            return value if in_float else self._held(value, key_of(step.name, tensor), SIGMOID_RANGE)

        return do

    def _end(self, last: Step, value: str, output_name: str) -> list[str | None]:
        """The output as Keras gives it, and its shape."""
        if not self.graph.flat[last.name]:
            if isinstance(last, Island) and len(last.shape) != 3:
                self.node("Identity", [value], output_name)
                return ["batch", *(None for _ in last.shape)]
            self.node("Transpose", [value], output_name, perm=[0, 2, 3, 1])
            return ["batch", None, None, None]
        if isinstance(last, Weighted) and isinstance(last.activation, Softmax):
            only = len(self.graph.outputs) == 1
            flat = self.node("Flatten", [value], "logits" if only else f"{output_name}/logits")
            self.node("Softmax", [flat], output_name, axis=-1)
        else:
            self.node("Flatten", [value], output_name)
        return ["batch", None]

    def island(self, step: Island, *tensors: str) -> str:
        """Write what integers are not known for, in float."""
        return write_island(self, step, tensors, self.opset)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the steps' outputs as Keras has them, for one picture."""
        return shapes_of(self.graph, self.picture)

    def kernel(self, name: str, kernel: Array, bias: Array, *, source: str) -> list[str]:
        """The weights of a convolution `[out, in, h, w]` and its bias, stored in 8 and 32 bits.

        Args:
            name: of the step.
            kernel, bias: float, the kernel on its 8-bit grid.
            source: name of the step it reads, whose scale is a part of the bias'.
        """
        scales = np.maximum(np.abs(kernel).reshape(len(kernel), -1).max(1), 1e-12) / LARGEST
        weights = np.clip(np.rint(kernel / scales.reshape(-1, 1, 1, 1)), -LARGEST, LARGEST).astype(np.int8)
        if source in self.shifts:
            rounded = weights * scales.reshape(-1, 1, 1, 1)
            bias = bias - self.shifts[source] * rounded.sum(axis=(1, 2, 3))
        in_float = name in self.lifted or source not in self.scales  # its input, the picture, may be float
        if in_float and not self.runtime.packed_floats:
            stored = self.constant(f"{name}/kernel", weights * scales.reshape(-1, 1, 1, 1))
        else:
            written = self._unfolded if in_float else self.dequantized
            stored = written(f"{name}/kernel", weights, scales)
        if in_float or not self.runtime.integer_bias:
            return [stored, self.constant(f"{name}/bias", bias)]
        bias_scales = scales * self.scales[source]
        whole = np.clip(np.rint(bias / bias_scales), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        return [stored, self.dequantized(f"{name}/bias", whole, bias_scales)]

    def _held(self, value: str, key: str, fixed: Range | None = None) -> str:
        """A tensor rounded to 8 bits and back; unchanged when it has no range."""
        chosen = fixed or self.ranges.get(key)
        if chosen is None:
            return value
        self.scales[key] = chosen.scale
        scale = self.constant(f"{key}/scale", np.float32(chosen.scale))
        point: Any = np.uint8(chosen.zero_point + 128)
        if self.runtime.signed:
            point = np.int8(0)
            if (
                chosen.zero_point
            ):  # all levels of a tensor that is hardly ever negative; the bias takes it back
                self.shifts[key] = chosen.zero_point * chosen.scale
                shift = self.constant(f"{key}/shift", np.float32(self.shifts[key]))
                value = self.node("Add", [value, shift], f"{key}/shifted")
        zero = self.constant(f"{key}/zero_point", point)
        stored = self.node("QuantizeLinear", [value, scale, zero], f"{key}/{point.dtype}")
        return self.node("DequantizeLinear", [stored, scale, zero], f"{key}/held")

    def dequantized(self, name: str, values: Array, scales: Array) -> str:
        """Integers with a scale for each output channel, the first axis."""
        inputs = [
            self.constant(name, values),
            self.constant(f"{name}/scale", scales.astype(np.float32)),
            self.constant(f"{name}/zero_point", np.zeros(len(scales), values.dtype)),
        ]
        return self.node("DequantizeLinear", inputs, f"{name}/float", axis=0)

    def _unfolded(self, name: str, weights: Array, scales: Array) -> str:
        """A float kernel, stored in a quarter of its size.

        Written as a cast and a product, which runtimes compute once when they load the file. ONNX Runtime
        leaves DequantizeLinear as it is, and would have no fast convolution for its result.
        """
        stored = self.constant(name, weights)
        scale = self.constant(f"{name}/scale", scales.reshape(-1, 1, 1, 1))
        whole = self.node("Cast", [stored], f"{name}/whole", to=self.onnx.TensorProto.FLOAT)
        return self.node("Mul", [whole, scale], f"{name}/float")

    def constant(self, name: str, value: Any) -> str:
        """Store an array; float64 as float32."""
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self.initializers.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Write a node, named like the tensor it makes."""
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output
