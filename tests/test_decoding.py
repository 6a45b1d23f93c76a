"""The one reader of pictures: what it takes, what it forgives, and what it says about the rest."""

from __future__ import annotations

import io
import random
import struct
import time
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import as_stored, encoded, exif
from PIL import Image, ImageFile

from keras_effnet import EfficientNet, load_image
from keras_effnet.errors import EffNetWarning, InvalidInputError
from keras_effnet.pictures.decoding import UnreadablePictureError, decode_picture
from keras_effnet.pictures.framing import Framing


@pytest.fixture(scope="module")
def scene() -> Any:
    """Smooth colors, different in every corner, 120 × 96."""
    corners = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((120, 96), Image.Resampling.BICUBIC)


def test_load_image_takes_a_path_bytes_and_open_files(scene: Any, tmp_path: Path) -> None:
    content = encoded(scene, "PNG")
    (tmp_path / "a.png").write_bytes(content)
    expected = load_image(tmp_path / "a.png", 32)
    for source in (
        str(tmp_path / "a.png"),
        content,
        bytearray(content),
        memoryview(content),
        io.BytesIO(content),
    ):
        np.testing.assert_array_equal(load_image(source, 32), expected)
    with (tmp_path / "a.png").open("rb") as file:
        np.testing.assert_array_equal(load_image(file, 32), expected)


@pytest.mark.parametrize("source", [io.StringIO("text"), 3, None])
def test_load_image_refuses_what_is_no_file(source: Any) -> None:
    with pytest.raises(InvalidInputError, match="Expected a path, bytes, or a file opened with 'rb'"):
        load_image(source, 32)


@pytest.mark.parametrize("malformed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_load_image_turns_photographs_upright(
    scene: Any, orientation: int, order: str, malformed: bool
) -> None:
    tags = exif(orientation, order=order, malformed=malformed)
    stored = encoded(as_stored(scene, orientation), "PNG", exif=tags)
    np.testing.assert_array_equal(load_image(stored, 64), load_image(encoded(scene, "PNG"), 64))


def test_load_image_uses_the_pixels_of_the_photographs_with_malformed_exif(shared: Path) -> None:
    for path in sorted((shared / "cases").glob("exif_*.jpg")):
        decoded = decode_picture(path)
        assert decoded.picture.size == (120, 160) and decoded.remarks == ()
        assert load_image(path, 64).shape == (64, 64, 3)


@pytest.mark.parametrize("lost", [1, 2, 40])
@pytest.mark.parametrize("progressive", [False, True])
def test_load_image_uses_a_jpeg_without_its_last_bytes_and_says_so(
    scene: Any, tmp_path: Path, lost: int, progressive: bool
) -> None:
    content = encoded(scene, "JPEG", quality=95, progressive=progressive)
    (tmp_path / "cut.jpg").write_bytes(content[:-lost])
    with pytest.warns(EffNetWarning, match=r"cut\.jpg' .*lacks its last bytes; no row of it is gray"):
        pixels = load_image(tmp_path / "cut.jpg", 64)
    difference = np.abs(pixels.astype(int) - load_image(content, 64))
    assert difference.mean() < 3
    (remark,) = decode_picture(tmp_path / "cut.jpg", at_least=32).remarks  # as a list of photographs shows it
    assert remark.startswith("lacks its last bytes")


@pytest.mark.parametrize("progressive", [False, True])
def test_load_image_refuses_a_jpeg_of_which_more_is_missing(scene: Any, progressive: bool) -> None:
    content = encoded(scene, "JPEG", quality=95, progressive=progressive)
    with pytest.raises(
        UnreadablePictureError, match=r"in the bytes given.*cannot be decoded.*truncated"
    ) as caught:
        load_image(content[: len(content) // 3], 64)
    assert "truncated" in caught.value.reason


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_load_image_refuses_more_pixels_than_the_limit_before_decoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bomb = encoded(Image.new("1", (13_000, 13_000)), "PNG")
    assert len(bomb) < 30_000
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
        with pytest.raises(
            InvalidInputError, match="13000 × 13000 pixels, more than the limit of 134 million"
        ):
            load_image(bomb, 224)
    small = encoded(Image.new("L", (100, 100)), "PNG")
    for limit, said in ((1000, "1,000"), (9_999, "9,999")):
        with pytest.raises(InvalidInputError, match=f"100 × 100 pixels, more than the limit of {said}[.]"):
            load_image(small, 32, max_pixels=limit)
    assert load_image(small, 32, max_pixels=10_000).shape == (32, 32, 3)
    with pytest.raises(InvalidInputError, match=r"100 × 100 pixels.*max_pixels"):
        load_image(small, 32, max_pixels=9_999)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_load_image_takes_deep_gray_for_the_bits_that_are_in_use(kind: str, bits: int) -> None:
    ramp = np.linspace(0, 2**bits - 1, 64 * 64).round().reshape(64, 64).astype(np.uint16)
    with pytest.warns(
        EffNetWarning, match=f"gray values of at most {2**bits - 1}, which are taken for {bits} bits"
    ):
        pixels = load_image(encoded(Image.fromarray(ramp), kind), 64, margin=0)
    np.testing.assert_array_equal(pixels[..., 0], np.rint(ramp * (255 / (2**bits - 1))))


def test_load_image_says_that_16_bit_colors_come_out_nearly_black() -> None:
    """As a TIFF of 2 × 2 pixels, little-endian, by hand: Pillow writes no such colors."""
    tags = [(256, 2), (257, 2), (258, 16), (259, 1), (262, 2), (273, 8), (277, 3), (278, 2), (279, 24)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    pixels = struct.pack("<12H", *[4000] * 12)
    tiff = b"II*\0" + struct.pack("<I", 32) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.warns(EffNetWarning, match="16-bit colors of at most 12 bits and comes out nearly black"):
        assert (load_image(tiff, 8) == 15).all()


def test_load_image_runs_no_program() -> None:
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    with pytest.raises(InvalidInputError, match=r"Received a PostScript program\. Convert it to PNG"):
        load_image(program, 32)


def test_load_image_believes_a_tiff_that_says_how_bright_its_gray_is(
    recwarn: pytest.WarningsRecorder,
) -> None:
    dark = Image.fromarray(np.full((64, 64), 1000, np.uint16))
    for largest, expected in ((4095, 62), (65535, 4)):
        content = encoded(dark, "TIFF", tiffinfo={281: largest})
        assert (load_image(content, 32) == expected).all()
    assert not [warning for warning in recwarn if warning.category is EffNetWarning]


def test_load_image_uses_all_16_bits_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).round().reshape(64, 64).astype(np.uint16)
    pixels = load_image(encoded(Image.fromarray(ramp), "PNG"), 64, margin=0)
    np.testing.assert_array_equal(pixels[..., 0], np.rint(ramp / 257))
    assert not [warning for warning in recwarn if warning.category is EffNetWarning]


def test_load_image_gives_gray_pictures_one_channel_when_asked(scene: Any) -> None:
    gray = load_image(encoded(scene, "PNG"), 32, channels=1)
    assert gray.shape == (32, 32, 1)
    np.testing.assert_array_equal(gray, load_image(encoded(scene.convert("L"), "PNG"), 32)[..., :1])
    with pytest.raises(InvalidInputError, match=r"channels as 3 \(RGB\) or 1 \(gray\)\. Received: 4"):
        load_image(encoded(scene, "PNG"), 32, channels=4)


def test_load_image_for_a_model_reads_as_the_model_was_judged(scene: Any) -> None:
    content = encoded(scene, "PNG")
    lite = EfficientNet("lite0", weights=None, classes=2)
    np.testing.assert_array_equal(
        load_image(content, lite), load_image(content, 224, interpolation="bilinear")
    )
    np.testing.assert_array_equal(
        load_image(content, lite, interpolation="bicubic", margin=0), load_image(content, 224, margin=0)
    )
    gray = keras.Sequential([keras.Input((48, 48, 1)), keras.layers.Flatten()])
    np.testing.assert_array_equal(load_image(content, gray), load_image(content, 48, channels=1))
    for shape in ((None, None, 3), (32, 64, 3)):
        with pytest.raises(InvalidInputError, match=r"one square input of known size.*Pass the side"):
            load_image(content, keras.Sequential([keras.Input(shape), keras.layers.ReLU()]))


def test_reading_gives_the_same_pixels_with_and_without_a_first_look(scene: Any) -> None:
    """A list is made with the JPEG's small version, which reads every byte too."""
    content = encoded(scene.resize((1200, 960)), "JPEG", exif=exif(6))
    small = decode_picture(content, at_least=32)
    assert small.picture.size == (120, 150)
    assert decode_picture(content).picture.size == (960, 1200)


def _mutated(generator: random.Random, content: bytes) -> bytes:
    """Some bytes of the header changed, or the file cut, or bytes put in."""
    changed = bytearray(content)
    head = min(len(changed), generator.choice([64, 200, 800]))
    kind = generator.randrange(5)
    if kind < 3:
        for _ in range(generator.choice([1, 1, 2, 4, 8])):
            changed[generator.randrange(head)] = generator.choice(
                [0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)]
            )
    elif kind == 3:
        del changed[generator.randrange(len(changed)) :]
    else:
        place = generator.randrange(head)
        changed[place : place + generator.randrange(4)] = generator.randbytes(generator.randrange(5))
    return bytes(changed)


def test_every_damaged_file_is_used_or_refused_in_one_way_and_soon(scene: Any, capfd: Any) -> None:
    """2,000 of them. libtiff writes to the error output, which `capfd` takes."""
    picture = scene.resize((60, 48))
    transparent = picture.copy()
    transparent.putalpha(picture.convert("L"))
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 16)
    tags = exif(6, malformed=True)
    whole = [
        encoded(picture, "JPEG", exif=tags),
        encoded(picture, "JPEG", progressive=True),
        encoded(picture.convert("CMYK"), "JPEG"),
        encoded(picture, "PNG", exif=tags),
        encoded(transparent, "PNG"),
        encoded(picture.quantize(20), "PNG", transparency=2),
        encoded(deep, "PNG"),
        encoded(picture, "TIFF"),
        encoded(deep, "TIFF"),
        *(encoded(picture, "TIFF", compression=name) for name in ("jpeg", "tiff_lzw", "tiff_deflate")),
        encoded(picture, "WEBP", exif=tags),
        encoded(transparent, "WEBP", lossless=True),
    ]
    generator = random.Random(0)
    used = slowest = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(2000):
            content = _mutated(generator, whole[number % len(whole)])
            start = time.process_time()
            listed, read = _readable(content, at_least=32), _readable(content)
            slowest = max(slowest, time.process_time() - start)
            assert listed == read, f"number {number} passes the scan and cannot be read, or the reverse"
            used += read
    capfd.readouterr()
    assert 400 < used < 1600
    assert slowest < 5


def _readable(content: bytes, *, at_least: int | None = None) -> bool:
    try:
        decoded = decode_picture(content, at_least=at_least)
    except UnreadablePictureError as error:
        assert str(error).startswith("Expected a picture in the bytes given. ") and "\n" not in str(error)
        assert error.reason and "\n" not in error.reason
        return False
    assert Framing().square(decoded.picture, 8).shape == (8, 8, 3)
    return True
