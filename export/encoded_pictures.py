"""Encoded pictures to pixels with TensorFlow's operators alone: what `load_image` does, inside a SavedModel.

TensorFlow is imported at the top: import this module late. The decoders are the same libraries as Pillow's and give the same pixels. Around them stands what Pillow does
in Python: the size is read from the header before anything is decoded, EXIF turns the picture upright,
transparent pixels are laid on white, and the crop is resized along one axis after the other, rounded between.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from keras_effnet.pictures.decoding import ENOUGH_ROWS, GRAY_DEPTHS, MAX_PIXELS
from keras_effnet.pictures.framing import SPARE, Framing

KERNEL_TYPES = {"bicubic": "keyscubic", "bilinear": "triangle"}  # the resizing operator's names
MAX_SEGMENTS = 200  # of a JPEG before its pixels; cameras write about ten
MAX_STEPS = 20_000  # of a walk through a file's blocks; a GIF's first picture of 5 MB
RATIOS = (1, 2, 4, 8)  # by which the decoder of JPEGs shrinks
_LUMA = (19595, 38470, 7471)  # of 65536: Pillow's weights of red, green and blue in gray


def batch_decoder(height: int, width: int, framing: Framing) -> Callable[[Any], tuple[Any, Any]]:
    """A graph function from encoded pictures to pixels of this size, framed so.

    Returns:
        From strings `[N]` to (float32 `[N, height, width, channels]`, whole numbers 0–255; bool `[N]`: whether
        each could be decoded. The pixels of one that could not are zeros). N may be 0.
    """
    shape = (height, width, framing.channels)
    needed = SPARE * (max(height, width) + framing.margin)  # as `Framing.decode` asks for

    def nothing() -> Any:  # made where it is used, so that no graph holds what belongs to another
        return tf.data.Dataset.from_tensors((tf.zeros(shape, tf.uint8), False))

    plainly = tf.autograph.experimental.do_not_convert  # no Python to be translated, which would take long

    def decode(encoded: Any) -> tuple[Any, Any]:
        pixels = _square(_upright(encoded, framing.channels, needed), height, width, framing)
        return tf.ensure_shape(pixels, shape), True

    def one(encoded: Any) -> Any:
        # a graph cannot catch an error; a data set can leave out the element that failed
        decoded = tf.data.Dataset.from_tensors(encoded).map(plainly(decode)).ignore_errors()
        return decoded.concatenate(nothing()).take(1)

    def decode_batch(encoded: Any) -> tuple[Any, Any]:
        pictures = tf.data.Dataset.from_tensor_slices(encoded).interleave(
            plainly(one), cycle_length=8, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        count = tf.shape(encoded, out_type=tf.int64)[0]
        whole = pictures.concatenate(nothing()).batch(count + 1)  # never empty, as one element must be
        pixels, found = whole.get_single_element()
        return tf.cast(pixels[:-1], tf.float32), found[:-1]

    return plainly(decode_batch)


class _Bytes:
    """A file's bytes as numbers; beyond the end there are zeros."""

    def __init__(self, encoded: Any) -> None:
        self.content = tf.io.decode_raw(encoded, tf.uint8)
        self.count = tf.size(self.content, out_type=tf.int64)
        self._padded = tf.pad(self.content, [[0, 64]])  # headers are looked at whether they are there or not

    def _at(self, start: Any, length: int) -> Any:
        if isinstance(start, int):
            return self._padded[start : start + length]
        return tf.slice(self._padded, [tf.clip_by_value(start, 0, self.count)], [length])

    def big(self, start: Any, length: int) -> Any:
        """The number of `length` bytes at `start` whose first byte counts most; int64."""
        return self._number(start, [256**place for place in reversed(range(length))])

    def little(self, start: Any, length: int) -> Any:
        """The number of `length` bytes at `start` whose last byte counts most; int64."""
        return self._number(start, [256**place for place in range(length)])

    def _number(self, start: Any, weights: list[int]) -> Any:
        return tf.reduce_sum(tf.cast(self._at(start, len(weights)), tf.int64) * weights)

    def have(self, start: Any, text: bytes) -> Any:
        """Whether `text` stands at `start`."""
        return tf.reduce_all(self._at(start, len(text)) == list(text))

    def first(self, text: bytes) -> Any:
        """Where `text` stands first; -1 for nowhere."""
        return self._hits(text)[0]

    def last(self, text: bytes) -> Any:
        """Where `text` stands last; -1 for nowhere."""
        return self._hits(text)[-1]

    def _hits(self, text: bytes) -> Any:
        count = tf.maximum(self.count - len(text) + 1, 0)
        hits = tf.ones([count], tf.bool)
        for place, byte in enumerate(text):
            hits &= self.content[place : count + place] == byte
        places = tf.where(hits)[:, 0]
        return tf.cond(tf.size(places) > 0, lambda: places, lambda: tf.constant([-1], tf.int64))


def _upright(encoded: Any, channels: int, needed: int) -> Any:
    """One encoded picture as uint8 `[H, W, channels]`, upright and over white; a JPEG may come smaller."""
    file = _Bytes(encoded)
    kinds: list[tuple[Any, Callable[..., tuple[Any, Any]]]] = [
        (file.have(0, b"\xff\xd8\xff"), partial(_jpeg, needed=needed)),
        (file.have(0, b"\x89PNG\r\n\x1a\n"), _png),
        (file.have(0, b"GIF8"), _gif),
        (file.have(0, b"BM"), _bmp),
        (file.have(0, b"RIFF") & file.have(8, b"WEBP"), _webp),
    ]
    kind = tf.argmax(tf.stack([found for found, _ in kinds]), output_type=tf.int32)
    known = tf.reduce_any(tf.stack([found for found, _ in kinds]))
    checked = _if_true(known, encoded, "a JPEG, PNG, GIF, BMP or WebP")
    rgb, exif = tf.switch_case(kind, [partial(read, checked, file) for _, read in kinds])
    rgb = tf.ensure_shape(rgb, (None, None, 3))
    if channels == 1:
        luma = tf.reduce_sum(tf.cast(rgb, tf.int32) * _LUMA, axis=-1, keepdims=True)
        rgb = tf.cast((luma + 32768) // 65536, tf.uint8)
    return _turned(rgb, _orientation(file, exif))


def _if_true(condition: Any, value: Any, expected: str) -> Any:
    """`value`, which is computed only after the check."""
    with tf.control_dependencies([tf.debugging.Assert(condition, [f"Expected {expected}."])]):
        return tf.identity(value)


def _if_small(width: Any, height: Any, value: Any) -> Any:
    small = (width > 0) & (height > 0) & (width * height <= MAX_PIXELS)
    return _if_true(small, value, f"at most {MAX_PIXELS} pixels")


def _jpeg(encoded: Any, file: _Bytes, needed: int) -> tuple[Any, Any]:
    """At a half, a quarter or an eighth of its size where both sides keep as many pixels as are needed."""
    sides = tf.io.extract_jpeg_shape(encoded, output_type=tf.int64)
    encoded = _if_small(sides[1], sides[0], encoded)
    exif, progressive = _jpeg_segments(file)
    scan = file.last(b"\xff\xda")
    cut = file.last(b"\xff\xd9") < scan
    encoded = tf.where(cut, tf.strings.join([encoded, b"\xff\xd9"]), encoded)
    spare = tf.where(
        cut, 1, tf.cast(tf.reduce_min(sides[:2]), tf.int32) // needed
    )  # the missing rows are counted at full size
    decode = partial(tf.io.decode_jpeg, encoded, channels=3, dct_method="INTEGER_ACCURATE")  # Pillow's way
    shrunk = tf.reduce_sum(tf.cast(spare >= RATIOS[1:], tf.int32))
    picture = tf.switch_case(shrunk, [partial(decode, ratio=ratio) for ratio in RATIOS])
    # the same rule as for `load_image`
    components = file.big(scan + 4, 1)
    refines = file.big(scan + 7 + 2 * components, 1) >= 16
    has_rows = ~progressive & (components == sides[2]) & (_missing_rows(picture) <= 1 - ENOUGH_ROWS)
    return _if_true(~cut | refines | has_rows, picture, "a JPEG with nine tenths of its rows"), exif


def _missing_rows(picture: Any) -> Any:
    """The share of rows at the bottom that the decoder left gray."""
    empty = tf.reduce_all((picture == 127) | (picture == 128), axis=[1, 2])
    trailing = tf.reduce_sum(tf.math.cumprod(tf.cast(empty[::-1], tf.int32)))
    return tf.cast(trailing / tf.size(empty), tf.float32)


def _jpeg_segments(file: _Bytes) -> tuple[Any, Any]:
    """Where the EXIF data begins (-1 for nowhere) and whether the scans refine one another.

    The segments before the pixels are walked through.
    """

    def going_on(place: Any, exif: Any, progressive: Any) -> Any:
        del exif, progressive
        marker = file.big(place, 2)
        return (marker > 0xFF00) & (marker != 0xFFDA) & (marker != 0xFFD9)

    def step(place: Any, exif: Any, progressive: Any) -> tuple[Any, Any, Any]:
        marker = file.big(place, 2)
        is_exif = (exif < 0) & (marker == 0xFFE1) & file.have(place + 4, b"Exif\0\0")
        following = tf.where(marker == 0xFFFF, place + 1, place + 2 + file.big(place + 2, 2))
        return following, tf.where(is_exif, place + 4, exif), progressive | (marker == 0xFFC2)

    start = tf.constant(2, tf.int64), tf.constant(-1, tf.int64), tf.constant(False)
    return tf.while_loop(going_on, step, start, maximum_iterations=MAX_SEGMENTS)[1:]


def _png(encoded: Any, file: _Bytes) -> tuple[Any, Any]:
    encoded = _if_small(file.big(16, 4), file.big(20, 4), encoded)
    bits, is_gray = file.big(24, 1), file.big(25, 1) == 0

    def deep_gray() -> Any:
        return tf.repeat(_from_deep_gray(tf.io.decode_png(encoded, channels=1, dtype=tf.uint16)), 3, axis=2)

    def shallow() -> Any:
        return _over_white(tf.io.decode_png(encoded, channels=4))

    def shallow_gray() -> Any:
        return tf.io.decode_png(encoded, channels=3)  # with 4 its opaque is 1, 3 or 15 instead of 255

    found = file.first(b"eXIf")
    which = tf.where(is_gray & (bits == 16), 0, tf.where(is_gray & (bits < 8), 1, 2))
    picture = tf.switch_case(which, [deep_gray, shallow_gray, shallow])
    return picture, tf.where(found < 0, found, found + 4)


def _from_deep_gray(values: Any) -> Any:
    """16-bit gray in 8 bits: the largest value tells how many bits are in use, as in `decode_picture`."""
    limits = tf.constant([2**bits - 1 for bits in GRAY_DEPTHS], tf.float64)
    wide = tf.cast(values, tf.float64)
    white = tf.reduce_min(tf.where(limits >= tf.reduce_max(wide), limits, limits[-1]))
    return tf.cast(tf.round(wide * (255 / white)), tf.uint8)


def _over_white(rgba: Any) -> Any:
    wide = tf.cast(rgba, tf.float32)
    color, alpha = wide[..., :3], wide[..., 3:]
    mixed = (color * alpha + 255.0 * (255.0 - alpha)) / 255.0
    return tf.cast(tf.floor(mixed + 0.5), tf.uint8)


def _bmp(encoded: Any, file: _Bytes) -> tuple[Any, Any]:
    """Without compression, of 24 or 32 bits, or of 8 with a palette."""
    width, height = file.little(18, 4), file.little(22, 4)
    height = tf.where(height >= 2**31, 2**32 - height, height)  # negative: from top to bottom
    header, bits = file.little(14, 4), file.little(28, 2)
    plain = (header >= 40) & (file.little(30, 4) == 0) & ((bits == 8) | (bits == 24) | (bits == 32))
    encoded = _if_small(
        width, height, _if_true(plain, encoded, "a BMP of 8, 24 or 32 bits without compression")
    )
    picture = tf.io.decode_bmp(encoded)

    def from_palette() -> Any:
        rest = file.content[14 + header : file.little(10, 4)]
        colors = tf.reshape(rest[: tf.size(rest) // 4 * 4], [-1, 4])[
            :, 2::-1
        ]  # from blue, green, red, unused
        return tf.gather(colors, tf.cast(picture[..., 0], tf.int32))

    return tf.cond(bits == 8, from_palette, lambda: picture[..., :3]), tf.constant(-1, tf.int64)


def _webp(encoded: Any, file: _Bytes) -> tuple[Any, Any]:
    """Not an animation: the decoder would decode all of it."""
    packed = file.little(21, 4)
    extended, lossless = file.have(12, b"VP8X"), file.have(12, b"VP8L")
    still = tf.logical_not(extended) | ((file.big(20, 1) & 2) == 0)
    width, height = (
        tf.where(extended, file.little(24 + 3 * axis, 3) + 1,
                 tf.where(lossless, packed // 2 ** (14 * axis) % 2**14 + 1, file.little(26 + 2 * axis, 2) % 2**14))
        for axis in (0, 1)
    )  # fmt: skip
    encoded = _if_small(width, height, _if_true(still, encoded, "a WebP of one picture"))
    picture = tf.io.decode_webp(encoded)[0]
    has_alpha = tf.shape(picture)[-1] == 4
    picture = tf.cond(has_alpha, lambda: _over_white(picture), lambda: picture[..., :3])
    found = file.first(b"EXIF")
    return picture, tf.where(found < 0, found, found + 8)


def _gif(encoded: Any, file: _Bytes) -> tuple[Any, Any]:
    """The first picture, which must fill the canvas. The rest is cut off: the decoder would decode all of it."""
    width, height = file.little(6, 2), file.little(8, 2)
    control, picture, end = _first_of_gif(file)
    # its corner is at 0, 0 and its sides are those of the canvas
    fills = (
        (picture >= 0)
        & (file.little(picture + 1, 4) == 0)
        & (file.little(picture + 5, 4) == file.little(6, 4))
    )
    encoded = _if_small(width, height, _if_true(fills, encoded, "a GIF whose first picture fills the canvas"))
    # what is transparent gets the palette's color, which is made white
    flags = file.big(picture + 9, 1)
    palette = tf.where(flags >= 128, picture + 10, 13)
    color = palette + 3 * file.big(control + 6, 1)
    transparent = (control >= 0) & (file.big(control + 3, 1) % 2 == 1) & (color + 3 <= end)

    first = _part(encoded, 0, end)
    whitened = _replaced(_replaced(first, control + 3, b"\0"), color, b"\xff\xff\xff")
    first = tf.where(transparent, whitened, first)
    frames = tf.io.decode_gif(tf.strings.join([first, b";"]))
    return frames[0], tf.constant(-1, tf.int64)


def _part(text: Any, start: Any, end: Any) -> Any:
    """The bytes from `start` to `end`; none where `start` lies outside."""
    start, end = tf.cast(start, tf.int64), tf.cast(end, tf.int64)
    inside = (start >= 0) & (start <= tf.cast(tf.strings.length(text), tf.int64))
    return tf.strings.substr(
        text, tf.where(inside, start, 0), tf.where(inside, tf.maximum(end - start, 0), 0)
    )


def _replaced(text: Any, start: Any, new: bytes) -> Any:
    whole = tf.cast(tf.strings.length(text), tf.int64)
    return tf.strings.join([_part(text, 0, start), new, _part(text, start + len(new), whole)])


def _first_of_gif(file: _Bytes) -> tuple[Any, Any, Any]:
    """Where a GIF's first picture stands, the control block before it (-1 for none), and where its data ends."""

    def palette_bytes(flags: Any) -> Any:
        return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), tf.constant(0, tf.int64))

    def going_on(place: Any, in_data: Any, control: Any, picture: Any) -> Any:
        del control
        return (place < file.count) & (in_data | (picture < 0))

    def step(place: Any, in_data: Any, control: Any, picture: Any) -> tuple[Any, Any, Any, Any]:
        """One block, or one piece of the data behind it."""
        first = file.big(place, 1)
        extension, image = ~in_data & (first == 0x21), ~in_data & (first == 0x2C)
        behind = tf.where(
            in_data,
            place + 1 + first,
            tf.where(
                extension,
                place + 2,
                tf.where(image, place + 11 + palette_bytes(file.big(place + 9, 1)), file.count),
            ),
        )
        control = tf.where(extension & (file.big(place + 1, 1) == 0xF9), place, control)
        return behind, tf.where(in_data, first > 0, True), control, tf.where(image, place, picture)

    start = tf.constant(13, tf.int64) + palette_bytes(file.big(10, 1))
    none = tf.constant(-1, tf.int64)
    state = (start, tf.constant(False), none, none)
    place, in_data, control, picture = tf.while_loop(going_on, step, state, maximum_iterations=MAX_STEPS)
    return control, tf.where(in_data, none, picture), place


def _orientation(file: _Bytes, start: Any) -> Any:
    """The EXIF orientation 1-8 in the data that begins at `start`; 1 where there is none."""
    start = tf.where(file.have(start, b"Exif\0\0"), start + 6, start)
    little = file.have(start, b"II*\0")
    valid = (start >= 0) & (little | file.have(start, b"MM\0*"))
    table = start + tf.where(little, file.little(start + 4, 4), file.big(start + 4, 4))
    room = tf.maximum((file.count - table - 2) // 12, 0)
    count = tf.where(valid, tf.minimum(tf.where(little, file.little(table, 2), file.big(table, 2)), room), 0)
    entries = tf.reshape(tf.cast(file.content[table + 2 : table + 2 + 12 * count], tf.int64), [-1, 12])
    # read as if the first byte of each number counted most
    pairs = tf.reshape(entries, [-1, 6, 2])
    pairs = tf.where(little, pairs[..., 1] * 256 + pairs[..., 0], pairs[..., 0] * 256 + pairs[..., 1])
    found = tf.boolean_mask(pairs, pairs[:, 0] == 0x0112)
    # a number of four bytes has its lower half behind in big-endian files
    values = tf.where((found[:, 1] == 4) & ~little, found[:, 5], found[:, 4])
    value = tf.concat([tf.ones([1], tf.int64), values], 0)[-1]
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _turned(picture: Any, orientation: Any) -> Any:
    def turn() -> Any:
        turned = tf.cond(orientation >= 5, lambda: tf.transpose(picture, [1, 0, 2]), lambda: picture)
        mirrored = tf.reduce_any(orientation == [2, 3, 6, 7])
        upside_down = tf.reduce_any(orientation == [3, 4, 7, 8])
        turned = tf.cond(mirrored, lambda: turned[:, ::-1], lambda: turned)
        return tf.cond(upside_down, lambda: turned[::-1], lambda: turned)

    return tf.cond(orientation > 1, turn, lambda: picture)


def _square(picture: Any, height: int, width: int, framing: Framing) -> Any:
    """The central part with the model's aspect ratio, resized; uint8 `[height, width, channels]`.

    It keeps `size / (size + margin)` of the shorter side. Pillow resizes rows first, except of tall pictures,
    where it would have to compute more, and rounds to whole numbers before it goes on with the other axis.
    """
    sides = tf.shape(picture)[:2]
    target = tf.constant([height, width], tf.float64)
    zoom = tf.reduce_max((target + framing.margin) / tf.cast(sides, tf.float64))
    tall = sides[0] + height > 2 * sides[1]

    def along_first(pixels: Any, axis: int) -> Any:
        """Resize the axis that lies first and was axis `axis` of the picture; then put the other one first."""
        before, after = sides[axis], [height, width][axis]
        offset = (tf.cast(before, tf.float64) - after / zoom) / 2
        resized = tf.raw_ops.ScaleAndTranslate(
            images=pixels[tf.newaxis],
            size=tf.stack([after, tf.shape(pixels)[1]]),
            scale=tf.cast(tf.stack([zoom, 1.0]), tf.float32),
            translation=tf.cast(tf.stack([-offset * zoom, 0.0]), tf.float32),
            kernel_type=KERNEL_TYPES[framing.interpolation],
            antialias=True,
        )[0]
        rounded = tf.floor(tf.clip_by_value(resized, 0.0, 255.0) + 0.5)
        return tf.transpose(tf.cast(rounded, tf.uint8), [1, 0, 2])

    def columns_first() -> Any:
        return along_first(along_first(picture, 0), 1)

    def rows_first() -> Any:
        return tf.transpose(along_first(along_first(tf.transpose(picture, [1, 0, 2]), 1), 0), [1, 0, 2])

    return tf.cond(tall, columns_first, rows_first)
