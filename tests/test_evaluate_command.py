"""`keras_effnet.evaluate` and `keras-effnet evaluate`: models and files on the same labelled photographs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import build_nano
from PIL import Image

import keras_effnet
from keras_effnet import export
from keras_effnet.cli import main
from keras_effnet.commands.models import Choice
from keras_effnet.errors import InvalidInputError
from keras_effnet.evaluation.matching import places_of
from keras_effnet.network.resizing import at_size
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.labels import imagenet_labels, imagenet_wnids

pytest.importorskip("sklearn")
NUMBERS = ("0", "1", "2")


@pytest.fixture(scope="module")
def nano() -> Any:
    return build_nano()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, nano: Any) -> Path:
    """Forty random pictures in folders by the nano network's own guess; every fourth in another's."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    shades = generator.integers(0, 256, (40, 3))
    pictures = [Image.fromarray(np.full((40, 36, 3), shade, np.uint8)) for shade in shades]
    seen = np.stack([Framing().square(picture, 32) for picture in pictures])
    guesses = nano(seen, training=False).numpy().argmax(axis=1)
    for place, (picture, guess) in enumerate(zip(pictures, guesses, strict=True)):
        folder = root / str((guess + (place % 4 == 0)) % 3)
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"{place:02}.png")
    for number in NUMBERS:
        (root / number).mkdir(exist_ok=True)
        if not list((root / number).iterdir()):
            pytest.fail("the random network should guess every class")
    return root


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, nano: Any) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("files")
    nano.save(out / "nano.keras")
    return {
        "keras": out / "nano.keras",
        "tflite": export.to_tflite(nano, out / "nano.tflite"),
        "onnx": export.to_onnx(nano, out / "nano.onnx"),
    }


def test_evaluate_gives_a_model_and_its_files_the_same_figures(
    nano: Any, data: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    found = keras_effnet.evaluate([nano, files["tflite"], files["onnx"]], data)
    assert [result.name for result in found] == ["nano", "nano.tflite", "nano.onnx"]
    assert {result.top1 for result in found} == {0.75} and {result.size for result in found} == {32}
    first = found.results[0]
    assert first.judged.right.tolist().count(False) == 10 and len(first.judged) == 40
    for other, compared in found.differences():
        assert compared.difference == 0 and compared.p_value == 1 and compared.same_guess == 1, other
    page = found.write(tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 3 * 10 and page.count("<svg") == 3 * 2
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page.replace("xlink:href", "href"))


def test_evaluate_command_prints_one_object_and_counts_no_picture_that_cannot_be_read(
    data: Path, files: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    rows = ["file,label", *(f"{path},{path.parent.name}" for path in sorted(data.rglob("*.png")))]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "list.csv").write_text("\n".join([*rows, "broken.png,1"]))
    models = [str(files["tflite"]), str(files["onnx"])]
    assert main(["evaluate", *models, str(tmp_path / "list.csv"), "--json", "--workers", "0"]) == 1
    told = capsys.readouterr()
    report = json.loads(told.out)
    assert report["images"] == 40 and report["classes"] == 3 and report["split"] == "all"
    (unreadable,) = report["unreadable"]
    assert unreadable["file"] == "broken.png" and "1 of 41 pictures could not be read" in told.err
    for row in report["results"]:
        assert row["top1"] == 0.75 and row["top5"] == 1 and row["images"] == 40
        assert row["top1_low"] < 0.75 < row["top1_high"] and 0 < row["calibration_error"] < 1
        assert sum(pair["count"] for pair in row["confused"]) == 10 and len(row["worst"]) == 10
    (difference,) = report["differences"]
    assert difference["difference"] == 0 and difference["low"] < 0 < difference["high"]


def test_evaluate_command_shows_accuracy_against_size_and_writes_a_page(
    data: Path, files: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    page = tmp_path / "sizes.html"
    command = ["evaluate", str(files["keras"]), str(data), "--size", "32", "48", "--out", str(page)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert re.search(r"nano\.keras at 32 px +32 +75\.0%", told) and re.search(r"at 48 px +48 +\d", told)
    assert "on 40 photographs of" in told and re.search(r"less .*95 % interval", told)
    assert "Top-1 by the size of the pictures" in page.read_text() or page.read_text().count("<svg") == 5
    assert main(command) == 2 and "--force" in capsys.readouterr().err


def test_evaluate_command_builds_a_variant_for_each_size(
    data: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the crop of its weights at that size, which building decides."""
    built = []

    def build(_: Choice, arguments: Any, *, input_shape: tuple[int, int, int]) -> Any:
        del arguments
        built.append(input_shape[0])
        return build_nano(input_shape=input_shape)

    monkeypatch.setattr(Choice, "model", build)
    sizes = ["--size", "32", "40", "--json", "--quiet"]
    assert main(["evaluate", "lite0", str(data), "--weights", "none", *sizes]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [(row["file"], row["size"], row["images"]) for row in rows] == [
        ("lite0 at 32 px", 32, 40),
        ("lite0 at 40 px", 40, 40),
    ]
    assert built == [32, 40]


def test_logits_are_judged_as_probabilities(nano: Any, data: Path) -> None:
    import keras

    logits = keras.layers.Dense(3, name="logits")(nano.get_layer("avg_pool").output)
    bare = keras.Model(nano.input, logits, name="bare")
    bare.get_layer("logits").set_weights(nano.get_layer("predictions").get_weights())
    found, wanted = keras_effnet.evaluate(bare, data), keras_effnet.evaluate(nano, data)
    np.testing.assert_allclose(
        found.results[0].judged.confidences, wanted.results[0].judged.confidences, atol=1e-5
    )


def test_evaluate_refuses_what_gives_no_class_and_classes_that_it_lacks(
    nano: Any, data: Path, tmp_path: Path
) -> None:
    import keras

    pooled = keras.Model(nano.input, nano.get_layer("avg_pool").output)
    with pytest.raises(InvalidInputError, match="gives an embedding"):
        keras_effnet.evaluate(pooled, data)
    with pytest.raises(
        InvalidInputError, match=r"classes that 'nano' knows \(3: class 0.*Received also: cat"
    ):
        (tmp_path / "cat").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "a.png")
        keras_effnet.evaluate(nano, tmp_path)
    with pytest.raises(InvalidInputError, match="Expected 3 class names"):
        keras_effnet.evaluate(nano, data, labels=["cat", "dog"])
    (tmp_path / "dog").mkdir()
    with pytest.raises(InvalidInputError, match=r"photographs in every class folder.*dog"):
        keras_effnet.evaluate(nano, tmp_path)


@pytest.mark.parametrize("content", [b"no model", None])
def test_evaluate_says_what_is_wrong_with_a_file_in_one_line(
    content: bytes | None, data: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.keras"
    if content is not None:
        broken.write_bytes(content)
    with pytest.raises(InvalidInputError) as caught:
        keras_effnet.evaluate(str(broken), data)
    message = str(caught.value)
    assert "broken.keras" in message and message.count("\n") == 0
    assert message.startswith("Expected a Keras model in" if content else "Expected an artefact at")


def test_evaluate_says_why_no_picture_can_be_read(nano: Any, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "a.png").write_bytes(b"no picture")
    with pytest.raises(InvalidInputError, match=r"a\.png"):
        keras_effnet.evaluate(nano, tmp_path)


def test_network_at_another_size_answers_as_one_that_takes_any() -> None:
    fixed, free = build_nano(), build_nano(input_shape=(None, None, 3))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    copy = at_size(fixed, 48)
    assert copy.input_shape == (None, 48, 48, 3) and at_size(fixed, 32) is fixed
    np.testing.assert_allclose(copy(pictures), free(pictures), atol=1e-6)


def test_paddings_that_depend_on_the_size_are_refused() -> None:
    import keras

    image = keras.Input((32, 32, 3))
    x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name="stem_conv_pad")(image)
    x = keras.layers.Conv2D(2, 3, strides=2)(x)
    padded = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    assert at_size(padded, 64).input_shape[1] == 64
    with pytest.raises(InvalidInputError, match=r"paddings of .* are right\. Received: 33"):
        at_size(padded, 33)
    flat = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image)))
    with pytest.raises(InvalidInputError, match="whose layers depend on it"):
        at_size(flat, 64)


def test_classes_are_matched_by_name_wordnet_id_or_number() -> None:
    labels = imagenet_labels()
    assert places_of(["n01443537", "n01440764"], labels, "x").tolist() == [1, 0]
    assert places_of(["goldfish", "TENCH"], labels, "x").tolist() == [1, 0]
    assert places_of(["Carassius auratus", "tinca_tinca"], labels, "x").tolist() == [1, 0]  # synonyms
    assert places_of(["1", "000"], labels, "x").tolist() == [1, 0]
    assert places_of(imagenet_wnids(), tuple(f"class {index}" for index in range(1000)), "x")[-1] == 999
    assert places_of(["2", "1"], ("2", "1"), "x").tolist() == [0, 1]  # names come before numbers


def test_classes_that_mean_the_same_or_nothing_are_one_line() -> None:
    with pytest.raises(InvalidInputError, match=r"'Cat' and 'cat', which are both 'cat'"):
        places_of(["Cat", "cat"], ("cat", "dog"), "x")
    with pytest.raises(InvalidInputError, match="Received also: crane"):
        places_of(["crane", "goldfish"], imagenet_labels(), "x")  # a bird, and a machine
    with pytest.raises(InvalidInputError, match="Received also: 3"):
        places_of(["1", "2", "3"], ("a", "b", "c"), "x")


def test_labelled_photographs_need_no_list_of_their_own(shared: Path) -> None:
    from keras_effnet.pictures.listing import read_judged

    listing = read_judged(shared / "photos")
    places = places_of(listing.classes, imagenet_labels(), "x")
    numbers = [int(name.split("_")[0]) for name in listing.files]
    assert places[listing.labels].tolist() == numbers
