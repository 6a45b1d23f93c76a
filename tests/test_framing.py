"""How photographs are cropped travels with a network, into every file and every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import as_stored, encoded, exif, outputs, slim_variant
from PIL import Image

from keras_effnet import decode_predictions, export, load_image, transfer
from keras_effnet.cli import main
from keras_effnet.pictures.decoding import decode_picture
from keras_effnet.pictures.folders import sample_paths
from keras_effnet.pictures.framing import Framing, framing_of

LABELS = ["left", "right", "Grüße von 狗"]


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright frame that the reference's crop would cut away, around something dark; lossless."""
    pixels = np.random.default_rng(1).integers(0, 40, (192, 256, 3), dtype=np.uint8)
    pixels[:30], pixels[-30:], pixels[:, :60], pixels[:, -60:] = 250, 240, 230, 220
    path = tmp_path_factory.mktemp("framing") / "framed.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def whole(photograph: Path) -> Any:
    """A classifier of whole squares that tells the photograph's two crops apart."""
    keras.utils.set_random_seed(5)
    model = transfer.classifier(slim_variant(), LABELS, weights=None, input_shape=(64, 64, 3), crop_margin=0)
    crops = np.stack([load_image(photograph, 64, margin=margin) for margin in (0, 32)])
    features = outputs(keras.Model(model.input, model.get_layer("avg_pool").output), crops)
    direction = features[0] - features[1]
    kernel = np.outer(direction / (direction**2).sum(), [2.0, -2.0, 0.0])
    model.get_layer("predictions").set_weights([kernel, -features.mean(axis=0) @ kernel])
    return model


@pytest.fixture(scope="module")
def saved_model(whole: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier as a SavedModel."""
    return export.to_saved_model(whole, tmp_path_factory.mktemp("saved_model") / "m")


def test_margin_survives_saving(whole: Any, tmp_path: Path) -> None:
    whole.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras", compile=False)
    assert framing_of(loaded).margin == 0
    assert transfer.labels_of(loaded) == tuple(LABELS)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("shape", "decoded"), [((383, 500), (500, 383)), ((384, 500), (250, 192)), ((800, 1000), (250, 200))]
)
def test_large_jpeg_is_decoded_no_larger_than_twice_what_is_seen(
    shape: tuple[int, int], decoded: tuple[int, int], orientation: int
) -> None:
    """64 pixels and a margin of 32 ask for 192 of the shorter side."""
    corners = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(corners).resize(shape[::-1], Image.Resampling.BICUBIC)
    options = {"quality": 95, "subsampling": 0, "exif": exif(orientation)}
    content = encoded(as_stored(picture, orientation), "JPEG", **options)
    assert Framing().decode(content, 64).picture.size == decoded
    whole = Framing().square(decode_picture(content).picture, 64)
    difference = np.abs(Framing().read(content, 64).astype(int) - whole)
    assert difference.mean() < 0.6 and difference.max() <= 4
    png = encoded(as_stored(picture, orientation), "PNG", exif=exif(orientation))
    assert Framing().decode(png, 64).picture.size == picture.size


@pytest.mark.parametrize(("variant", "interpolation"), [("b0", "bicubic"), ("lite0", "bilinear")])
def test_published_variants_are_framed_as_they_were_judged(variant: str, interpolation: str) -> None:
    model = transfer.classifier(variant, 2, weights=None, input_shape=(32, 32, 3))
    assert framing_of(model) == Framing(interpolation, 32)


@pytest.mark.parametrize("ending", ["", ".tflite", ".onnx", ".keras"])
def test_every_file_tells_its_framing_and_its_labels(
    whole: Any, saved_model: Path, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"model{ending}" if ending else saved_model
    if ending == ".keras":
        whole.save(path)
    elif ending:
        {".tflite": export.to_tflite, ".onnx": export.to_onnx}[ending](whole, path)
    runner = export.load(path)
    assert runner.framing == Framing("bicubic", 0)
    assert runner.labels == tuple(LABELS)


def test_saved_model_crops_encoded_pictures_as_the_network_was_trained(
    whole: Any, saved_model: Path, photograph: Path
) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(saved_model))
    (served,) = loaded.signatures["serve_bytes"](image_bytes=tf.constant([photograph.read_bytes()])).values()
    right, wrong = (outputs(whole, load_image(photograph, 64, margin=margin)[None]) for margin in (0, 32))
    assert np.abs(right - wrong).max() > 0.1  # the crop matters for this photograph
    np.testing.assert_allclose(served.numpy(), right, atol=0.01)


def test_predict_command_reads_photographs_as_the_network_was_trained(
    whole: Any, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole.save(tmp_path / "a.keras")
    assert (
        main(["predict", str(photograph), "--model", str(tmp_path / "a.keras"), "--json", "--top", "3"]) == 0
    )
    (found,) = json.loads(capsys.readouterr().out)
    expected = outputs(whole, load_image(photograph, 64, margin=0)[None])[0]
    told = {guess["label"]: guess["probability"] for guess in found["predictions"]}
    assert told == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-4)


def test_readme_session_gives_the_answer_of_the_predict_command(
    lite0: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cat = next(path for path in sample_paths() if path.name == "cat.jpg")
    assert main(["predict", str(cat), "--json", "--top", "3"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    (decoded,) = decode_predictions(lite0.predict(load_image(cat, lite0)[None], verbose=0), top=3)
    assert [guess["label"] for guess in found["predictions"]] == [label for _, label, _ in decoded]
    told = [guess["probability"] for guess in found["predictions"]]
    assert told == pytest.approx([probability for _, _, probability in decoded], abs=1e-5)


def test_predict_command_turns_photographs_upright(
    whole: Any, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole.save(tmp_path / "a.keras")
    with Image.open(photograph) as upright:
        for orientation in range(1, 9):
            for order in "<>":
                tags = exif(orientation, order=order, malformed=True)
                stored = encoded(as_stored(upright, orientation), "PNG", exif=tags)
                (tmp_path / f"{orientation}{'i' if order == '<' else 'm'}.png").write_bytes(stored)
    files = [str(photograph), *map(str, sorted(tmp_path.glob("*.png")))]
    assert main(["predict", *files, "--model", str(tmp_path / "a.keras"), "--json"]) == 0
    answers = [answer["predictions"] for answer in json.loads(capsys.readouterr().out)]
    assert len(answers) == 17 and all(answer[0]["label"] == answers[0][0]["label"] for answer in answers)
    for answer in answers:
        assert answer[0]["probability"] == pytest.approx(answers[0][0]["probability"], abs=1e-5)
