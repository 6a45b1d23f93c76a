"""What may be asked of an export beside its target: how, not what."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from keras_effnet.errors import unknown_name

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
OnnxRecipe = Literal["float32", "float16", "int8"]
Layout = Literal["nchw", "nhwc"]
Batching = Literal["whole", "each"]
InputType = Literal["uint8", "int8"]
OutputType = Literal["uint8", "int8", "float32"]

LAYOUTS: tuple[str, ...] = get_args(Layout)
BATCHINGS: tuple[str, ...] = get_args(Batching)
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
        network: of int8 files: an `IntegerNetwork` that was prepared already.

    Raises:
        InvalidInputError: a value that is not one of these.
    """

    layout: str = "nchw"
    batching: str = "whole"
    min_agreement: float | None = None
    input_type: str = "uint8"
    output_type: str = "uint8"
    network: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, known in (
            ("layout", LAYOUTS),
            ("batching", BATCHINGS),
            ("input_type", INPUT_TYPES),
            ("output_type", OUTPUT_TYPES),
        ):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of the options that are not as they are when nobody asks."""
        return tuple(part.name for part in fields(self) if getattr(self, part.name) != part.default)
