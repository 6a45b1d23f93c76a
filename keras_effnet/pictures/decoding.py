"""From a file or its bytes to an upright 8-bit picture: the one way, for lists, training, commands and people.

What is listed as readable was read by this code, so it can be read again. Two faults are forgiven and
remarked on: a JPEG that lacks only its last bytes, and gray values that use few of their 16 bits.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from keras_effnet.errors import InvalidInputError
from keras_effnet.system.files import system_said


@dataclass(frozen=True, slots=True)
class Part:
    """An encoded picture inside a file that holds many, TFRecords say: its bytes stand there as they are.

    Attributes:
        file: the file that holds it.
        start, length: where in it, in bytes.
    """

    file: str
    start: int
    length: int

    @classmethod
    def named(cls, name: str) -> Part:
        """The part that `str` gave this name."""
        file, _, place = name.rpartition("@")
        start, _, length = place.partition("+")
        return cls(file, int(start), int(length))

    def __str__(self) -> str:
        return f"{self.file}@{self.start}+{self.length}"


Source = str | os.PathLike[str] | Part | bytes | bytearray | memoryview | BinaryIO

MAX_PIXELS = 128 * 2**20  # no phone has more (108 million in 2024); 400 MB of RGB
ENOUGH_ROWS = 0.9  # of a JPEG without its end; a network sees less change than from another crop
GRAY_DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners fill
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE, _S_MAX_SAMPLE_VALUE = 258, 281, 341
_ADVICE = "Pass a JPEG, PNG or other picture that opens in an image viewer."
_UNKNOWN = "no picture in it, or of a kind that cannot be read"


@dataclass(frozen=True)
class Decoded:
    """A picture that was read.

    Attributes:
        picture: a `PIL.Image.Image`, upright, of mode `RGB` or `L`.
        remarks: what a person should know about the file, a clause each whose subject is the picture:
            `"lacks its last bytes; 3% of its rows are gray"`. Lists show them.
    """

    picture: Any
    remarks: tuple[str, ...] = ()


class UnreadablePictureError(InvalidInputError):
    """A file that holds no picture which can be used.

    Attributes:
        reason: why, in a few words, for lists that name the file themselves.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def decode_picture(
    source: Source, *, channels: int = 3, max_pixels: int = MAX_PIXELS, at_least: int | None = None
) -> Decoded:
    """Read a picture: upright (EXIF), without transparency (over white), 8 bits per channel.

    Args:
        source: a path, a part of a file, the bytes of one, or a binary file object, read from where it stands
            to its end.
        channels: 3 for RGB, 1 for gray.
        max_pixels: width × height that is accepted. It is compared with what the file's header says, before
            anything is decoded. Above 179 million Pillow's own `PIL.Image.MAX_IMAGE_PIXELS` must be raised too.
        at_least: a JPEG may be decoded at a half, a quarter or an eighth of its size as long as both sides
            keep this many pixels; every byte is still read. None for full size.

    Raises:
        UnreadablePictureError: nothing there, not a decodable picture, or too many pixels; an
            `InvalidInputError`. It names the file, whatever the fault.
        InvalidInputError: other channels than 1 or 3.
    """
    if channels not in (1, 3):
        raise InvalidInputError(
            f"Expected channels as 3 (RGB) or 1 (gray). Received: {channels!r}. Photographs have no others."
        )
    with _opened(source) as stream:
        opened, remarks = _load_forgiving(stream, max_pixels, at_least)
        return _in_eight_bits(opened, channels, remarks)


def check_header(source: Source, *, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse what `decode_picture` refuses by the first bytes alone: in no time, and nothing is decoded.

    Raises:
        UnreadablePictureError: nothing there, no picture, or too many pixels.
    """
    with _opened(source) as stream:
        _accepted(stream, max_pixels)


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    """A stream of a file that is not empty. What goes wrong with it becomes an `UnreadablePictureError`."""
    name = describe(source)
    try:
        with _stream(source, name) as stream:
            if not stream.read(1):
                raise UnreadablePictureError(f"Expected {name}. Received an empty file. {_ADVICE}", "empty")
            stream.seek(0)
            yield stream
    except UnreadablePictureError:
        raise
    except _UnusablePictureError as error:
        raise UnreadablePictureError(
            f"Expected {name}. Received {error}. {error.advice}", str(error)
        ) from error
    except Exception as error:  # Pillow's plugins raise whatever their formats make them
        reason = _reason(error)
        raise UnreadablePictureError(
            f"Expected {name}. It cannot be decoded ({reason}). {_ADVICE}", reason
        ) from error


class _UnusablePictureError(Exception):
    """Why a picture that could be decoded is not used, and what to do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.advice = advice


def describe(source: Source) -> str:
    """What messages call a source: `a picture at 'cat.jpg'`."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "a picture in the bytes given"
    if isinstance(source, Part):
        return f"a picture at {str(source)!r}"
    if isinstance(source, str | os.PathLike):
        return f"a picture at {os.fspath(source)!r}"
    return f"a picture in the file object given ({getattr(source, 'name', type(source).__name__)})"


@contextmanager
def _stream(source: Source, name: str) -> Iterator[BinaryIO]:
    """A stream that can be rewound."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
        return
    if isinstance(source, Part):
        with _opened_file(Path(source.file), name) as stream:
            stream.seek(source.start)
            yield io.BytesIO(stream.read(source.length))
        return
    if not isinstance(source, str | os.PathLike):
        content = source.read() if hasattr(source, "read") else None
        if not isinstance(content, bytes):
            raise UnreadablePictureError(
                f"Expected a path, bytes, or a file opened with 'rb'. Received: {type(source).__name__}.",
                "no binary file",
            )
        yield io.BytesIO(content)
        return
    with _opened_file(Path(source), name) as stream:
        yield stream


def _opened_file(path: Path, name: str) -> BinaryIO:
    try:
        if not path.is_file():
            kind = "a directory" if path.is_dir() else "no such file"
            raise UnreadablePictureError(f"Expected {name}. Received: {kind}. {_ADVICE}", kind)
        return path.open("rb")
    except OSError as error:
        said = system_said(error)
        raise UnreadablePictureError(
            f"Expected a picture that can be read at {os.fspath(path)!r}. The system said: {said}. "
            "Check the path and its permissions.",
            said,
        ) from error


def _reason(error: Exception) -> str:
    """What a decoder's error says, in one line."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return _UNKNOWN  # Pillow's text repeats the path, or tells an address in memory
    if isinstance(error, OSError) and error.errno:
        return system_said(error)
    text = (str(error).strip().splitlines() or [""])[0]
    return text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def _load_forgiving(stream: BinaryIO, max_pixels: int, at_least: int | None) -> tuple[Any, list[str]]:
    """The decoded picture and the remarks on it. A JPEG without its end is given one."""
    try:
        return _load(stream, max_pixels, at_least)
    except OSError:
        stream.seek(0)
        if stream.read(2) != b"\xff\xd8":
            raise
        stream.seek(0)
        content = stream.read()
        # at full size: how much is missing shows exactly only there
        try:
            opened, remarks = _load(io.BytesIO(content + b"\xff\xd9"), max_pixels, None)
        except OSError:
            opened = None
        missing = 1.0 if opened is None else _missing_rows(opened, content)
        if missing > 1 - ENOUGH_ROWS:
            raise
        return opened, [f"lacks its last bytes; {_gray_rows(missing)}", *remarks]


def _gray_rows(missing: float) -> str:
    if not missing:
        return "no row of it is gray"
    return f"{f'{missing:.0%}' if missing >= 0.005 else 'less than 1%'} of its rows are gray"


def _load(stream: BinaryIO, max_pixels: int, at_least: int | None) -> tuple[Any, list[str]]:
    """The picture as Pillow decodes it, once its header is found acceptable; and what to remark on it."""
    opened = _accepted(stream, max_pixels)
    if at_least is not None:
        opened.draft(None, (at_least, at_least))
    has_deep_colors = opened.mode in ("RGB", "RGBA") and ";16" in str(opened.tile)
    opened.load()
    ranges: Any = opened.getextrema() if has_deep_colors else ()
    remarks = []
    if ranges and max(most for _, most in ranges[:3]) < 2**4:
        # Pillow keeps the upper byte alone, so that there is nothing left to brighten
        remarks = ["has 16-bit colors of at most 12 bits and comes out nearly black. Save it with 8 bits"]
    return opened, remarks


def _accepted(stream: BinaryIO, max_pixels: int) -> Any:
    """The picture that Pillow finds, not decoded yet, unless its header speaks against it."""
    from PIL import Image

    try:
        opened = Image.open(stream)
    except Image.DecompressionBombError as error:
        raise _UnusablePictureError(
            "more pixels than Pillow's limit",
            "Shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it.",
        ) from error
    if opened.width * opened.height > max_pixels:
        limit = f"{max_pixels / 1e6:.3g} million" if max_pixels >= 1e6 else f"{max_pixels:,}"
        raise _UnusablePictureError(
            f"{opened.width} × {opened.height} pixels, more than the limit of {limit}",
            "Shrink it, or raise max_pixels of load_image if you trust it.",
        )
    if opened.format == "EPS":  # Pillow would run Ghostscript
        raise _UnusablePictureError("a PostScript program", "Convert it to PNG.")
    return opened


def _missing_rows(opened: Any, content: bytes) -> float:
    """The share of rows for which a cut JPEG has no data; 1 where more is missing than rows.

    The decoder leaves those rows gray. A file that comes in several scans is whole, if less sharp, once a
    scan that only refines has begun.
    """
    scan = content.rfind(b"\xff\xda")  # entropy-coded data never holds this pair
    header = content[scan + 4 : scan + 16]
    if scan < 0 or len(header) < 12:
        return 1.0
    components = header[0]
    refines = header[1 + 2 * components + 2] >> 4 if components <= 4 else 0
    if opened.info.get("progressive") and not refines:
        return 1.0
    if not refines and components != len(opened.getbands()):
        return 1.0
    values = np.asarray(opened)
    empty = ((values == 127) | (values == 128)).reshape(len(values), -1).all(axis=1)
    return float(np.argmin(np.append(empty[::-1], False)) / len(values))


def _in_eight_bits(opened: Any, channels: int, remarks: list[str]) -> Decoded:
    """Upright, over white, in RGB or gray."""
    from PIL import Image

    deep = opened.mode in ("I", "F") or opened.mode.startswith("I;16")
    picture, more = _from_deep_gray(opened) if deep else (opened, [])
    if (turn := _turn(opened)) is not None:
        picture = picture.transpose(turn)
    transparent = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
    if transparent:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    if channels == 1 and picture.mode != "L":
        picture = picture.convert("RGB")  # of modes like P and CMYK only this knows the colors
    return Decoded(picture.convert("L" if channels == 1 else "RGB"), (*remarks, *more))


def _turn(opened: Any) -> Any:
    """The transposition that turns a picture upright; None where it is, or where its EXIF cannot be read.

    Only this tag is looked at. Pillow's `exif_transpose` also writes the others anew, and fails at those that
    a camera wrote wrongly.
    """
    from PIL import Image

    turns = Image.Transpose
    try:
        orientation = opened.getexif().get(_ORIENTATION)
    except Exception:  # damaged EXIF beside good pixels
        return None
    return {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }.get(orientation if isinstance(orientation, int) else 1)


def _from_deep_gray(opened: Any) -> tuple[Any, list[str]]:
    """16-bit and float gray to 8 bits, and a remark where that needed a guess.

    Medical and microscope cameras store 10, 12 or 14 bits in 16. A TIFF may say so (BitsPerSample,
    MaxSampleValue); else the largest value of the picture tells, so that the same picture always gives the
    same pixels. PNG's sBIT does not help: its values are to be scaled to all bits already.
    """
    from PIL import Image

    values = np.asarray(opened, dtype=np.float64)
    largest = values.max(initial=0)
    if opened.mode == "F":
        remarks = []
        if 0 < largest <= 1:
            remarks = [
                f"has gray values of at most {largest:.3g}, which look like a picture that was divided by 255, "
                "and comes out black. Multiply them by 255"
            ]
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)), remarks
    declared = _declared_largest(opened)
    most = max(largest, declared)
    bits = next((depth for depth in GRAY_DEPTHS if most < 2**depth), None)
    if bits is None:
        raise _UnusablePictureError(
            f"gray values up to {largest:.0f}", "Scale them to 0-65535 and save it again."
        )
    remarks = []
    if bits < 16 and largest and not declared:
        remarks = [
            f"has 16-bit gray values of at most {largest:.0f}, which are taken for {bits} bits. "
            "If it really is that dark, save it with 8 bits"
        ]
    gray = np.clip(np.rint(values * (255 / (2**bits - 1))), 0, 255).astype(np.uint8)
    return Image.fromarray(gray), remarks


def _declared_largest(opened: Any) -> int:
    """The largest value that a TIFF says its gray pixels have; 0 where it does not say."""
    tags = getattr(opened, "tag_v2", {})
    for tag in (_S_MAX_SAMPLE_VALUE, _MAX_SAMPLE_VALUE):
        value = np.ravel(tags.get(tag, ()))
        if value.size and 0 < value[0] < 2**16:
            return int(value[0])
    bits = np.ravel(tags.get(_BITS_PER_SAMPLE, ()))
    return 2 ** int(bits[0]) - 1 if bits.size and 8 < bits[0] < 16 else 0
