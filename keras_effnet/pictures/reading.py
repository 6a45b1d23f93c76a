"""From a file to the pixels that a network takes, and checks of such arrays."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, unknown_name, warn
from keras_effnet.pictures.decoding import MAX_PIXELS, Source
from keras_effnet.pictures.folders import sample_paths
from keras_effnet.pictures.framing import FILTERS, Framing, framing_of, input_side


def check_pixels(
    images: Any, *, size: tuple[int | None, int | None] | None = None, channels: int = 3, what: str = "images"
) -> npt.NDArray[Any]:
    """Make sure that an array holds pictures a model can take.

    Args:
        images: uint8 or float, 0–255, `[N, H, W, channels]`.
        size: expected (H, W); None in either place leaves it free.
        channels: expected number of channels.
        what: how the message calls the array.

    Returns:
        The array as uint8 or float32.

    Raises:
        InvalidInputError: wrong rank, size, channels or dtype; no picture; NaN or infinity.
    """
    array = np.asarray(images)
    height, width = size or (None, None)
    expected = f"[N, {height or 'H'}, {width or 'W'}, {channels}]"
    advice = "Read photographs with keras_effnet.load_image(path, size) and stack them."
    if array.dtype == object or array.ndim != 4:
        raise InvalidInputError(
            f"Expected {what} of shape {expected}. Received shape {list(array.shape)} "
            f"of {array.dtype}. {advice}"
        )
    if array.shape[0] == 0:
        raise InvalidInputError(f"Expected {what} of shape {expected}. Received no picture at all. {advice}")
    _, got_height, got_width, got_channels = array.shape
    if got_channels != channels or (height or got_height, width or got_width) != (got_height, got_width):
        raise InvalidInputError(
            f"Expected {what} of shape {expected}. Received {list(array.shape)}. {advice}"
        )
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise InvalidInputError(
            f"Expected {what} as uint8 or float pixels 0-255. Received {array.dtype}. {advice}"
        )
    pixels = array.astype(np.float32, copy=False)
    if not np.isfinite(pixels).all():
        raise InvalidInputError(
            f"Expected {what} with finite values 0-255. Received NaN or infinity. Clean the pictures first."
        )
    warn_if_unit_range(pixels, what=what)
    return pixels


def check_batches(
    images: Any, *, size: tuple[int | None, int | None], channels: int, what: str = "images"
) -> npt.NDArray[Any]:
    """As `check_pixels`, also of an iterable of batches: all of them as one array.

    Raises:
        InvalidInputError: as there, or neither an array nor an iterable.
    """
    if hasattr(images, "shape"):
        return check_pixels(images, size=size, channels=channels, what=what)
    if isinstance(images, str) or not isinstance(images, Iterable):
        raise InvalidInputError(
            f"Expected {what} as an array [N, {size[0] or 'H'}, {size[1] or 'W'}, {channels}] or an iterable of such "
            f"batches. Received: {images!r}. Read them with keras_effnet.load_image and stack them."
        )
    batches = [np.asarray(batch) for batch in images]
    if all(batch.ndim == 3 for batch in batches):  # a list of pictures
        batches = [np.asarray(batches) if batches else np.zeros((0, *(side or 1 for side in size), channels))]
    return np.concatenate([check_pixels(batch, size=size, channels=channels, what=what) for batch in batches])


def at_most(images: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """At most `count` pictures, from all over the set."""
    return images if count >= len(images) else images[np.linspace(0, len(images) - 1, count).astype(int)]


def warn_if_unit_range(pixels: npt.NDArray[Any], *, what: str = "images") -> None:
    """Warn when float pixels look as if somebody had already divided them by 255."""
    if (
        pixels.dtype != np.uint8
        and pixels.size
        and float(pixels.max()) <= 1.0
        and float(pixels.min()) >= -1.0
    ):
        warn(
            f"Expected {what} with pixels 0-255; all values lie between "
            f"{float(pixels.min()):.3g} and {float(pixels.max()):.3g}, which looks like pictures that "
            "were divided by 255 already. The preprocessing is inside the graph: pass raw pixels.",
        )


def load_image(
    path: Source,
    size: Any,
    *,
    interpolation: str | None = None,
    margin: int | None = None,
    channels: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> npt.NDArray[np.uint8]:
    """Read one photograph as a network was judged on it, with the reference's evaluation crop.

    The picture is turned upright (EXIF), converted to 8-bit RGB (gray, palette, CMYK and 16-bit pictures
    included, transparent pixels over white), cropped to the central square of `size / (size + margin)` of its
    shorter side, and resized. A large JPEG is decoded at a half, a quarter or an eighth of its size, never below
    twice the result's.

        load_image("cat.jpg", model)    # size, channels, interpolation and crop from the model
        load_image("cat.jpg", 224)      # bicubic, a margin of 32: B0 and most others

    Args:
        path: an image file that Pillow can decode; or its bytes, or a binary file object.
        size: side of the result in pixels, or a Keras model or what `export.load` gives, which then also says the
            next three.
        interpolation: `"bicubic"` (default) or `"bilinear"`.
        margin: pixels of the shorter side that the crop leaves out, at the result's scale (default: 32); 0 for
            the whole square. Of a picture with `size + margin` and margin 0, the centre is the usual crop.
        channels: 3 for RGB (default) or 1 for gray.
        max_pixels: width × height that is accepted, by the file's header, before anything is decoded.

    Returns:
        uint8 `[size, size, channels]`, 0–255.

    Raises:
        InvalidInputError: no such file, not a decodable picture, too many pixels; a size that is none, a model
            whose input is not square or of no known size; an unknown interpolation.

    Warns:
        EffNetWarning: the file lacks its last bytes, or its values do not say how bright they are.

    Source: `preprocessing.py` of the reference code (`_decode_and_center_crop`).
    """
    side, framing = _wanted(size)
    framing = Framing(
        framing.interpolation if interpolation is None else interpolation,
        framing.margin if margin is None else margin,
        framing.channels if channels is None else channels,
    )
    if framing.interpolation not in FILTERS:
        raise unknown_name("interpolation", framing.interpolation, FILTERS)
    return framing.read(path, side, max_pixels=max_pixels)


def _wanted(size: Any) -> tuple[int, Framing]:
    """The side of the result, and how a model's photographs are read."""
    if isinstance(size, Integral) and int(size) > 0:
        return int(size), Framing()
    framing = getattr(size, "framing", None)
    if isinstance(framing, Framing):  # of an opened file, whose room this one may not know
        side, *others = set(size.size)
        if side is None or others:
            raise InvalidInputError(
                f"Expected a file with one square input of known size. Received: {str(size.path)!r} with {size.size}. "
                "Pass the side of its pictures in pixels instead."
            )
        return int(side), framing
    if not hasattr(size, "layers"):
        raise InvalidInputError(
            "Expected size as a positive whole number: the side of the square, in pixels; or a Keras model, or an opened "
            f"file. Received: {size!r}. Pass for example 224."
        )
    return input_side(size), framing_of(size)


def sample_images(size: int, channels: int = 3) -> npt.NDArray[np.uint8]:
    """The eight photographs that ship with the package, uint8 `[8, size, size, channels]`."""
    return Framing(channels=channels).read_all(sample_paths(), size)
