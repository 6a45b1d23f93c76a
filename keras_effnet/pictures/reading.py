"""From a file to pixels: decoding, the evaluation crop, checks of arrays, lists of photographs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, unknown_name, warn
from keras_effnet.system.access import reachable

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
CROP_MARGIN = 32  # the reference's evaluation crop keeps size / (size + 32) of the shorter side


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


def crop_fraction(size: int, margin: int = CROP_MARGIN) -> float:
    """The share of the shorter side that the evaluation crop keeps: `size / (size + 32)`."""
    return size / (size + margin)


def load_image(
    path: str | os.PathLike[str], size: int, *, interpolation: str = "bicubic", margin: int = CROP_MARGIN
) -> npt.NDArray[np.uint8]:
    """Read one photograph with the reference's evaluation crop.

    The picture is turned upright (EXIF), converted to RGB (gray, palette, CMYK and 16-bit pictures
    included, transparent pixels over white), cropped to the central square of
    `size / (size + 32)` of its shorter side, and resized.

    Args:
        path: an image file that Pillow can decode.
        size: side of the result, in pixels.
        interpolation: `"bicubic"` (default) or `"bilinear"`.
        margin: pixels of the shorter side that the crop leaves out, at the result's scale; 0 for the
            whole square. Of a picture with `size + margin` and margin 0, the centre is the usual crop.

    Returns:
        uint8 `[size, size, 3]`, 0–255.

    Raises:
        InvalidInputError: no such file, not a decodable picture, or a size that is none.

    Source: `preprocessing.py` of the reference code (`_decode_and_center_crop`).
    """
    from PIL import Image

    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    if interpolation not in filters:
        raise unknown_name("interpolation", interpolation, filters)
    if not isinstance(size, Integral) or size < 1:
        raise InvalidInputError(
            "Expected size as a positive whole number: the side of the square, in pixels. "
            f"Received: {size!r}. Pass for example 224."
        )
    picture = _open_rgb(Path(path))
    side = crop_fraction(size, margin) * min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    # Pillow's `box` samples only inside the crop, at sub-pixel precision.
    resized = picture.resize(
        (size, size), resample=filters[interpolation], box=(left, top, left + side, top + side)
    )
    return np.asarray(resized, dtype=np.uint8)


def _open_rgb(path: Path) -> Any:
    """Decode to an upright 8-bit RGB picture."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    advice = "Pass a JPEG, PNG or other picture that opens in an image viewer."
    with reachable(path, "a picture that can be read"):
        if not path.is_file():
            kind = "a directory" if path.is_dir() else "no such file"
            raise InvalidInputError(f"Expected a picture at {str(path)!r}. Received: {kind}. {advice}")
        with path.open("rb") as stream:
            empty = not stream.read(1)
    if empty:
        raise InvalidInputError(f"Expected a picture at {str(path)!r}. Received an empty file. {advice}")
    try:
        with Image.open(path) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened) or opened
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInputError(
            f"Expected a picture at {str(path)!r}. It cannot be decoded ({error}). {advice}"
        ) from error
    if picture.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        return _from_deep_gray(picture, path)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _from_deep_gray(picture: Any, path: Path) -> Any:
    """16-bit and float gray to 8-bit RGB. Pillow's own conversion clips at 255 and turns it white."""
    from PIL import Image

    values = np.asarray(picture, dtype=np.float64)
    if picture.mode.startswith("I;16") or (picture.mode == "I" and values.max(initial=0) > 255):
        values = values / 257.0  # 65535 → 255
    elif 0 < values.max(initial=0) <= 1:
        warn(
            f"Expected gray values 0-255 in {str(path)!r}. Received values of at most {values.max():.3g}, which "
            "look like a picture that was divided by 255, and come out black. Multiply them by 255.",
        )
    gray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return Image.fromarray(gray, mode="L").convert("RGB")


def list_images(directory: str | os.PathLike[str]) -> list[Path]:
    """The pictures of a directory and its sub-directories, sorted by path.

    Raises:
        InvalidInputError: not a directory, no picture in it, or a folder in it that may not be read.
    """
    root = Path(directory)
    with reachable(root, "a directory of photographs that can be read"):
        if not root.is_dir():
            raise InvalidInputError(
                f"Expected a directory of photographs. Received: {str(root)!r}, which is not a directory."
            )
        found = sorted(
            path for path in _walk(root) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        )
    if not found:
        raise InvalidInputError(
            f"Expected a directory of photographs ({' '.join(sorted(IMAGE_SUFFIXES))}). "
            f"Received: {str(root)!r}, which holds none."
        )
    return found


def _walk(root: Path) -> Iterator[Path]:
    """The files below a directory. `Path.rglob` takes a folder that may not be read for an empty one."""

    def refuse(error: OSError) -> None:
        raise error

    for folder, _, names in os.walk(root, onerror=refuse):
        yield from (Path(folder, name) for name in names)


def sample_paths() -> list[Path]:
    """The files of the eight photographs that ship with the package."""
    return list_images(Path(__file__).parents[1] / "photos")


def sample_images(size: int) -> npt.NDArray[np.uint8]:
    """These eight photographs with the reference's evaluation crop, uint8 `[8, size, size, 3]`."""
    return np.stack([load_image(path, size) for path in sample_paths()])
