"""How a photograph becomes the square that a network sees; it travels with the network.

The published networks were judged on a central crop that leaves a margin out. A network trained on
somebody's own photographs may have seen them whole. Whoever classifies with it later must do the same, so
a model says it in the name of a `keras.layers.Identity`, as it does its class names (see `labels`),
and every exported file in its metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, warn
from keras_effnet.network.reader import flat_layers
from keras_effnet.pictures.decoding import MAX_PIXELS, Decoded, Source, decode_picture, describe

CROP_MARGIN = 32  # the reference's evaluation crop keeps size / (size + 32) of the shorter side
FILTERS = ("bicubic", "bilinear")
# A JPEG decodes to a half, a quarter or an eighth of its size in a fraction of the time. Down to twice what a network
# sees, the resize that follows still smooths what it samples: of 12 megapixels no best class changed.
SPARE = 2

_LAYER = re.compile(rf"^crop_margin\.(\d+)(?:\.({'|'.join(FILTERS)}))?$")


def crop_fraction(size: int, margin: int = CROP_MARGIN) -> float:
    """The share of the shorter side that the evaluation crop keeps: `size / (size + 32)`."""
    return size / (size + margin)


@dataclass(frozen=True)
class Framing:
    """How photographs are cropped and resized.

    Attributes:
        interpolation: `"bicubic"` or `"bilinear"`.
        margin: pixels of the shorter side that the central crop leaves out, at the result's scale.
        channels: 3 for RGB, 1 for gray.
    """

    interpolation: str = "bicubic"
    margin: int = CROP_MARGIN
    channels: int = 3

    def read(
        self, source: Source, size: int, *, max_pixels: int = MAX_PIXELS, silent: bool = False
    ) -> npt.NDArray[np.uint8]:
        """One photograph, uint8 `[size, size, channels]`; raises and warns as `load_image` does.

        Args:
            source, size, max_pixels: as of `load_image`.
            silent: no warnings, where the remarks of `decode_picture` were shown already.
        """
        decoded = self.decode(source, size, max_pixels=max_pixels)
        if not silent:
            for remark in decoded.remarks:
                warn(f"Expected {describe(source)} without a fault. It {remark}.")
        return self.square(decoded.picture, size)

    def decode(self, source: Source, size: int, *, max_pixels: int = MAX_PIXELS) -> Decoded:
        """What `square` of this size needs of a photograph: a large JPEG comes smaller than it is stored."""
        needed = SPARE * (size + self.margin)  # of the shorter side, so that the crop has SPARE × size
        return decode_picture(source, channels=self.channels, max_pixels=max_pixels, at_least=needed)

    def read_all(self, sources: Iterable[Source], size: int) -> npt.NDArray[np.uint8]:
        """Several photographs, uint8 `[N, size, size, channels]`."""
        return np.stack([self.read(source, size) for source in sources])

    def square(self, picture: Any, size: int) -> npt.NDArray[np.uint8]:
        """The central square of a picture that `decode_picture` gave, uint8 `[size, size, channels]`."""
        from PIL import Image

        side = crop_fraction(size, self.margin) * min(picture.size)
        left, top = (picture.width - side) / 2, (picture.height - side) / 2
        # Pillow's `box` samples only inside the crop, at sub-pixel precision.
        resized = picture.resize(
            (size, size),
            resample=Image.Resampling[self.interpolation.upper()],
            box=(left, top, left + side, top + side),
        )
        return np.asarray(resized, dtype=np.uint8).reshape(size, size, self.channels)


def margin_layer_name(margin: int, interpolation: str | None = None) -> str:
    """The name of the layer that tells a model's margin, and an interpolation that is not its variant's usual one."""
    return f"crop_margin.{margin}" + (f".{interpolation}" if interpolation else "")


def framing_of(model: Any) -> Framing:
    """How photographs for a Keras model are read, also for one that was saved and loaded again, or with models inside.

    One that does not say has the reference's margin, and the interpolation of the published variant with its
    layers; bicubic if there is none. A model with one channel gets gray pictures.
    """
    from keras_effnet.network.variants import identify

    found = [match for layer in flat_layers(model) if (match := _LAYER.match(layer.name))]
    margin, interpolation = (int(found[0][1]), found[0][2]) if found else (CROP_MARGIN, None)
    variant = identify(model)
    usual = variant.interpolation if variant else FILTERS[0]
    return Framing(interpolation or usual, margin, _input_shape(model)[3] or 3)


def input_side(model: Any) -> int:
    """The side of the pictures that a Keras model takes; that of its published variant where it takes any.

    Raises:
        InvalidInputError: its input is not square, or nobody knows its size.
    """
    from keras_effnet.network.variants import identify

    _, height, width, _ = _input_shape(model)
    variant = identify(model)
    if height is None and width is None and variant is not None:
        height = width = variant.resolution
    if height is None or height != width:
        raise InvalidInputError(
            f"Expected a model with one square input of known size. Received: {model.name!r} with "
            f"{_input_shape(model)[1:]}. Pass the side of its pictures in pixels instead of the model."
        )
    return int(height)


def _input_shape(model: Any) -> tuple[int | None, int | None, int | None, int | None]:
    """`[N, H, W, C]` of a model with one input of pictures; None for what it leaves open."""
    shape = getattr(model, "input_shape", None)
    return shape if isinstance(shape, tuple) and len(shape) == 4 else (None, None, None, None)
