"""What AutoAugment and RandAugment do to a picture, by Pillow; and RandAugment itself.

AutoAugment's levels are the reference's to the letter, some of which weaken as they rise. RandAugment's grow, so that its
strength means something: the 14 operations of the paper (Cubuk et al. 2020, arXiv:1909.13719), at the highest level as far
as the reference goes. Keras' layer of that name is another thing: it does the same to all pictures of a batch, turns
them by up to 108 degrees at a strength of 0.3, in one direction, and leaves one or two bits of posterized ones; and it
computes all of its operations for each picture, which takes forty times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

GRAY = (128, 128, 128)  # where a picture that was moved leaves a gap
ROTATION = 30.0  # degrees at the highest level
SHEAR = 0.3
TRANSLATION = (
    250.0  # pixels, whatever the size of the picture: at 224 px level 9 leaves nothing of it but gray
)
HALF = 128  # SolarizeAdd brightens what is darker
SHIFT = 0.45  # of the side, RandAugment's translation at the highest level
ENHANCEMENT = 0.9  # by which RandAugment changes a color, a contrast, … at the highest level
FEWEST_BITS = 4  # that it leaves

Operation = Callable[[Any, float, int], Any]  # from a picture, the share of the highest level, and a sign


def randaugment(
    pixels: npt.NDArray[np.uint8], random: np.random.Generator, *, count: int = 2, strength: float = 0.9
) -> npt.NDArray[np.uint8]:
    """A picture `[H, W, 3]` after `count` operations, of the same shape and type.

    Each is drawn anew, and so is its level, up to `strength`, a share of the highest: those of timm's usual recipes
    (`rand-m9`), whose levels are not drawn but always that high.
    """
    from PIL import Image

    picture = Image.fromarray(pixels)
    for number in random.integers(len(_RANDOM), size=count):
        share, sign = strength * random.random(), 1 if random.random() < 0.5 else -1
        picture = _RANDOM[number](picture, share, sign)
    return np.asarray(picture)


def _moved(picture: Any, *matrix: float) -> Any:
    """Each pixel from the place that the matrix says, row by row; gray from outside."""
    from PIL import Image

    affine, nearest = Image.Transform.AFFINE, Image.Resampling.NEAREST
    return picture.transform(picture.size, affine, matrix, resample=nearest, fillcolor=GRAY)


def _posterize(picture: Any, share: float) -> Any:
    """The highest bits of each value; TensorFlow shifts by 7 at most, so that of no bits one remains."""
    shift = min(8 - int(4 * share), 7)
    return picture.point(lambda value: value >> shift << shift)


def _color(picture: Any, share: float) -> Any:
    from PIL import ImageEnhance

    return ImageEnhance.Color(picture).enhance(1.8 * share + 0.1)


def _by_pillow(name: str) -> Operation:
    def operation(picture: Any, share: float, sign: int) -> Any:
        del share, sign  # these operations have neither
        from PIL import ImageOps

        return getattr(ImageOps, name)(picture)

    return operation


# AutoAugment's
OPERATIONS: dict[str, Operation] = {
    "autocontrast": _by_pillow("autocontrast"),
    "equalize": _by_pillow("equalize"),
    "invert": _by_pillow("invert"),
    "posterize": lambda picture, share, _: _posterize(picture, share),
    "solarize": lambda picture, share, _: picture.point(
        lambda value: value if value < int(256 * share) else 255 - value
    ),
    "solarize_add": lambda picture, share, _: picture.point(
        lambda value: min(value + int(110 * share), 255) if value < HALF else value
    ),
    "color": lambda picture, share, _: _color(picture, share),
    "rotate": lambda picture, share, sign: picture.rotate(sign * ROTATION * share, fillcolor=GRAY),
    "shear_x": lambda picture, share, sign: _moved(picture, 1, sign * SHEAR * share, 0, 0, 1, 0),
    "shear_y": lambda picture, share, sign: _moved(picture, 1, 0, 0, sign * SHEAR * share, 1, 0),
    "translate_y": lambda picture, share, sign: _moved(picture, 1, 0, 0, 0, 1, sign * TRANSLATION * share),
}


def _enhanced(name: str) -> Operation:
    def operation(picture: Any, share: float, sign: int) -> Any:
        from PIL import ImageEnhance

        return getattr(ImageEnhance, name)(picture).enhance(1 + sign * ENHANCEMENT * share)

    return operation


def _fewer_bits(picture: Any, share: float, sign: int) -> Any:
    del sign
    shift = round((8 - FEWEST_BITS) * share)
    return picture.point(lambda value: value >> shift << shift)


RANDOM_OPERATIONS: dict[str, Operation] = {
    "identity": lambda picture, share, sign: picture,
    **{name: OPERATIONS[name] for name in ("autocontrast", "equalize", "rotate", "shear_x", "shear_y")},
    "posterize": _fewer_bits,
    "solarize": lambda picture, share, sign: OPERATIONS["solarize"](picture, 1 - share, sign),
    "color": _enhanced("Color"),
    "contrast": _enhanced("Contrast"),
    "brightness": _enhanced("Brightness"),
    "sharpness": _enhanced("Sharpness"),
    "translate_x": lambda picture, share, sign: _moved(
        picture, 1, 0, sign * SHIFT * share * picture.width, 0, 1, 0
    ),
    "translate_y": lambda picture, share, sign: _moved(
        picture, 1, 0, 0, 0, 1, sign * SHIFT * share * picture.height
    ),
}
_RANDOM = tuple(RANDOM_OPERATIONS.values())
