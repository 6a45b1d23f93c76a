"""What a network does to a pixel: the published input conventions, `x / 255`, and constants of one's own.

Every model and every exported file takes RGB pixels 0–255. What a convention does to them happens
inside the graph, as one `Rescaling` layer: `x * scale + offset`, per channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.reader import flat_layers

Constants = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # scale, offset

CUSTOM = "custom"
_TOLERANCE = 1e-5  # Rescaling keeps its constants as they were given; a saved model may have rounded them


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What happens to a pixel 0–255 before the stem: `x * scale + offset`.

    Attributes:
        scale: factor per channel, or one for all.
        offset: summand per channel, as many.
        formula: the same for people.
        name: its key in `CONVENTIONS`; `"custom"` for constants of one's own.

    Raises:
        InvalidInputError: constants that are not finite, a factor of 0, or not as many of both.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    formula: str = ""
    name: str = CUSTOM

    def __post_init__(self) -> None:
        usable = len(self.scale) == len(self.offset) > 0 and all(map(math.isfinite, self.scale + self.offset))
        if not usable or 0 in self.scale:
            raise InvalidInputError(
                "Expected a finite scale, not 0, and a finite offset for each channel. Received: "
                f"scale={self.scale}, offset={self.offset}. Pass for example preprocessing=(0.5, 0.25), mean and "
                "standard deviation of pixels 0–1."
            )
        if not self.formula:
            object.__setattr__(self, "formula", f"x * [{_digits(self.scale)}] + [{_digits(self.offset)}]")

    @property
    def argument(self) -> str:
        """What to write behind `preprocessing=` for it: its name, or mean and standard deviation of pixels 0–1."""
        if self.name != CUSTOM:
            return repr(self.name)
        stds = [1 / (255 * scale) for scale in self.scale]
        means = [-offset * std + 0.0 for offset, std in zip(self.offset, stds, strict=True)]
        if not all(0 <= mean <= 1 for mean in means) or min(stds) <= 0:
            return f"Convention(scale={self.scale}, offset={self.offset})"
        return f"({_pasted(means)}, {_pasted(stds)})"

    def for_channels(self, channels: int) -> tuple[list[float], list[float]]:
        """Scale and offset for another number of channels: the mean of those there are for each of them."""
        if channels == len(self.scale):
            return list(self.scale), list(self.offset)
        mean_scale = sum(self.scale) / len(self.scale)
        mean_offset = sum(self.offset) / len(self.offset)
        return [mean_scale] * channels, [mean_offset] * channels

    def same_as(self, other: Convention, channels: int | None = None) -> bool:
        """Whether both do the same to a pixel of so many channels; None for as many as either knows."""
        count = channels or max(len(self.scale), len(other.scale))
        return np.allclose(self.for_channels(count), other.for_channels(count), rtol=_TOLERANCE)


Preprocessing = str | Convention | Sequence[Any]
"""What `preprocessing=` takes: a key of `CONVENTIONS`, a `Convention`, or (mean, std) of pixels 0–1, each
one number or one per channel."""


def _digits(numbers: Iterable[float]) -> str:
    return " ".join(f"{number:.6g}" for number in numbers)


def _pasted(numbers: Sequence[float]) -> str:
    """As Python source, short where all are equal."""
    texts = [f"{number:.8g}" for number in numbers]
    return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _standardize() -> Convention:
    return Convention(
        scale=tuple(1 / (255 * std) for std in IMAGENET_STD),
        offset=tuple(-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)),
        formula="(x / 255 - [0.485 0.456 0.406]) / [0.229 0.224 0.225]",
        name="imagenet",
    )


CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        _standardize(),
        Convention(scale=(2 / 255,) * 3, offset=(-1.0,) * 3, formula="x * 2 / 255 - 1", name="advprop"),
        Convention(scale=(1 / 128,) * 3, offset=(-127 / 128,) * 3, formula="(x - 127) / 128", name="lite"),
        Convention(scale=(1 / 255,) * 3, offset=(0.0,) * 3, formula="x / 255", name="unit"),
    )
}


def get_convention(preprocessing: Preprocessing) -> Convention:
    """The input convention that `preprocessing=` means.

    Args:
        preprocessing: a key of `CONVENTIONS`, a `Convention`, or (mean, std) of pixels 0–1.

    Raises:
        InvalidInputError: no such convention, or constants that cannot be used.
    """
    if isinstance(preprocessing, Convention):
        return preprocessing
    if isinstance(preprocessing, str):
        if preprocessing not in CONVENTIONS:
            raise unknown_name("preprocessing", preprocessing, CONVENTIONS)
        return CONVENTIONS[preprocessing]
    return _of_mean_and_std(preprocessing)


def convention_with(scale: npt.ArrayLike, offset: npt.ArrayLike) -> Convention:
    """The convention with these constants, one number or one per channel: a named one where there is one."""
    scales, offsets = np.broadcast_arrays(np.ravel(scale), np.ravel(offset))
    found = Convention(scale=tuple(map(float, scales)), offset=tuple(map(float, offsets)))
    return next((known for known in CONVENTIONS.values() if known.same_as(found, len(found.scale))), found)


def input_constants(model: Any) -> list[Constants]:
    """Scale and offset of each layer that only scales pixels, in front of the first with a kernel."""
    ahead = takewhile(lambda layer: not hasattr(layer, "kernel"), flat_layers(model))
    return [constants for layer in ahead if (constants := constants_of(layer)) is not None]


def composed(constants: list[Constants]) -> Constants:
    """Several scalings, one after the other, as one; (1, 0) for none."""
    scale, offset = np.ones(1), np.zeros(1)
    for factor, summand in constants:
        scale, offset = scale * factor, offset * factor + summand
    return scale, offset


def constants_of(layer: Any) -> Constants | None:
    """Scale and offset of a layer that only scales, one for all channels or one for each; else None."""
    kind = type(layer).__name__
    if kind == "Rescaling":
        return np.atleast_1d(np.asarray(layer.scale, np.float64)), np.asarray(layer.offset, np.float64)
    if kind == "Normalization" and getattr(layer, "mean", None) is not None:
        return standardizing(layer.mean, layer.variance)
    return None


def standardizing(mean: Any, variance: Any) -> Constants:
    """Scale and offset of a `Normalization` with these statistics."""
    scale = 1 / np.maximum(np.sqrt(np.ravel(np.asarray(variance, np.float64))), 1e-7)  # as Keras guards it
    return scale, -np.ravel(np.asarray(mean, np.float64)) * scale


def rescaling_name(convention: Convention | None, usual: Convention | None) -> str:
    """What the layer is called that applies a convention: files of weights alone keep its name, not its constants.

    What is usual for a network has the plain name that keras.applications gave it.

    Args:
        convention: what the layer does; None for nothing.
        usual: the one of the network's table.
    """
    if convention is None or convention == usual:
        return "rescaling"
    return f"rescaling_{convention.name}"


def _of_mean_and_std(given: Any) -> Convention:
    """From mean and standard deviation of pixels 0–1, as torchvision and timm give them."""
    parts = [_numbers(part) for part in given] if isinstance(given, list | tuple | np.ndarray) else []
    usable = len(parts) == 2 and all(parts) and {len(part) for part in parts} <= {1, max(map(len, parts))}
    advice = f"or (mean, std) of pixels 0–1, for example (0.5, 0.25). Received: {given!r}."
    if not usable or not all(std > 0 for std in parts[1]):
        raise InvalidInputError(
            f"Expected preprocessing to be one of {', '.join(CONVENTIONS)}, {advice} Pass a name or two numbers."
        )
    if not all(0 <= mean <= 1 for mean in parts[0]):
        raise InvalidInputError(
            f"Expected preprocessing with a mean in [0, 1], {advice} Divide by 255 what was measured on pixels 0–255."
        )
    mean, std = np.broadcast_arrays(*parts)
    return convention_with(1 / (255 * std), -mean / std)


def _numbers(part: Any) -> tuple[float, ...]:
    """One number or several as floats; () for anything else."""
    values = part if isinstance(part, list | tuple | np.ndarray) else [part]
    if not all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
        return ()
    return tuple(map(float, values)) if all(map(math.isfinite, values)) else ()


def preprocess_input(
    x: Any, data_format: str | None = None, *, convention: Preprocessing | None = None
) -> Any:
    """Kept for code written for keras.applications, whose models also preprocess in the graph.

    Args:
        x: RGB pixels 0–255, `[..., 3]`.
        data_format: ignored, as in keras.applications.
        convention: what `EfficientNet` takes as `preprocessing`, to apply it here for models built with
            `include_preprocessing=False`; None to return `x` unchanged.

    Returns:
        `x`, or its float32 preprocessed copy.

    Raises:
        InvalidInputError: unknown convention.
    """
    del data_format
    if convention is None:
        return x
    pixels = np.asarray(x, dtype=np.float32)
    scale, offset = get_convention(convention).for_channels(pixels.shape[-1])
    return pixels * np.asarray(scale, np.float32) + np.asarray(offset, np.float32)
