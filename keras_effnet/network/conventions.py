"""What a network does to a pixel: the published input conventions.

Every model and every exported file takes RGB pixels 0–255. What a convention does to them happens
inside the graph, as one `Rescaling` layer: `x * scale + offset`, per channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet.errors import unknown_name


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What happens to a pixel 0–255 before the stem: `x * scale + offset`.

    Attributes:
        scale: factor per RGB channel.
        offset: summand per RGB channel.
        formula: the same for people.
    """

    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    formula: str

    def for_channels(self, channels: int) -> tuple[list[float], list[float]]:
        """Scale and offset for another number of channels: the RGB mean for each of them."""
        if channels == len(self.scale):
            return list(self.scale), list(self.offset)
        mean_scale = sum(self.scale) / len(self.scale)
        mean_offset = sum(self.offset) / len(self.offset)
        return [mean_scale] * channels, [mean_offset] * channels


_MEAN = (0.485, 0.456, 0.406)


_STD = (0.229, 0.224, 0.225)


def _standardize() -> Convention:
    red, green, blue = _MEAN
    red_std, green_std, blue_std = _STD
    return Convention(
        scale=(1 / (255 * red_std), 1 / (255 * green_std), 1 / (255 * blue_std)),
        offset=(-red / red_std, -green / green_std, -blue / blue_std),
        formula="(x / 255 - [0.485 0.456 0.406]) / [0.229 0.224 0.225]",
    )


CONVENTIONS: dict[str, Convention] = {
    "imagenet": _standardize(),
    "advprop": Convention(scale=(2 / 255,) * 3, offset=(-1.0,) * 3, formula="x * 2 / 255 - 1"),
    "lite": Convention(scale=(1 / 128,) * 3, offset=(-127 / 128,) * 3, formula="(x - 127) / 128"),
}


def get_convention(name: str) -> Convention:
    """The input convention called `name`.

    Raises:
        InvalidInputError: no such convention.
    """
    if name not in CONVENTIONS:
        raise unknown_name("preprocessing", name, CONVENTIONS)
    return CONVENTIONS[name]


def preprocess_input(x: Any, data_format: str | None = None, *, convention: str | None = None) -> Any:
    """Kept for code written for keras.applications, whose models also preprocess in the graph.

    Args:
        x: RGB pixels 0–255, `[..., 3]`.
        data_format: ignored, as in keras.applications.
        convention: `"imagenet"`, `"advprop"` or `"lite"` to apply that convention here, for models
            built with `include_preprocessing=False`; None to return `x` unchanged.

    Returns:
        `x`, or its float32 preprocessed copy.

    Raises:
        InvalidInputError: unknown convention.
    """
    del data_format
    if convention is None:
        return x
    chosen = get_convention(convention)
    pixels = np.asarray(x, dtype=np.float32)
    return pixels * np.asarray(chosen.scale, np.float32) + np.asarray(chosen.offset, np.float32)
