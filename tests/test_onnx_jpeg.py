"""`to_onnx(…, input="jpeg")`: the file takes a picture's bytes, and sees what `load_image` sees."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import as_stored, assert_refused, encoded, exif
from PIL import Image

from keras_effnet import export, load_image
from keras_effnet.cli import main
from keras_effnet.errors import InvalidInputError, MissingExtraError, VerificationError
from keras_effnet.export.options import Options
from keras_effnet.export.targets import check_options, get_target
from keras_effnet.pictures.folders import sample_paths

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime_extensions")
SIZE = 48


@pytest.fixture(scope="module")
def sees(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """From a picture's bytes to the pixels that a network gets of them: this one hands them out."""
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten()])
    path = export.to_onnx(model, tmp_path_factory.mktemp("seen") / "m.onnx", input="jpeg", kinds="embedding")
    runner = export.load(path)
    return lambda content: next(iter(runner.answers_to_files([content]).values())).reshape(SIZE, SIZE, 3)


@pytest.fixture(scope="module")
def reddish() -> Any:
    """A network that tells red photographs from blue ones; swapped colors change its mind."""
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.layers[-1].set_weights([np.array([[9, -9], [0, 0], [-9, 9]], np.float32), np.zeros(2, np.float32)])
    return model


@pytest.fixture(scope="module")
def file(reddish: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.to_onnx(
        reddish, tmp_path_factory.mktemp("red") / "m.onnx", input="jpeg", labels=["red", "blue"]
    )


@pytest.mark.parametrize(
    ("shape", "allowed"),  # of 255, in noise; where the picture is enlarged its edge is guessed otherwise
    [
        ((80, 80), 0),
        ((400, 300), 0.5),
        ((321, 600), 0.5),
        ((81, 94), 2),
        ((31, 70), 4),
        ((20, 20), 4),
        ((1, 9), 10),
    ],
)
def test_file_crops_and_resizes_pictures_of_any_shape_as_load_image_does(
    sees: Any, shape: tuple[int, int], allowed: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), "PNG")
    assert np.abs(sees(content) - load_image(content, SIZE)).mean() <= allowed


def test_file_sees_in_photographs_what_load_image_sees(sees: Any) -> None:
    for path in sample_paths():
        assert np.abs(sees(path.read_bytes()) - load_image(path, SIZE)).mean() < 2, path


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_file_gives_gray_and_palette_pictures_three_channels(sees: Any, mode: str) -> None:
    content = encoded(Image.open(sample_paths()[0]).resize((120, 90)).convert(mode), "PNG")
    assert np.abs(sees(content) - load_image(content, SIZE)).mean() < 1.5


@pytest.mark.parametrize(
    ("recipe", "opset"), [("float32", None), ("float16", 21), ("float16_gpu", None), ("int8", 21)]
)
def test_every_recipe_reads_the_file_and_keeps_what_it_says_of_itself(
    nano: Any, pixels32: Any, tmp_path: Path, recipe: str, opset: int | None
) -> None:
    given = pixels32 if recipe == "int8" else None
    options = {"input": "jpeg", "input_name": "photo", "output_name": "y", "first_integer": None}
    path = export.to_onnx(
        nano, tmp_path / "a.onnx", recipe, given, labels=list("abc"), opset=opset, **options
    )
    model = onnx.load(path)
    entry, taken = model.graph.input[0], model.graph.output[0]
    assert entry.name == "photo" and entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_value for dim in taken.type.tensor_type.shape.dim] == [1, 3]
    versions = {each.domain: each.version for each in model.opset_import}
    assert versions == {"": opset or 18, "com.microsoft.extensions": 1}
    runner = export.load(path)
    assert (runner.recipe, runner.labels, runner.size) == (recipe, tuple("abc"), (32, 32))
    pixel_file = export.to_onnx(nano, tmp_path / "b.onnx", recipe, given)
    assert np.abs(runner(pixels32) - export.load(pixel_file)(pixels32)).max() < 1e-3


def test_verification_fails_for_a_file_that_reads_photographs_otherwise(tmp_path: Path) -> None:
    """This network looks at single pixels; without smoothing, the file gets others of the same photograph."""
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(2, activation="softmax"))
    kernel = np.random.default_rng(0).normal(0, 3e-3, (SIZE * SIZE * 3, 2)).astype(np.float32)
    model.layers[-1].set_weights([kernel, np.zeros(2, np.float32)])
    path = export.to_onnx(model, tmp_path / "m.onnx", input="jpeg")
    pixels = np.stack([load_image(path, SIZE) for path in sample_paths()])
    report = export.verify(model, path, pixels)
    assert report.reading[0].agreement == 1 and report.row()["reading"][0]["max_abs_error"] < 0.15
    file = onnx.load(path)
    resize = next(node for node in file.graph.node if node.op_type == "Resize")
    attributes = {each.name: each for each in resize.attribute}
    attributes["antialias"].i, attributes["mode"].s = 0, b"linear"
    onnx.save(file, tmp_path / "aliased.onnx")
    with pytest.raises(VerificationError, match="Photographs are read otherwise than by load_image"):
        export.verify(model, tmp_path / "aliased.onnx", pixels, photographs=sample_paths())


def _photograph(**options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise), "JPEG", **options)


def _with_wrong_checksum(png: bytes) -> bytes:
    """Of the data behind the pixels, which Pillow does not look at."""
    end = png.index(b"IEND") - 4
    return png[: end - 4] + bytes(4) + png[end:]


def test_picture_that_the_decoder_must_not_get_is_one_clear_error(file: Path, tmp_path: Path) -> None:
    """Its own answer to these: the end of the process, or to wait for ever."""
    picture = Image.new("RGB", (60, 50), (200, 30, 30))
    whole = _photograph()
    contents = {
        "good.jpg": (encoded(picture, "JPEG"), None),
        "cut.jpg": (whole[: len(whole) // 2], "truncated"),
        "end.jpg": (whole[:-2], "lacks its last bytes"),
        "progressive.jpg": (_photograph(progressive=True)[:-20], "lacks its last bytes"),
        "text.jpg": (b"hello", "no picture in it"),
        "empty.jpg": (b"", "an empty file"),
        "gif.gif": (encoded(picture.convert("P"), "GIF"), "decodes JPEG and PNG alone"),
        "gray.jpg": (
            encoded(picture.convert("L"), "JPEG"),
            "a JPEG of L pixels, which the file decodes wrongly",
        ),
        "cmyk.jpg": (encoded(picture.convert("CMYK"), "JPEG"), "a JPEG of CMYK pixels"),
        "cut.png": (encoded(picture, "PNG")[:-30], "truncated"),
        "checksum.png": (_with_wrong_checksum(encoded(picture, "PNG")), "the decoder inside"),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    rows = list(export.score(file, [tmp_path / name for name in contents], workers=0))
    for row, (name, (_, said)) in zip(rows, contents.items(), strict=True):
        assert (said is None) == ("error" not in row), name
        if said is not None:
            assert said in row["error"] and name in row["error"] and "\n" not in row["error"]
    assert rows[0]["predictions"][0]["label"] == "red"


def test_photograph_that_is_stored_turned_is_remarked_on(file: Path, tmp_path: Path) -> None:
    picture = Image.open(sample_paths()[0]).convert("RGB").resize((90, 60))
    (tmp_path / "x.jpg").write_bytes(encoded(as_stored(picture, 6), "JPEG", exif=exif(6)))
    with pytest.warns(UserWarning, match="is stored turned"):
        list(export.score(file, tmp_path / "x.jpg"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"opset": 17}, "opset left out. Received: opset=17"),
        ({"runtime": "openvino"}, "runtime left out. Received: runtime='openvino', which cannot decode"),
        ({"runtime": "tensorrt"}, "runtime='tensorrt'"),
        ({"batching": "each"}, "batching='each'"),
        ({"layout": "nhwc"}, "layout='nhwc'"),
    ],
)
def test_what_a_file_that_takes_a_jpeg_cannot_follow_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said.replace(".", r"\.")):
        Options(input="jpeg", **asked)


def test_models_whose_pictures_cannot_be_read_inside_are_refused(tmp_path: Path) -> None:
    for shape, said in (((32, 32, 1), "32 × 32 × 1"), ((32, 48, 3), "32 × 48 × 3")):
        model = keras.Sequential([keras.Input(shape), keras.layers.Flatten()])
        with pytest.raises(InvalidInputError, match=f"square RGB pictures.*{said}"):
            export.to_onnx(model, tmp_path / "m.onnx", input="jpeg", kinds="embedding")
    with pytest.raises(InvalidInputError, match="input with ONNX files"):
        check_options([get_target("tflite", "float32")], Options(input="jpeg"))


def test_missing_package_is_one_line_with_its_extra(
    reddish: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    with pytest.raises(MissingExtraError, match=r"'onnxruntime_extensions'.*\[onnx-jpeg\]"):
        export.load(file)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'onnxruntime_extensions'.*\[onnx-jpeg\]"):
        export.to_onnx(reddish, tmp_path / "m.onnx", input="jpeg")


def test_command_exports_verifies_and_predicts(reddish: Any, tmp_path: Path, capsys: Any) -> None:
    reddish.save(tmp_path / "red.keras")
    out = ["--to", "onnx:float32", "--onnx-input", "jpeg", "--out", str(tmp_path / "out"), "--quiet"]
    assert main(["export", str(tmp_path / "red.keras"), *out, "--no-html"]) == 0
    assert "photographs' files, read inside: 100.0% the same decision" in capsys.readouterr().out
    row = json.loads((tmp_path / "out" / "report.json").read_text())["artifacts"][0]
    assert row["ok"] and row["reading"][0]["agreement"] == 1
    path = next((tmp_path / "out").glob("*.onnx"))
    photograph = sample_paths()[0]
    assert main(["predict", str(photograph), "--model", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)[0]["predictions"]
    read = next(iter(export.load(path).answers_to_files([photograph.read_bytes()]).values()))[0]
    assert sorted(each["probability"] for each in told) == pytest.approx(sorted(read.tolist()), abs=1e-6)
    refused = ["bundle", "triton", str(path), "--out", str(tmp_path / "repository")]
    assert_refused(refused, "which takes the bytes of one picture", capsys)
