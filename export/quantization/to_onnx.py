"""From an integer network to an ONNX file: QuantizeLinear/DequantizeLinear pairs, uint8 × int8.

Activations are uint8 and weights int8 with one scale per output channel: the combination that ONNX
Runtime's CPU kernels are fastest with, and OpenVINO and TensorRT read. Graph, weights and ranges are
those of the network that is given, which can be the TFLite file's. Lifted steps compute in float, with
the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_effnet.errors import require

from .graph import Graph, IntegerNetwork, Quantized
from .ops import LARGEST, OUTPUT, Operator, Softmax, key_of
from .ranges import SIGMOID_STEPS, Array, Range
from .steps import Input, Step
from .weighted import Weighted

OPSET = 17
GATE = Range(low=0.0, high=255 / SIGMOID_STEPS)


def integer_onnx(
    network: IntegerNetwork, *, input_name: str, output_names: Sequence[str], layout: str = "nchw"
) -> Any:
    """The ONNX file of an integer network.

    Args:
        network: from `prepare`.
        input_name, output_names: of the graph's ends. The input is float32 pixels 0–255, the outputs float32.
        layout: `"nchw"` or `"nhwc"`, of the input.

    Returns:
        An `onnx.ModelProto` with a free batch size.
    """
    channels = network.quantized.graph.input_shape[2]
    shape = (network.height, network.width, channels)
    return _Writer(network.quantized).model(input_name, output_names, layout, shape)


class _Writer:
    """Collects nodes and initializers, step by step; what `Operator.onnx` is given."""

    def __init__(self, quantized: Quantized) -> None:
        self.onnx = require("onnx", "onnx")
        self.graph: Graph = quantized.graph
        self.ranges = quantized.ranges
        self.lifted = quantized.lifted
        self.between = quantized.between
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.scales: dict[str, float] = {}

    def model(
        self, input_name: str, output_names: Sequence[str], layout: str, shape: tuple[int, int, Any]
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
        # the newest runtime is not everybody's: the IR version of the operator set is enough
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)

    def _do(self, step: Step) -> Any:
        """Writes an operator, and rounds what it gives to the range of that tensor."""

        def do(operator: Operator, *values: str, tensor: str | None = OUTPUT) -> str:
            value = operator.onnx(self, step.name, *values)
            if tensor is None or isinstance(operator, Softmax):
                return value
            if not operator.fixed:
                return self._held(value, key_of(step.name, tensor))
            in_float = step.name in (self.between if tensor == OUTPUT else self.lifted)
            return value if in_float else self._held(value, key_of(step.name, tensor), GATE)

        return do

    def _end(self, last: Step, value: str, output_name: str) -> list[str | None]:
        """The output as Keras gives it, and its shape."""
        if not self.graph.flat[last.name]:
            self.node("Transpose", [value], output_name, perm=[0, 2, 3, 1])
            return ["batch", None, None, None]
        if isinstance(last, Weighted) and isinstance(last.activation, Softmax):
            only = len(self.graph.outputs) == 1
            flat = self.node("Flatten", [value], "logits" if only else f"{output_name}/logits")
            self.node("Softmax", [flat], output_name, axis=-1)
        else:
            self.node("Flatten", [value], output_name)
        return ["batch", None]

    def kernel(self, name: str, kernel: Array, bias: Array, *, source: str) -> list[str]:
        """The weights of a convolution `[out, in, h, w]` and its bias, stored in 8 and 32 bits.

        Args:
            name: of the step.
            kernel, bias: float, the kernel on its 8-bit grid.
            source: name of the step it reads, whose scale is a part of the bias'.
        """
        scales = np.maximum(np.abs(kernel).reshape(len(kernel), -1).max(1), 1e-12) / LARGEST
        weights = np.clip(np.rint(kernel / scales.reshape(-1, 1, 1, 1)), -LARGEST, LARGEST).astype(np.int8)
        in_float = name in self.lifted
        written = self._unfolded if in_float else self.dequantized
        stored = written(f"{name}/kernel", weights, scales)
        if in_float or source not in self.scales:  # its input, the picture, may be float
            return [stored, self.constant(f"{name}/bias", bias)]
        bias_scales = scales * self.scales[source]
        whole = np.clip(np.rint(bias / bias_scales), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        return [stored, self.dequantized(f"{name}/bias", whole, bias_scales)]

    def _held(self, value: str, key: str, fixed: Range | None = None) -> str:
        """A tensor rounded to uint8 and back; unchanged when it has no range."""
        chosen = fixed or self.ranges.get(key)
        if chosen is None:
            return value
        self.scales[key] = chosen.scale
        scale = self.constant(f"{key}/scale", np.float32(chosen.scale))
        zero = self.constant(f"{key}/zero_point", np.uint8(chosen.zero_point + 128))
        stored = self.node("QuantizeLinear", [value, scale, zero], f"{key}/uint8")
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
