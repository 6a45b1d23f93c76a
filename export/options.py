"""What may be asked of an export beside its target: how, not what."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.builder import is_whole

TFLiteRecipe = Literal[
    "float32",
    "float16",
    "weight_int8",
    "int8",
    "int16x8",
    "int8_qat",
    "int8_pruned",
    "int8_clustered",
]
OnnxRecipe = Literal["float32", "float16", "float16_gpu", "int8"]
OnnxRuntimeName = Literal["onnxruntime", "openvino", "tensorrt"]
Layout = Literal["nchw", "nhwc"]
Batching = Literal["whole", "each"]
OnnxInput = Literal["pixels", "jpeg"]
InputType = Literal["uint8", "int8"]
OutputType = Literal["uint8", "int8", "float32"]

LAYOUTS: tuple[str, ...] = get_args(Layout)
BATCHINGS: tuple[str, ...] = get_args(Batching)
ONNX_INPUTS: tuple[str, ...] = get_args(OnnxInput)
ONNX_RUNTIMES: tuple[str, ...] = get_args(OnnxRuntimeName)
OLDEST_OPSET, NEWEST_OPSET = 13, 24  # older ones have no scale per channel; newer ones, few runtimes
OPSET = 17
JPEG_OPSET = 18  # the first whose resizing operator smooths
INPUT_TYPES: tuple[str, ...] = get_args(InputType)
OUTPUT_TYPES: tuple[str, ...] = get_args(OutputType)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of all targets; each target follows some of them, see `Target.options`.

    Attributes:
        layout: of an ONNX input: `nchw` for `[N, C, H, W]`, `nhwc` for `[N, H, W, C]`.
        batching: of an ONNX file: `whole` computes a batch at once, `each` one picture after the other.
        min_agreement: of int8 files: top-1 agreement, 0–1, that held-out photographs must show.
        input_type: of integer TFLite files: `uint8` or `int8`.
        output_type: of integer TFLite files: `uint8`, `int8` or `float32`.
        runtime: of integer ONNX files: what opens them, `onnxruntime`, `openvino` or `tensorrt`.
        first_integer: of integer ONNX files: what the name of the first step begins with that computes in
            integers; None for the runtime's own choice.
        opset: of ONNX files: version of the operators, 13 to 24; None for `OPSET`, or what `input` needs.
        input: of an ONNX file: `pixels`, or the bytes of one `jpeg` (or PNG).
        input_name, output_name: of ONNX files; None for the usual ones.
        network: of int8 files: an `IntegerNetwork` that was prepared already.

    Raises:
        InvalidInputError: a value that is not one of these.
    """

    layout: str = "nchw"
    batching: str = "whole"
    min_agreement: float | None = None
    input_type: str = "uint8"
    output_type: str = "uint8"
    runtime: str = "onnxruntime"
    first_integer: str | None = None
    opset: int | None = None
    input: str = "pixels"
    input_name: str | None = None
    output_name: str | None = None
    network: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, known in (
            ("layout", LAYOUTS),
            ("batching", BATCHINGS),
            ("input_type", INPUT_TYPES),
            ("output_type", OUTPUT_TYPES),
            ("runtime", ONNX_RUNTIMES),
            ("input", ONNX_INPUTS),
        ):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        if not is_whole(self.operators) or not OLDEST_OPSET <= self.operators <= NEWEST_OPSET:
            raise InvalidInputError(
                f"Expected opset as a whole number from {OLDEST_OPSET} to {NEWEST_OPSET}. Received: {self.opset!r}. "
                f"Leave it out for {OPSET}."
            )
        names = [name for name in (self.input_name, self.output_name) if name is not None]
        if not all(isinstance(name, str) and name.strip() for name in names) or len(set(names)) < len(names):
            raise InvalidInputError(
                "Expected input_name and output_name as two different names. Received: "
                f"{self.input_name!r} and {self.output_name!r}. Leave them out for the usual ones."
            )

        if self.input == "jpeg":
            self._check_jpeg()

    def _check_jpeg(self) -> None:
        """Make sure that nothing is asked which a file that takes a JPEG cannot follow."""
        for name, received, words in (
            ("opset", self.operators < JPEG_OPSET, f"opset={self.operators}, whose operators cannot resize"),
            ("runtime", self.runtime != "onnxruntime", f"runtime={self.runtime!r}, which cannot decode"),
            ("batching", self.batching != "whole", f"batching={self.batching!r}, of one picture at a time"),
            ("layout", self.layout != "nchw", f"layout={self.layout!r} of pixels, which are inside"),
        ):
            if received:
                raise InvalidInputError(
                    f"Expected input='jpeg' with {name} left out. Received: {words}. Leave one of them out."
                )

    @property
    def operators(self) -> int:
        """The version of ONNX' operators."""
        return self.opset if self.opset is not None else JPEG_OPSET if self.input == "jpeg" else OPSET

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of the options that are not as they are when nobody asks."""
        return tuple(part.name for part in fields(self) if getattr(self, part.name) != part.default)
