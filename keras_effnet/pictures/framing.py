"""How a photograph becomes the square that a network sees; it travels with the network.

The published networks were judged on a central crop that leaves a margin out. A network trained on
somebody's own photographs may have seen them whole. Whoever classifies with it later must do the same, so
a model says it in the name of a `keras.layers.Identity`, as it does its class names (see `class_names`),
and every exported file in its metadata.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.network.reader import flat_layers
from keras_effnet.pictures.reading import CROP_MARGIN, load_image

_LAYER = re.compile(r"^crop_margin\.(\d+)$")


@dataclass(frozen=True)
class Framing:
    """How photographs are cropped and resized.

    Attributes:
        interpolation: `"bicubic"` or `"bilinear"`.
        margin: pixels of the shorter side that the central crop leaves out, at the result's scale.
    """

    interpolation: str = "bicubic"
    margin: int = CROP_MARGIN

    def read(self, path: str | os.PathLike[str], size: int) -> npt.NDArray[np.uint8]:
        """One photograph, uint8 `[size, size, 3]`; raises as `load_image` does."""
        return load_image(path, size, interpolation=self.interpolation, margin=self.margin)

    def read_all(self, paths: Iterable[str | os.PathLike[str]], size: int) -> npt.NDArray[np.uint8]:
        """Several photographs, uint8 `[N, size, size, 3]`."""
        return np.stack([self.read(path, size) for path in paths])


def margin_layer_name(margin: int) -> str:
    """The name of the layer that tells a model's margin."""
    return f"crop_margin.{margin}"


def framing_of(model: Any) -> Framing:
    """How photographs for a Keras model are read, also for one that was saved and loaded again.

    Args:
        model: a Keras model; models inside it count too. One that does not say has the reference's
            margin, and the interpolation of the published variant with its layers; bicubic if there is none.
    """
    from keras_effnet.network.variants import identify

    variant = identify(model)
    found = [match for layer in flat_layers(model) if (match := _LAYER.match(layer.name))]
    return Framing(
        variant.interpolation if variant else "bicubic",
        int(found[0][1]) if found else CROP_MARGIN,
    )
