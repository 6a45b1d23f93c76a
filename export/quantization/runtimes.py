"""What the runtimes that open ONNX files compute fastest, and what they refuse: one row for each.

A new runtime is a row here; a preference that no row has yet is a field.
"""

from __future__ import annotations

from dataclasses import dataclass

from keras_effnet.errors import unknown_name

from .layerwise import Method


@dataclass(frozen=True, kw_only=True)
class OnnxRuntime:
    """What an integer file is like for one runtime.

    Attributes:
        name: what people call it.
        signed: whether activations are stored as int8 with the zero point 0, otherwise as uint8 with any. What only
            kernels without padding read is shifted before it is rounded, and their biases take that back.
        only_read: see `layerwise.Method`.
        integer_bias: whether biases are stored as int32, otherwise as float32.
        packed_floats: whether the kernels of steps that compute in float are stored in 8 bits too.
        first_integer: where the integers of a network with swishes begin, see `layerwise.Method`; None where
            that depends on the machine.
        equalized: share of the values that go through a swish that are equalized, 0–1: all where the product
            behind a float swish is fused with it, see `ops.DividedSwish`.
    """

    name: str
    signed: bool = False
    only_read: bool = False
    integer_bias: bool = True
    packed_floats: bool = True
    first_integer: str | None = ""
    equalized: float = 0.0

    def method(self, first_integer: str) -> Method:
        """How a network is quantized for it."""
        return Method(
            first_integer=first_integer, symmetric=self.signed, only_read=self.only_read, float_output=True
        )


ONNX_RUNTIME = OnnxRuntime(name="onnxruntime", first_integer=None)
OPENVINO = OnnxRuntime(name="openvino", only_read=True, integer_bias=False, equalized=1.0)
TENSORRT = OnnxRuntime(
    name="tensorrt", signed=True, only_read=True, integer_bias=False, packed_floats=False, equalized=1.0
)
RUNTIMES: dict[str, OnnxRuntime] = {row.name: row for row in (ONNX_RUNTIME, OPENVINO, TENSORRT)}


def get_runtime(name: str) -> OnnxRuntime:
    """The row of a runtime.

    Raises:
        InvalidInputError: there is none of this name.
    """
    if name not in RUNTIMES:
        raise unknown_name("runtime", name, RUNTIMES)
    return RUNTIMES[name]
