"""What all commands share: mistakes told at once, help with examples, versions, completion, backends."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import assert_refused
from PIL import Image

from keras_effnet.cli import COMMANDS, main, parser
from keras_effnet.commands.bundle import KINDS as BUNDLES
from keras_effnet.pictures.labels import labels_layer_name

# every kind of mistake in the arguments of every command, and what is said
MISTAKES = [
    ("predict nosuch.jpg", "no such file"),
    ("predict text.jpg", "It cannot be decoded"),
    ("predict EMPTY", "which holds none"),
    ("predict x.png --model lite9", "Did you mean 'lite4'"),
    ("predict x.png --model nosuch.tflite", "'nosuch.tflite', which does not exist"),
    ("predict x.png --model EMPTY", "neither saved_model.pb nor a trained model.keras"),
    ("predict x.png --model weights.h5", "weights alone"),
    ("predict x.png --model lambda.keras", "a Lambda layer"),
    ("predict x.png --model lambda.h5", "a Lambda layer"),
    ("predict x.png --model unfinished", "no model.keras yet"),
    ("predict x.png --model text.jpg", "which is none of these"),
    ("predict x.png --weights imagnet", "Did you mean 'imagenet'"),
    ("predict x.png --weights nosuch.h5", "no such file"),
    ("predict x.png --weights noisy-student", "published set of weights of lite0"),
    ("predict x.png --preprocessing unitt", "Did you mean 'unit'"),
    (
        "predict x.png --preprocessing unit",
        "Expected preprocessing='lite' for the 'imagenet' weights of lite0",
    ),
    ("predict x.png --model model.onnx --preprocessing unit", "Expected --preprocessing with a variant only"),
    ("predict x.png --labels nosuch.txt", "class names in 'nosuch.txt'"),
    ("predict x.png --out x.xlsx", ".csv, .jsonl or .parquet"),
    ("predict x.png --all", "--out FILE or --json"),
    ("predict there.csv", "Expected the column file in 'there.csv'"),
    ("predict x.png --out there.csv", "--force"),
    ("predict x.png --out x.png/a.csv", "Expected a folder to write 'a.csv' to"),
    ("evaluate lite0 nosuch", "'nosuch', which does not exist"),
    ("evaluate nosuch.tflite EMPTY", "'nosuch.tflite', which does not exist"),
    ("evaluate model.onnx EMPTY --size 32 64", "Export one file for each size"),
    ("evaluate model.onnx EMPTY --weights none", "Expected --weights with a variant only"),
    ("evaluate lite0 tfds:nosuch", "the data set 'nosuch' prepared in"),
    ("evaluate lite0 EMPTY --labels nosuch.txt", "class names in 'nosuch.txt'"),
    ("evaluate lite0 EMPTY --out x.pdf", "ends in .html"),
    ("evaluate lite0 EMPTY --out x.png/a.html", "Expected a folder to write 'a.html' to"),
    ("train tfds:nosuch --out OUT", "the data set 'nosuch' prepared in"),
    ("explain x.png --out x.png/a.png", "Expected a folder to write 'a.png' to"),
    ("convert imagenet x.png/a.safetensors --model lite0", "Expected a folder to write 'a.safetensors' to"),
    ("export b0 --out x.png/a", "Expected a folder to write "),
    ("train EMPTY --out x.png/a", "Expected a folder to write 'run.json' to"),
    ("pretrain EMPTY --out x.png/a", "Expected a folder to write 'recipe.json' to"),
    ("scale figures --out x.png/a", "Expected a folder to write "),
    ("scale search pictures --storage x.png/a", "a journal file in a folder that exists"),
    ("scale architecture pictures --storage x.png/a", "a journal file in a folder that exists"),
    ("predict x.png --out x.csv --top 1 --engine spark", "invalid choice: 'spark'"),
    ("bundle triton nosuch.onnx --out OUT", "'nosuch.onnx', which does not exist"),
    ("bundle triton text.jpg --out OUT", "Expected ONNX files for Triton"),
    ("bundle triton model.onnx --out EMPTY", "--force"),
    ("explain nosuch.jpg", "no such file"),
    ("explain x.png --model model.onnx", "Exported files have lost the layers"),
    ("explain x.png --weights imagnet", "Did you mean 'imagenet'"),
    ("explain x.png --labels nosuch.txt", "class names in 'nosuch.txt'"),
    (
        "explain x.png --class 'egyptian cab'",
        "a number 0–999. Received: 'egyptian cab'. Closest: Egyptian cat",
    ),
    ("explain x.png --labels two.txt --class 2", "a number 0–1. Received: '2'. The classes: a, b."),
    ("explain x.png --model named.keras --class tshirt", "Received: 'tshirt'. Closest: t-shirt, shirt."),
    ("convert nosuch.h5 x.h5", "ends in .weights.h5 or .safetensors"),
    ("convert nosuch.h5 x.weights.h5", "no such file"),
    ("convert imagenet x.weights.h5 --model b99", "Expected variant to be one of"),
    ("export lambda.keras --out OUT", "a Lambda layer"),
    ("export model.onnx --out OUT", "an ONNX file. Exported files have lost the layers"),
    ("export saved --out OUT", "a SavedModel. Exported files have lost the layers"),
    ("export weights.h5 --out OUT", "weights alone"),
    ("export b0 --out OUT --calibration bombs", "Received 12000 × 12000 pixels, more than the limit"),
    ("export b0 --weights imagnet --out OUT", "Did you mean 'imagenet'"),
    ("export b0 --out OUT --labels nosuch.txt", "class names in 'nosuch.txt'"),
    ("verify nosuch.onnx", "which does not exist"),
    ("verify lite0", "the name of a variant. Export it first: keras-effnet export lite0"),
    ("verify model.onnx --model saved", "a SavedModel"),
    ("verify model.onnx --images EMPTY", "which holds none"),
    ("verify model.onnx --images bombs", "Received 12000 × 12000 pixels, more than the limit"),
    ("verify model.onnx --weights imagnet", "Did you mean 'imagenet'"),
    ("verify model.onnx --weights nosuch.h5", "no such file"),
    ("benchmark nosuch.onnx", "which does not exist"),
    ("benchmark weights.h5", "weights alone"),
    ("cost nosuch.keras", "which does not exist"),
    ("cost saved", "a SavedModel. Exported files have lost the layers"),
    ("cost EMPTY", "a folder with neither saved_model.pb nor a trained model.keras"),
    ("cost unfinished", "no model.keras yet"),
    ("cost b99", "Expected the network to be one of"),
    ("scale fit", "--max-macs"),
    ("scale fit --max-macs 1G --baseline b99", "Expected"),
    ("scale fit --max-macs many", "800M"),
    ("scale search nosuch", "Expected a folder with train/"),
    ("scale search EMPTY", "without train/"),
    ("scale search pictures --baseline b99", "Expected baseline to be one of"),
    ("scale architecture EMPTY", "without train/"),
    ("train nosuch --out OUT", "nosuch"),
    ("train EMPTY --out pictures", "which holds something else"),
    ("train EMPTY --out OUT --resume", "Expected"),
    ("train EMPTY --out OUT --weights imagnet", "Did you mean 'imagenet'"),
    ("train EMPTY --out OUT --weights nosuch.h5", "no such file"),
    ("train EMPTY --out OUT --augment wild", "Expected augment to be one of"),
    ("train EMPTY --out OUT --unfreeze block9", "Expected unfreeze to be one of"),
    ("train EMPTY --out OUT --label-smoothing 2", "Expected label_smoothing"),
    ("train EMPTY --out OUT --export tflite:int4", "Did you mean 'tflite:int8'"),
    ("train EMPTY --out OUT --model lite0.keras", "which does not exist"),
    ("pretrain nosuch --out OUT", "nosuch"),
    ("pretrain EMPTY --out OUT --model b99", "Expected variant to be one of"),
    ("pretrain EMPTY --out OUT --epochs 0", "Expected epochs above 0"),
    ("pretrain EMPTY --out OUT --ema 1", "Expected ema in [0, 1)"),
    ("pretrain EMPTY --out pictures", "does not exist yet, or is empty"),
    ("pretrain nosuch-* --format tfrecords --out OUT", "Expected TFRecord files at 'nosuch-*'"),
    ("pretrain nosuch --format tfds --data-dir EMPTY --out OUT", "Expected the prepared data set 'nosuch'"),
    ("pretrain two --batch-size 3 --out OUT", "Expected at least 3 pictures, one batch. Received: 2"),
    ("pretrain x-* --format tfrecords --count 2 --batch-size 3 --out OUT", "Expected at least 3 pictures"),
    ("pretrain EMPTY --out OUT --model lambda.keras", "a Lambda layer"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small thing of each kind."""
    place = tmp_path_factory.mktemp("place")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(place / "x.png")
    (place / "text.jpg").write_text("no picture")
    (place / "there.csv").write_text("")
    (place / "x-0").write_bytes(b"")
    for name in ("two/a/1.png", "two/b/1.png", "bombs/x.png"):
        (place / name).parent.mkdir(parents=True)
        side = 12000 if "bombs" in name else 40
        Image.new("1", (side, side)).save(place / name)
    (place / "model.onnx").write_bytes(b"\x08\x07")
    for folder in ("EMPTY", "saved", "unfinished"):
        (place / folder).mkdir()
    for part in ("train", "validation"):
        (place / "pictures" / part).mkdir(parents=True)
    (place / "saved" / "saved_model.pb").write_bytes(b"")
    (place / "unfinished" / "run.json").write_text("{}")
    (place / "two.txt").write_text("a\nb\n")
    inputs = keras.Input((32, 32, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Lambda(lambda x: x / 255)(inputs))
    named = keras.layers.Identity(name=labels_layer_name(["dress", "t-shirt", "shirt"]))(inputs)
    keras.Model(inputs, named).save(place / "named.keras")
    model = keras.Model(inputs, outputs)
    model.save(place / "lambda.keras")
    model.save(place / "lambda.h5")
    plain = keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs))
    plain.save_weights(place / "plain.weights.h5")
    (place / "plain.weights.h5").rename(place / "weights.h5")
    return place


def test_mistakes_in_arguments_are_told_before_tensorflow_is_loaded(place: Path) -> None:
    code = """
import contextlib, io, json, shlex, sys
from keras_effnet.cli import main
for command in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            code = main(shlex.split(command))
        except SystemExit as stop:
            code = stop.code
    heavy = [name for name in ("tensorflow", "keras", "jax") if sys.modules.pop(name, None)]
    print(json.dumps([command, code, said.getvalue(), heavy]))
    if heavy:
        break
"""
    commands = json.dumps([command for command, _ in MISTAKES])
    ran = subprocess.run(
        [sys.executable, "-c", code, commands], capture_output=True, text=True, cwd=place, check=True
    )
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    for (command, message), (given, status, said, heavy) in zip(MISTAKES, answers, strict=False):
        assert command == given and (status, heavy) == (2, []), (command, said)
        assert message in said and said.count("\n") == 1, (command, said)
    assert len(answers) == len(MISTAKES)
    assert not (place / "OUT").exists()


def test_command_without_arguments_shows_its_help(capsys: Any) -> None:
    for command in ([], ["scale"]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        out, error = capsys.readouterr()
        assert stop.value.code == 0 and not error
        assert out.startswith(f"usage: {' '.join(['keras-effnet', *command])} ")


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.NAME)
def test_help_has_examples_that_parse(module: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main([module.NAME, "--help"])
    shown = capsys.readouterr().out
    lines = [line.split(" | ")[0].strip() for line in module.EXAMPLES.splitlines() if line.startswith("  ")]
    assert lines
    for line in lines:
        assert line in shown
        program, *arguments = shlex.split(line, comments=True)
        assert program == "keras-effnet"
        assert parser().parse_args(arguments).command in {command.NAME for command in COMMANDS}


ACTIONS = [("scale", name) for name in ("tables", "at", "fit", "search", "architecture", "figures")]
ACTIONS += [("bundle", name) for name in BUNDLES]


@pytest.mark.parametrize(("command", "action"), ACTIONS)
def test_help_of_each_action_describes_it_and_has_examples_that_parse(
    command: str, action: str, capsys: Any
) -> None:
    with pytest.raises(SystemExit):
        main([command, action, "--help"])
    described, _, examples = capsys.readouterr().out.partition("examples:\n")
    lines = examples.splitlines()
    assert lines
    for line in lines:
        assert shlex.split(line, comments=True)[:3] == ["keras-effnet", command, action]
        parser().parse_args(shlex.split(line, comments=True)[1:])
    before, _, options = described.partition("\noptions:\n")
    assert before.split("\n\n")[1].strip()  # below the usage
    for option in options.strip().split("\n  -"):
        assert len(re.split(r"\s{2,}|\n", option.strip())) > 1, option  # no help


def test_version_names_the_package_and_its_libraries() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "keras_effnet", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith(f"keras-effnet 0.1.0 (keras {keras.__version__}, tensorflow 2.")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_script_knows_commands_and_options(shell: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", shell])
    script = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(word in script for word in ("predict", "--calibration", "pretrain"))


@pytest.mark.parametrize("command", ["predict x.png", "explain x.png", "verify saved --model lite0"])
def test_backend_that_nothing_here_computes_with_is_refused_in_one_line(command: str, place: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "keras_effnet", *command.split()],
        capture_output=True,
        text=True,
        cwd=place,
        env=os.environ | {"KERAS_BACKEND": "torch"},
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr == (
        "keras-effnet: Expected Keras on tensorflow or jax. Received: the backend 'torch', of KERAS_BACKEND or "
        "keras.json. Set KERAS_BACKEND=tensorflow for this command.\n"
    )


def test_export_on_jax_is_refused_before_it_begins(place: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "keras_effnet", "export", "lite0", "--out", "OUT"],
        capture_output=True,
        text=True,
        cwd=place,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        check=False,
    )
    assert ran.returncode == 2 and "Expected Keras on tensorflow. Received: the backend 'jax'" in ran.stderr


def test_variant_is_not_a_folder_of_its_name(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save("x.png")
    Path("lite0").mkdir()
    for command in (["predict", "x.png"], ["explain", "x.png"], ["export", "--out", "OUT"], ["cost"]):
        model = ["lite0"] if command[0] in ("export", "cost") else ["--model", "lite0"]
        arguments = parser().parse_args([*command, *model])
        arguments.check(arguments)
    assert_refused(["predict", "x.png", "--model", "./lite0"], "'./lite0', a folder with neither", capsys)


def test_keras_file_whose_description_cannot_be_read_is_one_line(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("m.keras", "w") as archive:
        archive.writestr("config.json", "{")
    Path("m.h5").write_bytes(b"\x89HDF\r\n\x1a\n nothing more")
    for name in ("m.keras", "m.h5"):
        assert_refused(
            ["export", name, "--out", "OUT"], f"Keras model in '{name}'. It cannot be read", capsys
        )
