"""A network as the list of its arithmetic steps: what quantization sees of a Keras model.

A step is what one integer kernel group computes: a convolution with batch normalization folded into
it and the activation behind it, a mean, a product, a sum. The steps are few enough that every method
here is a loop over them, and they know nothing of Keras, TFLite or ONNX.

Tensors are `[N, H, W, C]` (`[N, C]` behind a mean without kept dimensions). Kernels: `conv`
`[h, w, in, out]`, `depthwise` `[h, w, channels, 1]`, `dense` `[in, out]`, as Keras stores them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Padding = str | tuple[tuple[int, int], tuple[int, int]]

WEIGHTED = frozenset({"conv", "depthwise", "dense"})


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a network.

    Attributes:
        name: unique; that of the Keras layer that holds the weights or does the arithmetic.
        kind: `input`, `affine` (x · kernel + bias per channel), `conv`, `depthwise`, `dense`, `mean`
            (over height and width), `product`, `sum`.
        inputs: names of the steps it reads.
        kernel: weights, see the module; for `affine` one factor per channel.
        bias: one summand per output channel.
        strides: of a convolution, vertical and horizontal.
        padding: `"same"`, `"valid"`, or zeros to add ((top, bottom), (left, right)).
        activation: `linear`, `swish`, `relu6`, `sigmoid` or `softmax`.
        gain: factors s of an equalized swish, which computes u · sigmoid(s · u); None for 1.
        keepdims: of `mean`.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    kernel: Array | None = None
    bias: Array | None = None
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "same"
    activation: str = "linear"
    gain: Array | None = None
    keepdims: bool = True

    @property
    def channels(self) -> int:
        """Output channels of a step with weights."""
        if self.bias is None:
            raise ValueError(f"Step {self.name!r} of kind {self.kind!r} has no channels of its own.")
        return int(self.bias.shape[0])


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Steps in the order of execution; the last one is the output.

    Attributes:
        steps: by name, in order.
        input_shape: of one picture, (height, width, channels); sides may be None.
    """

    steps: dict[str, Step] = field(default_factory=dict)
    input_shape: tuple[int | None, ...]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps.values())

    def __getitem__(self, name: str) -> Step:
        return self.steps[name]

    @property
    def output(self) -> str:
        return next(reversed(self.steps))

    @property
    def has_swish(self) -> bool:
        """Whether any step is activated by a swish."""
        return any(step.activation == "swish" for step in self)

    def consumers(self, name: str) -> list[Step]:
        """The steps that read `name`, in order."""
        return [step for step in self if name in step.inputs]

    def updated(self, *changed: Step) -> Graph:
        """The same graph with some steps replaced."""
        return replace(self, steps={**self.steps, **{step.name: step for step in changed}})
