"""Decoding, the evaluation crop, and what is said about arrays that are no pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_effnet import decode_predictions, load_image, preprocess_input
from keras_effnet.errors import EffNetWarning, InvalidInputError
from keras_effnet.pictures.folders import list_images
from keras_effnet.pictures.labels import imagenet_labels, imagenet_wnids
from keras_effnet.pictures.reading import check_pixels, sample_images


@pytest.fixture
def picture() -> Image.Image:
    """A gradient with a red left and a blue top, 96 × 64."""
    x, y = np.meshgrid(np.linspace(255, 0, 96), np.linspace(255, 0, 64))
    return Image.fromarray(np.stack([x, np.full_like(x, 60), y], axis=-1).astype(np.uint8))


def test_load_image_takes_the_central_square_of_the_evaluation_crop(tmp_path: Path) -> None:
    pixels = np.zeros((256, 320, 3), np.uint8)
    pixels[16:240, 48:272] = 200  # the central 224 of 256 rows, and as many columns
    Image.fromarray(pixels).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png", 224)
    assert loaded.shape == (224, 224, 3) and loaded.dtype == np.uint8
    assert (loaded == 200).all()  # not a row of the black frame, not a column missing


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_load_image_resizes_with_the_interpolation_asked_for(
    tmp_path: Path, picture: Image.Image, interpolation: str
) -> None:
    picture.save(tmp_path / "a.png")
    side = 32 / 64 * 64
    box = ((96 - side) / 2, (64 - side) / 2, (96 + side) / 2, (64 + side) / 2)
    expected = picture.resize((32, 32), Image.Resampling[interpolation.upper()], box=box)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png", 32, interpolation=interpolation), expected)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("P", "png"), ("1", "png"), ("RGBA", "png"), ("LA", "png"), ("CMYK", "jpg"), ("I;16", "png"),
     ("RGB", "webp"), ("RGB", "bmp"), ("F", "tiff"), ("RGB", "gif")],
)  # fmt: skip
def test_load_image_decodes_every_common_mode_to_rgb(
    tmp_path: Path, picture: Image.Image, mode: str, suffix: str
) -> None:
    gray = picture.convert("L")
    if mode == "I;16":
        converted = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    elif mode == "P":
        converted = picture.quantize(256)
    else:
        converted = (gray if mode in ("L", "LA", "F", "1") else picture).convert(mode)
    path = tmp_path / f"a.{suffix}"
    converted.save(path, **({"quality": 95} if suffix in ("jpg", "webp") else {}))
    loaded = load_image(path, 32).astype(int)
    assert loaded.shape == (32, 32, 3)
    if mode != "1":
        source = gray.convert("RGB") if mode in ("L", "LA", "F", "I;16") else picture
        source.save(tmp_path / "expected.png")
        difference = np.abs(loaded - load_image(tmp_path / "expected.png", 32)).mean()
        assert difference < (6 if suffix in ("jpg", "webp", "gif") or mode == "P" else 1)


def test_load_image_lays_transparent_pixels_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (10, 200, 30, 0)).save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png", 32) == 255).all()


@pytest.mark.parametrize(("largest", "warns"), [(1.0, True), (0.0, False), (200.0, False)])
def test_load_image_warns_about_float_values_that_come_out_black(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, largest: float, warns: bool
) -> None:
    values = np.linspace(0, largest, 64 * 64, dtype=np.float32).reshape(64, 64)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    load_image(tmp_path / "a.tiff", 32)
    said = [str(warning.message) for warning in recwarn if warning.category is EffNetWarning]
    assert ["a.tiff" in text and "Multiply them by 255" in text for text in said] == [True] * warns


@pytest.mark.parametrize("size", [(224, 224), 0, 3.5, "32"])
def test_load_image_refuses_a_size_that_is_no_number_of_pixels(tmp_path: Path, size: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"size as a positive whole number.*Received: .*Pass"):
        load_image(tmp_path / "a.png", size)


def test_load_image_turns_pictures_upright(tmp_path: Path, picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: to be rotated by 90° clockwise
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    picture.save(tmp_path / "upright.png")
    np.testing.assert_array_equal(
        load_image(tmp_path / "turned.png", 32), load_image(tmp_path / "upright.png", 32)
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jpg", b"", "empty file"),
        ("text.jpg", b"not a picture", "cannot be decoded"),
        ("cut.png", None, "cannot be decoded"),
        ("absent.jpg", False, "no such file"),
    ],
)
def test_load_image_says_what_is_wrong_with_an_unreadable_picture(
    tmp_path: Path, picture: Image.Image, name: str, content: Any, message: str
) -> None:
    path = tmp_path / name
    if content is None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:3000])
    elif content is not False:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=f"Expected a picture at .*{name}.*{message}"):
        load_image(path, 32)


def test_load_image_reads_paths_with_spaces_and_other_letters(tmp_path: Path, picture: Image.Image) -> None:
    folder = tmp_path / "mit Leerzeichen" / "écran 写真"
    folder.mkdir(parents=True)
    picture.save(folder / "ü.png")
    assert load_image(folder / "ü.png", 32).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), "no picture at all"),
        (np.zeros((8, 8, 3), np.uint8), r"Received shape \[8, 8, 3\]"),
        (
            np.zeros((1, 9, 8, 3), np.uint8),
            r"Expected images of shape \[N, 8, 8, 3\]. Received \[1, 9, 8, 3\]",
        ),
        (np.zeros((1, 8, 8, 1), np.uint8), r"Received \[1, 8, 8, 1\]"),
        (np.full((1, 8, 8, 3), np.nan), "NaN or infinity"),
        (np.zeros((1, 8, 8, 3), np.complex64), "Received complex64"),
        (np.array([["a"]], dtype=object), "of object"),
    ],
)
def test_check_pixels_says_what_was_expected_and_what_came(images: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_pixels(images, size=(8, 8))


def test_check_pixels_warns_when_values_look_divided_by_255() -> None:
    with pytest.warns(UserWarning, match=r"pixels 0-255.*divided by 255 already"):
        check_pixels(np.random.default_rng(0).random((2, 8, 8, 3)))


def test_check_pixels_stays_silent_for_real_pixels(recwarn: pytest.WarningsRecorder) -> None:
    check_pixels(np.random.default_rng(0).random((2, 8, 8, 3)) * 255)
    assert not recwarn.list


def test_preprocess_input_changes_nothing_unless_asked(pixels64: Any) -> None:
    assert preprocess_input(pixels64) is pixels64
    with pytest.raises(InvalidInputError, match="Did you mean 'imagenet'"):
        preprocess_input(pixels64, convention="image-net")


def test_list_images_lists_folders_that_link_to_one_another_once(tmp_path: Path) -> None:
    folders = [tmp_path / f"d{index:02}" for index in range(12)]  # 12! ways through them
    for folder in folders:
        folder.mkdir()
        (folder / "x.png").touch()
    (tmp_path / "a").symlink_to(folders[0])  # comes before it, and does not take its name
    for folder in folders:
        for other in folders:
            (folder / f"to_{other.name}").symlink_to(other)
    assert list_images(tmp_path) == [folder / "x.png" for folder in folders]


def test_list_images_finds_nested_pictures_and_refuses_an_empty_folder(
    tmp_path: Path, picture: Image.Image
) -> None:
    with pytest.raises(InvalidInputError, match="which holds none"):
        list_images(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    for name in ("b/2.JPG", "1.png"):
        picture.save(tmp_path / name)
    assert [path.name for path in list_images(tmp_path)] == ["1.png", "2.JPG"]


def test_sample_images_are_eight_different_photographs() -> None:
    pixels = sample_images(64)
    assert pixels.shape == (8, 64, 64, 3)
    assert len({image.tobytes() for image in pixels}) == 8


def test_labels_are_a_thousand_different_names_in_the_usual_order() -> None:
    labels, wnids = imagenet_labels(), imagenet_wnids()
    assert len(set(labels)) == len(set(wnids)) == 1000
    assert (labels[0], labels[285], labels[967]) == ("tench", "Egyptian cat", "espresso")
    assert (wnids[0], wnids[285], wnids[999]) == ("n01440764", "n02124075", "n15075141")


def test_decode_predictions_gives_the_best_classes_first() -> None:
    scores = np.zeros((2, 1000))
    scores[0, [285, 281]] = 0.7, 0.2
    scores[1, 967] = 0.9
    decoded = decode_predictions(scores, top=2)
    assert decoded[0] == [("n02124075", "Egyptian cat", 0.7), ("n02123045", "tabby", 0.2)]
    assert decoded[1][0][1] == "espresso"


@pytest.mark.parametrize(("shape", "top"), [((1, 10), 5), ((1000,), 5), ((1, 1000), 0), ((1, 1000), 1001)])
def test_decode_predictions_refuses_other_shapes(shape: tuple[int, ...], top: int) -> None:
    with pytest.raises(InvalidInputError, match="Expected"):
        decode_predictions(np.zeros(shape), top=top)


def test_list_images_leaves_hidden_files_out_and_ends_at_a_loop(tmp_path: Path, picture: Image.Image) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "again").symlink_to(tmp_path)
    for name in (".hidden.jpg", "._1.png", "1.png", "b/2.webp", "b/3.tif"):
        picture.save(tmp_path / name)
    assert [path.name for path in list_images(tmp_path)] == ["1.png", "2.webp", "3.tif"]


def test_list_images_says_what_it_found_instead(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(b"heic")
    with pytest.raises(InvalidInputError, match=r"holds none, but 1 that cannot be used, 'IMG_1\.HEIC' say"):
        list_images(tmp_path)
