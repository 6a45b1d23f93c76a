"""A SavedModel's `serve_bytes` sees what `load_image` sees. The networks here hand out the pixels they were given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from material import as_stored, encoded, exif
from PIL import Image

from keras_effnet import export, load_image
from keras_effnet.errors import EffNetWarning, InvalidInputError
from keras_effnet.pictures.folders import sample_paths

Serve = Callable[[list[bytes]], Any]
pytestmark = pytest.mark.filterwarnings(f"ignore::{EffNetWarning.__module__}.EffNetWarning")


def _served(folder: Path, size: int, channels: int) -> Serve:
    """From encoded pictures to the pixels that a network for them gets, through a SavedModel."""
    model = keras.Sequential([keras.Input((size, size, channels)), keras.layers.Flatten()])
    signature = tf.saved_model.load(str(export.to_saved_model(model, folder / "m"))).signatures["serve_bytes"]

    def serve(contents: list[bytes]) -> Any:
        (pixels,) = signature(image_bytes=tf.constant(contents, tf.string)).values()
        return pixels.numpy().reshape(-1, size, size, channels)

    return serve


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    return _served(tmp_path_factory.mktemp("rgb"), 224, 3)


@pytest.fixture(scope="module")
def photograph() -> Any:
    """The cat, small enough for many copies."""
    path = next(path for path in sample_paths() if path.name == "cat.jpg")
    picture = Image.open(path).convert("RGB")
    return picture.resize((360, 360 * picture.height // picture.width))


def _files(picture: Any) -> dict[str, bytes]:
    """One picture in every kind of file that TensorFlow decodes."""
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, picture.width).astype(np.uint8), (picture.height, 1)))
    transparent = picture.copy()
    transparent.putalpha(alpha)
    palette = picture.quantize(64)
    gray = picture.convert("L")
    deep = np.asarray(gray).astype(np.uint16)
    animation = {"save_all": True, "append_images": [palette.rotate(90)]}
    return {
        "jpeg": encoded(picture, "JPEG", quality=92),
        "progressive": encoded(picture, "JPEG", progressive=True),
        "gray jpeg": encoded(gray, "JPEG"),
        "cmyk": encoded(picture.convert("CMYK"), "JPEG"),
        "malformed": encoded(picture, "JPEG", exif=exif(3, malformed=True)),
        "cut": encoded(picture, "JPEG", quality=92)[:-30],
        "one byte lost": encoded(picture, "JPEG", quality=92)[:-1],
        "progressive cut": encoded(picture, "JPEG", progressive=True)[:-200],
        "png": encoded(picture, "PNG"),
        "turned png": encoded(picture, "PNG", exif=exif(8)),
        "transparent png": encoded(transparent, "PNG"),
        "gray and alpha": encoded(transparent.convert("LA"), "PNG"),
        "palette": encoded(palette, "PNG", transparency=3),
        "one color transparent": encoded(picture, "PNG", transparency=picture.getpixel((180, 120))),
        "1 bit": encoded(picture.convert("1"), "PNG"),
        "16 bits": encoded(Image.fromarray(deep * 257), "PNG"),
        "12 bits": encoded(Image.fromarray(deep * 16), "PNG"),
        "webp": encoded(picture, "WEBP", exif=exif(6)),
        "transparent webp": encoded(transparent, "WEBP", lossless=True),
        "gif": encoded(palette, "GIF", transparency=5),
        "moving gif": encoded(palette, "GIF", **animation),
        "bmp": encoded(picture, "BMP"),
        "bmp with alpha": encoded(transparent, "BMP"),
        "bmp of palette": encoded(palette, "BMP"),
    }


def test_serve_bytes_turns_photographs_upright(serve: Serve, photograph: Any, lite0: Any) -> None:
    finest = {
        "quality": 98,
        "subsampling": 0,
    }  # colors at half the size would differ between the orientations
    stored = [
        encoded(as_stored(photograph, orientation), "JPEG", **finest, exif=exif(orientation, order=order))
        for orientation in range(1, 9)
        for order in "<>"
    ]
    expected = np.stack([load_image(content, 224) for content in stored])
    served = serve(stored)
    assert np.abs(served - expected).mean(axis=(1, 2, 3)).max() < 0.1
    upright = load_image(encoded(photograph, "JPEG", **finest), 224)
    assert np.abs(served - upright).mean(axis=(1, 2, 3)).max() < 1  # the rounding of eight encodings
    both = lite0.predict(np.concatenate([served, expected]), verbose=0).argmax(axis=1)
    assert len(set(both)) == 1


def test_serve_bytes_sees_in_every_kind_of_file_what_load_image_sees(serve: Serve, photograph: Any) -> None:
    files = _files(photograph)
    for name, content, pixels in zip(files, files.values(), serve(list(files.values())), strict=True):
        difference = np.abs(pixels - load_image(content, 224))
        assert difference.mean() < 0.1 and difference.max() <= 4, name


@pytest.mark.parametrize("shape", [(96, 300), (300, 96), (224, 224), (50, 50), (31, 700)])
def test_serve_bytes_resizes_pictures_of_any_shape_as_load_image_does(
    serve: Serve, shape: tuple[int, int]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), "PNG")
    assert np.abs(serve([content])[0] - load_image(content, 224)).mean() < 0.5


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": exif(6)}])
def test_serve_bytes_shrinks_a_large_jpeg_while_decoding_as_load_image_does(
    serve: Serve, options: dict[str, Any]
) -> None:
    """At half, and at a quarter, of sides that two and four do not divide; 1,023 pixels are not enough to halve."""
    noise = np.random.default_rng(0).integers(0, 256, (2051, 2302, 3), dtype=np.uint8)
    for height, width in ((1023, 1150), (1025, 1150), (2051, 2302)):
        content = encoded(Image.fromarray(noise[:height, :width]), "JPEG", quality=90, **options)
        assert np.abs(serve([content])[0] - load_image(content, 224)).mean() < 0.5


def test_serve_bytes_answers_a_picture_that_it_cannot_read_with_nan_alone(
    serve: Serve, photograph: Any
) -> None:
    good = encoded(photograph, "PNG")
    jpeg = encoded(photograph, "JPEG")
    small = photograph.resize((60, 48))
    bad = {
        "empty": b"",
        "text": b"not a picture",
        "half a png": good[: len(good) // 2],
        "half a jpeg": jpeg[: len(jpeg) // 2],
        "169 megapixels of png": encoded(Image.new("1", (13_000, 13_000)), "PNG"),
        "169 megapixels of gif": encoded(Image.new("P", (13_000, 13_000)), "GIF"),
        "tiff": encoded(small, "TIFF"),
        "moving webp": encoded(small, "WEBP", save_all=True, append_images=[small.rotate(90)]),
        "1-bit bmp": encoded(small.convert("1"), "BMP"),
    }
    pixels = serve([good, *bad.values(), good])
    for name, answer in zip(bad, pixels[1:-1], strict=True):
        assert np.isnan(answer).all(), name
    np.testing.assert_array_equal(pixels[0], pixels[-1])
    assert np.abs(pixels[0] - load_image(good, 224)).mean() < 0.1


def test_serve_bytes_takes_an_empty_batch(serve: Serve) -> None:
    assert serve([]).shape == (0, 224, 224, 3)


def test_serve_bytes_of_a_network_takes_an_empty_batch(nano: Any, tmp_path: Path) -> None:
    """TensorFlow's batch normalization fails at one, which a network without it does not show."""
    served = tf.saved_model.load(str(export.to_saved_model(nano, tmp_path / "m"))).signatures["serve_bytes"]
    (answers,) = served(image_bytes=tf.constant([], tf.string)).values()
    assert answers.shape == (0, 3)
    whole = encoded(Image.new("RGB", (40, 40)), "PNG")
    (answers,) = served(image_bytes=tf.constant([whole, b"no picture"])).values()
    assert np.isfinite(answers[0]).all() and np.isnan(answers[1]).all()


def test_serve_bytes_of_a_gray_model_sees_gray(photograph: Any, tmp_path: Path) -> None:
    serve = _served(tmp_path, 48, 1)
    files = [
        encoded(photograph, "PNG"),
        encoded(photograph.convert("L"), "JPEG"),
        encoded(photograph, "WEBP"),
    ]
    expected = np.stack([load_image(content, 48, channels=1) for content in files])
    assert np.abs(serve(files) - expected).mean(axis=(1, 2, 3)).max() < 0.2


def test_serve_bytes_survives_damaged_files(serve: Serve, photograph: Any) -> None:
    """What it answers, `load_image` reads too, and no file ends the batch."""
    generator = np.random.default_rng(5)
    small = photograph.resize((60, 48))
    whole = [
        encoded(small, kind, **({"exif": exif(6)} if kind != "GIF" else {}))
        for kind in ("JPEG", "PNG", "GIF", "WEBP")
    ]
    damaged = []
    for number in range(80):
        content = bytearray(whole[number % len(whole)])
        for place in generator.integers(0, min(len(content), 300), generator.integers(1, 6)):
            content[place] = generator.integers(0, 256)
        damaged.append(bytes(content))
    answered = ~np.isnan(serve(damaged)).any(axis=(1, 2, 3))
    assert 0 < answered.sum() < 80
    agreeing = 0
    for content, answer in zip(damaged, answered, strict=True):
        try:
            load_image(content, 224)
            agreeing += bool(answer)
        except InvalidInputError:
            agreeing += not answer
    assert agreeing >= 70  # the decoders differ in what they forgive
