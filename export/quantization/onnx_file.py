"""From an integer network to an ONNX file: QuantizeLinear/DequantizeLinear pairs, uint8 × int8.

Activations are uint8 and weights int8 with one scale per output channel: the combination that ONNX
Runtime's CPU kernels are fastest with, and OpenVINO and TensorRT read. Graph, weights and ranges are
those of the network that is given, which can be the TFLite file's. Lifted steps compute in float, with
the same weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_effnet.errors import require
from keras_effnet.export.quantization.graph import Array, Graph, Step
from keras_effnet.export.quantization.ranges import SIGMOID_STEPS, Range
from keras_effnet.export.quantization.reconstruction import LARGEST
from keras_effnet.export.quantization.sequential import Quantized

OPSET = 17
GATE = Range(low=0.0, high=255 / SIGMOID_STEPS)


def to_onnx(
    quantized: Quantized,
    *,
    height: int,
    width: int,
    input_name: str = "image",
    output_name: str = "probabilities",
    layout: str = "nchw",
) -> Any:
    """The ONNX file of an integer network.

    Args:
        quantized: the network.
        height, width: of the input, in pixels.
        input_name, output_name: of the graph's ends. The input is float32 pixels 0–255, the output float32.
        layout: `"nchw"` or `"nhwc"`, of the input.

    Returns:
        An `onnx.ModelProto` with a free batch size.
    """
    writer = _Writer(quantized)
    channels = quantized.graph.input_shape[2]
    return writer.model(input_name, output_name, layout, (height, width, channels))


class _Writer:
    """Collects nodes and initializers, step by step."""

    def __init__(self, quantized: Quantized) -> None:
        self.onnx = require("onnx", "onnx")
        self.graph: Graph = quantized.graph
        self.ranges = quantized.ranges
        self.lifted = quantized.lifted
        self.between = quantized.between
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.values: dict[str, str] = {}
        self.scales: dict[str, float] = {}

    def model(self, input_name: str, output_name: str, layout: str, shape: tuple[int, int, Any]) -> Any:
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        height, width, channels = shape
        dims = ["batch", channels, height, width] if layout == "nchw" else ["batch", height, width, channels]
        value = input_name
        if layout == "nhwc":
            value = self._node("Transpose", [input_name], f"{input_name}/nchw", perm=[0, 3, 1, 2])
        for step in self.graph:
            value = self._step(step, value)
            self.values[step.name] = value
        last = self.graph[self.graph.output]
        out = self._end(last, value, output_name)
        graph = helper.make_graph(
            self.nodes,
            "keras_effnet_int8",
            [helper.make_tensor_value_info(input_name, kind, dims)],
            [helper.make_tensor_value_info(output_name, kind, out)],
            self.initializers,
        )
        # the newest runtime is not everybody's: the IR version of the operator set is enough
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)

    def _end(self, last: Step, value: str, output_name: str) -> list[str | None]:
        """The output as Keras gives it, and its shape."""
        if last.kind != "dense" and (last.kind != "mean" or last.keepdims):
            self._node("Transpose", [value], output_name, perm=[0, 2, 3, 1])
            return ["batch", None, None, None]
        if last.activation == "softmax":
            flat = self._node("Flatten", [value], "logits")
            self._node("Softmax", [flat], output_name, axis=-1)
        else:
            self._node("Flatten", [value], output_name)
        return ["batch", None]

    def _step(self, step: Step, image: str) -> str:
        name = step.name
        if step.kind == "input":
            return image
        sources = [self.values[source] for source in step.inputs]
        if step.kind == "affine":
            return self._affine(step, sources[0])
        if step.kind == "mean":
            return self._held(self._node("GlobalAveragePool", sources, f"{name}/mean"), name)
        if step.kind in ("product", "sum"):
            operator = "Mul" if step.kind == "product" else "Add"
            return self._held(self._node(operator, sources, f"{name}/float"), name)
        return self._activate(step, self._convolve(step, sources[0]))

    def _affine(self, step: Step, x: str) -> str:
        """Preprocessing in float: the pixels arrive as float anyway, and are rounded once."""
        assert step.bias is not None
        if step.kernel is not None:
            factor = self._constant(f"{step.name}/factor", step.kernel.reshape(1, -1, 1, 1))
            x = self._node("Mul", [x, factor], f"{step.name}/scaled")
        summand = self._constant(f"{step.name}/summand", step.bias.reshape(1, -1, 1, 1))
        return self._held(self._node("Add", [x, summand], f"{step.name}/float"), step.name)

    def _convolve(self, step: Step, x: str) -> str:
        assert step.kernel is not None and step.bias is not None
        kernel = _oihw(step)
        scales = np.maximum(np.abs(kernel).reshape(len(kernel), -1).max(1), 1e-12) / LARGEST
        weights = np.clip(np.rint(kernel / scales.reshape(-1, 1, 1, 1)), -LARGEST, LARGEST).astype(np.int8)
        in_float = step.name in self.lifted
        written = self._unfolded if in_float else self._dequantized
        inputs = [x, written(f"{step.name}/kernel", weights, scales)]
        if in_float or step.inputs[0] not in self.scales:  # its input, the picture, may be float
            inputs.append(self._constant(f"{step.name}/bias", step.bias))
        else:
            bias_scales = scales * self.scales[step.inputs[0]]
            bias = np.clip(np.rint(step.bias / bias_scales), -(2**31) + 1, 2**31 - 1).astype(np.int32)
            inputs.append(self._dequantized(f"{step.name}/bias", bias, bias_scales))
        return self._node("Conv", inputs, f"{step.name}/convolution", **self._attributes(step))

    def _attributes(self, step: Step) -> dict[str, Any]:
        assert step.kernel is not None
        if step.kind == "dense":
            return {"kernel_shape": [1, 1]}
        attributes: dict[str, Any] = {
            "kernel_shape": list(step.kernel.shape[:2]),
            "strides": list(step.strides),
            "group": step.channels if step.kind == "depthwise" else 1,
        }
        if isinstance(step.padding, str):
            attributes["auto_pad"] = "SAME_UPPER" if step.padding == "same" else "VALID"
        else:
            (top, bottom), (left, right) = step.padding
            attributes["pads"] = [top, left, bottom, right]
        return attributes

    def _activate(self, step: Step, u: str) -> str:
        name = step.name
        if step.activation == "relu6":
            low, high = (self._constant(f"{name}/{value:g}", np.float32(value)) for value in (0.0, 6.0))
            return self._held(self._node("Clip", [u, low, high], f"{name}/relu6"), name)
        if step.activation == "linear":
            return self._held(u, name)
        u = self._held(u, f"{name}/pre")
        if step.activation == "softmax":
            return u
        in_float = f"{name}/pre" not in self.ranges
        gated = u
        if step.gain is not None:
            gated = self._gated(step, u)
            gated = gated if in_float else self._held(gated, f"{name}/gate")
        gate = self._node("Sigmoid", [gated], f"{name}/sigmoid_float")
        if step.activation == "sigmoid":
            return gate if name in self.between else self._held(gate, name, GATE)
        gate = gate if in_float else self._held(gate, f"{name}/sigmoid", GATE)
        return self._held(self._node("Mul", [u, gate], f"{name}/swish"), name)

    def _gated(self, step: Step, u: str) -> str:
        """The scaled input of an equalized swish's sigmoid.

        A depthwise convolution of one pixel: ONNX Runtime's QLinearMul broadcasts channel by channel.
        """
        assert step.gain is not None
        if step.name in self.lifted:
            factor = self._constant(f"{step.name}/gain", step.gain.reshape(1, -1, 1, 1))
            return self._node("Mul", [u, factor], f"{step.name}/scaled")
        channels = len(step.gain)
        ones = np.full((channels, 1, 1, 1), LARGEST, np.int8)
        kernel = self._dequantized(f"{step.name}/gain", ones, step.gain / LARGEST)
        return self._node("Conv", [u, kernel], f"{step.name}/scaled", kernel_shape=[1, 1], group=channels)

    def _held(self, value: str, key: str, fixed: Range | None = None) -> str:
        """A tensor rounded to uint8 and back; unchanged when it has no range."""
        chosen = fixed or self.ranges.get(key)
        if chosen is None:
            return value
        self.scales[key] = chosen.scale
        scale = self._constant(f"{key}/scale", np.float32(chosen.scale))
        zero = self._constant(f"{key}/zero_point", np.uint8(chosen.zero_point + 128))
        stored = self._node("QuantizeLinear", [value, scale, zero], f"{key}/uint8")
        return self._node("DequantizeLinear", [stored, scale, zero], f"{key}/held")

    def _dequantized(self, name: str, values: Array, scales: Array) -> str:
        """Integers with a scale for each output channel, the first axis."""
        inputs = [
            self._constant(name, values),
            self._constant(f"{name}/scale", scales.astype(np.float32)),
            self._constant(f"{name}/zero_point", np.zeros(len(scales), values.dtype)),
        ]
        return self._node("DequantizeLinear", inputs, f"{name}/float", axis=0)

    def _unfolded(self, name: str, weights: Array, scales: Array) -> str:
        """A float kernel, stored in a quarter of its size.

        Written as a cast and a product, which runtimes compute once when they load the file. ONNX Runtime
        leaves DequantizeLinear as it is, and would have no fast convolution for its result.
        """
        stored = self._constant(name, weights)
        scale = self._constant(f"{name}/scale", scales.reshape(-1, 1, 1, 1))
        whole = self._node("Cast", [stored], f"{name}/whole", to=self.onnx.TensorProto.FLOAT)
        return self._node("Mul", [whole, scale], f"{name}/float")

    def _constant(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self.initializers.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output


def _oihw(step: Step) -> Array:
    """A kernel in ONNX' order: output, input, height, width; a dense layer as a convolution of 1 × 1."""
    assert step.kernel is not None
    if step.kind == "dense":
        return step.kernel.T[:, :, np.newaxis, np.newaxis].copy()
    if step.kind == "depthwise":
        return np.transpose(step.kernel, (2, 3, 0, 1)).copy()
    return np.transpose(step.kernel, (3, 2, 0, 1)).copy()
