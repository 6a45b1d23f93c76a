"""What commands make of --model, --weights and --out: any classifier, and nothing ignored."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest
from material import assert_refused, randomize

from keras_effnet import EfficientNet
from keras_effnet.cli import main, parser
from keras_effnet.commands.models import classes_in, load_keras
from keras_effnet.errors import InvalidInputError
from keras_effnet.export import load
from keras_effnet.network.conventions import get_convention
from keras_effnet.network.variants import VARIANTS
from keras_effnet.pictures.folders import sample_paths
from keras_effnet.pictures.framing import Framing, framing_of
from keras_effnet.pictures.labels import imagenet_labels, known_labels
from keras_effnet.weights import catalog, sources
from keras_effnet.weights.convert import convert
from keras_effnet.weights.facts import built_with
from tests.weights import foreign

CUP = str(next(path for path in sample_paths() if path.name == "cup.jpg"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Lite0 of ten classes at 64 px: `ten.keras` and its weights alone."""
    folder = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(3)
    model = EfficientNet("lite0", weights=None, classes=10, input_shape=(64, 64, 3))
    randomize(model)
    model.save(folder / "ten.keras")
    convert(folder / "ten.keras", folder / "ten.weights.h5")
    convert(folder / "ten.keras", folder / "ten.safetensors")
    return folder


@pytest.mark.parametrize("name", ["ten.keras", "ten.weights.h5", "ten.safetensors"])
def test_number_of_classes_is_read_from_the_file(name: str, folder: Path) -> None:
    assert classes_in(str(folder / name)) == 10


@pytest.mark.parametrize("weights", [None, "imagenet", "absent.h5"])
def test_number_of_classes_is_imagenets_where_no_file_tells(weights: str | None) -> None:
    assert classes_in(weights) == 1000


def test_verify_builds_the_model_at_the_size_and_with_the_classes_of_the_artefact(
    folder: Path, capsys: Any
) -> None:
    weights = str(folder / "ten.weights.h5")
    command = ["verify", str(folder / "ten.keras"), "--model", "lite0", "--weights", weights, "--json"]
    assert main(command) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["ok"] and report["max_abs_error"] < 1e-5


def test_predict_takes_a_weight_file_of_other_classes(folder: Path, capsys: Any) -> None:
    weights = str(folder / "ten.safetensors")
    assert main(["predict", CUP, "--model", "lite0", "--weights", weights, "--top", "10", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert sorted(guess["label"] for guess in result["predictions"]) == [f"class {i}" for i in range(10)]


def test_commands_take_the_preprocessing_that_a_weight_file_leaves_open(tmp_path: Path, capsys: Any) -> None:
    own = EfficientNet("lite0", weights=None, classes=3, input_shape=(32, 32, 3), preprocessing=(0.4, 0.2))
    weights = str(tmp_path / "own.weights.h5")
    own.save_weights(weights)
    assert_refused(["predict", CUP, "--weights", weights], "(--preprocessing on the command line)", capsys)
    commands = (["predict", CUP], ["explain", CUP, "--out", "x.png"], ["export", "lite0", "--out", "x"])
    for command in commands:
        arguments = parser().parse_args([*command, "--weights", weights, "--preprocessing", "0.4,0.2"])
        arguments.check(arguments)
    (choice,) = arguments.choices
    assert built_with(choice.model(arguments))["preprocessing"].same_as(get_convention((0.4, 0.2)))


@pytest.mark.parametrize(
    ("size", "side", "framing"),
    [
        ([], 32, Framing("bicubic", 8)),
        (["--size", "64"], 64, Framing("bicubic", 0)),
    ],
)
def test_published_set_brings_the_size_crop_and_padding_that_it_was_judged_with(
    size: list[str], side: int, framing: Framing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = foreign.write(tmp_path, "lite0", foreign.random_layers("lite0"), "timm")
    source = catalog.Source(format="pytorch", address="x", file=written.name)
    entry = replace(
        sources.find_set("timm", VARIANTS["lite0"]),
        resolution=32,
        crop=0.8,
        larger=catalog.PublishedAccuracy(resolution=64, crop=1.0, top1=76.0),
        sources=(source,),
    )
    monkeypatch.setattr(sources, "sets_of", lambda variant: (entry,))
    monkeypatch.setenv(sources.CACHE_VARIABLE, str(tmp_path))
    arguments = parser().parse_args(["predict", CUP, "--model", "lite0", "--weights", "timm", *size])
    arguments.check(arguments)
    model = arguments.choice.model(arguments)
    assert model.input_shape == (None, side, side, 3) and framing_of(model) == framing
    made = built_with(model)
    assert (made["padding"], made["epsilon"]) == ("symmetric", 1e-5)
    assert made["preprocessing"].same_as(get_convention("imagenet"))
    assert known_labels(model) == imagenet_labels()


def test_export_takes_a_keras_file_and_says_what_it_does_in_a_log(tmp_path: Path, capsys: Any) -> None:
    inputs = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    keras.Model(inputs, keras.layers.Dense(3)(x)).save(tmp_path / "mine.keras")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    command = ["export", str(tmp_path / "mine.keras"), "--to", "saved_model", "--no-html", "--size", "32"]
    out = tmp_path / "out"
    assert main([*command, "--labels", str(tmp_path / "names.txt"), "--out", str(out)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "[1/4] mine: building",
        "[2/4] mine → saved_model",
        "[3/4] mine: verifying",
        "[4/4] mine: timing",
    ]
    (row,) = json.loads((out / "report.json").read_text(encoding="utf-8"))["artifacts"]
    assert row["file"] == "mine_saved_model" and row["model"] == "mine" and row["ok"]
    runner = load(out / "mine_saved_model")
    assert (runner.size, runner.labels) == ((32, 32), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["predict", CUP, "--model", "ten.keras", "--weights", "nonsense"], "'ten.keras' has its own"),
        (["predict", CUP, "--model", "ten.keras", "--weights", "imagenet"], "Received: --weights imagenet"),
        (["explain", CUP, "--model", "ten.keras", "--weights", "none"], "'ten.keras' has its own"),
        (["verify", "ten.keras", "--model", "ten.keras", "--weights", "none"], "'ten.keras' has its own"),
        (["verify", "ten.keras", "--model", "absent.keras"], "'absent.keras', which does not exist"),
        (["export", "ten.keras", "--weights", "none", "--out", "OUT"], "'ten.keras' has its own"),
        (["export", "absent.keras", "--out", "OUT"], "'absent.keras', which does not exist"),
        (["export", "absent", "--out", "OUT"], "'absent'. No file or folder here is called so either"),
        (["export", "b0", "sub/b0.keras", "--out", "OUT"], "2 models called 'b0'"),
        (["export", "b0.keras", "--to", "saved_model", "--out", "OUT"], "It cannot be read"),
        (
            ["export", "open.keras", "--to", "saved_model", "--out", "OUT", "--quiet"],
            "Expected --size N for 'open.keras'",
        ),
        (["export", "lite0", "--out", ""], "--out: expected a folder, received an empty name"),
        (["export", "lite0", "--out", " "], "--out: expected a folder, received an empty name"),
        (["train", "DATA", "--out", ""], "--out: expected a folder, received an empty name"),
        (["pretrain", "DATA", "--out", ""], "--out: expected a folder, received an empty name"),
        (["scale", "figures", "--out", ""], "--out: expected a folder, received an empty name"),
    ],
    ids=lambda value: " ".join(value).replace(CUP, "CUP") if isinstance(value, list) else "",
)
def test_wrong_use_ends_with_two_and_one_line(
    command: list[str],
    message: str,
    folder: Path,
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "ten.keras", "ten.keras")
    Path("b0.keras").write_bytes(b"PK nothing")
    Path("sub").mkdir()
    shutil.copy(folder / "ten.keras", "sub/b0.keras")
    if "open.keras" in command:
        inputs = keras.Input((None, None, 3))
        keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)).save("open.keras")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert_refused(command, message, capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("damage", ["text", "cut off", "emptied config", "no weights"])
def test_damaged_keras_file_is_one_clear_error(damage: str, tmp_path: Path) -> None:
    inputs = keras.Input((32, 32, 3))
    path = tmp_path / "mine.keras"
    keras.Model(inputs, keras.layers.Dense(3)(inputs)).save(path)
    with zipfile.ZipFile(path) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    if damage == "text":
        path.write_text("not a zip")
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        with zipfile.ZipFile(path, "w") as rewritten:
            for name, content in parts.items():
                if not (damage == "no weights" and name.endswith(".h5")):
                    emptied = damage == "emptied config" and name == "config.json"
                    rewritten.writestr(name, b"{}" if emptied else content)
    with pytest.raises(InvalidInputError, match=r"Expected a Keras model in .*It cannot be read \("):
        load_keras(path)


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a network of two pictures."""
    first, second = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([first, second]))
    path = tmp_path_factory.mktemp("two") / "two.keras"
    keras.Model([first, second], keras.layers.Dense(3, activation="softmax")(x)).save(path)
    return path


@pytest.mark.parametrize(
    "command",
    [
        "predict PICTURE --model FILE",
        "export FILE --to tflite:float32 --out OUT --quiet",
        "explain PICTURE --model FILE --out OUT/x.png",
        "evaluate FILE FOLDER",
    ],
)
def test_network_of_several_inputs_is_told_in_one_line(
    command: str, two_inputs: Path, tmp_path: Path, capsys: Any
) -> None:
    for name in ("0", "1", "2"):
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(sample_paths()[0], tmp_path / "data" / name)
    words = {"PICTURE": sample_paths()[0], "FILE": two_inputs, "FOLDER": tmp_path / "data"}
    arguments = [str(words.get(word, word)).replace("OUT", str(tmp_path / "out")) for word in command.split()]
    assert_refused(arguments, "Expected a built model with one image input", capsys)
    assert not (tmp_path / "out").exists()
