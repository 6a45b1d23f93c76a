"""Conversion to `.weights.h5` and `.safetensors`, and what a later load knows without flags."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import assert_refused

import keras_effnet
from keras_effnet.cli import main
from keras_effnet.errors import InvalidInputError, WeightsError
from keras_effnet.weights.convert import ENDINGS, convert
from keras_effnet.weights.readers import open_checkpoint
from tests.weights import foreign


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["timm", "lukemelas", "torchvision", "safetensors", "tensorflow", "tar"])
def test_converted_weights_are_the_source_bit_for_bit(tmp_path: Path, kind: str, ending: str) -> None:
    layers = foreign.random_layers("lite0", classes=3)
    target = convert(foreign.write(tmp_path, "lite0", layers, kind), tmp_path / f"out{ending}")
    with open_checkpoint(target) as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)
        assert checkpoint.metadata["variant"] == "lite0"
        assert len(checkpoint.metadata["source_sha256"]) == 64


@pytest.mark.parametrize(("first", "second"), [ENDINGS, ENDINGS[::-1]])
def test_conversion_there_and_back_keeps_weights_and_metadata(
    tmp_path: Path, first: str, second: str
) -> None:
    layers = foreign.random_layers("b0")
    source = foreign.write(tmp_path, "b0", layers, "timm")
    there = convert(source, tmp_path / f"there{first}", preprocessing="advprop")
    back = convert(there, tmp_path / f"back{second}")
    with open_checkpoint(there) as a, open_checkpoint(back) as b:
        assert a.metadata == b.metadata
        assert b.metadata["preprocessing"] == "advprop"
        assert foreign.same_layers(layers, b.layers)


@pytest.mark.parametrize("ending", ENDINGS)
def test_converted_torchvision_weights_know_their_padding_and_epsilon(tmp_path: Path, ending: str) -> None:
    source = foreign.write(tmp_path, "b0", foreign.random_layers("b0"), "torchvision")
    target = convert(source, tmp_path / f"b0{ending}")
    with open_checkpoint(target) as checkpoint:
        assert checkpoint.metadata["padding"] == "symmetric"
        assert checkpoint.metadata["epsilon"] == 1e-5
    with pytest.raises(InvalidInputError, match="padding='symmetric', epsilon=1e-05"):
        keras_effnet.EfficientNetB0(weights=target, padding="same", epsilon=1e-3)


def test_converted_h5_loads_with_keras_itself(tmp_path: Path) -> None:
    layers = foreign.random_layers("lite0")
    target = convert(foreign.write(tmp_path, "lite0", layers, "timm"), tmp_path / "lite0.weights.h5")
    model = keras_effnet.EfficientNetLite0(weights=None)
    model.load_weights(str(target))
    assert np.array_equal(model.get_layer("top_conv").get_weights()[0], layers["top_conv"]["kernel"])


def test_converted_safetensors_opens_with_the_library_of_the_format(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    layers = foreign.random_layers("lite0")
    target = convert(foreign.write(tmp_path, "lite0", layers, "timm"), tmp_path / "lite0.safetensors")
    with safetensors.safe_open(str(target), framework="numpy") as file:
        assert json.loads(file.metadata()["keras_effnet"])["variant"] == "lite0"
        assert np.array_equal(file.get_tensor("top_conv.kernel"), layers["top_conv"]["kernel"])


def test_features_without_classifier_are_converted_without(tmp_path: Path) -> None:
    layers = foreign.random_layers("lite0", top=False)
    target = convert(foreign.write(tmp_path, "lite0", layers, "timm"), tmp_path / "features.safetensors")
    with open_checkpoint(target) as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)


def test_raw_variables_are_converted_on_request(tmp_path: Path) -> None:
    layers = foreign.random_layers("lite0", classes=3)
    source = foreign.write(tmp_path, "lite0", layers, "tensorflow")
    with open_checkpoint(convert(source, tmp_path / "raw.safetensors", ema=False)) as checkpoint:
        shifted = checkpoint.layers["top_conv"]["kernel"].read()
    assert np.array_equal(shifted, layers["top_conv"]["kernel"] + np.float32(1))


def test_tensorflow_checkpoint_is_converted_without_remarks_of_tensorflow(tmp_path: Path) -> None:
    source = foreign.write(tmp_path, "lite0", foreign.random_layers("lite0", top=False), "tensorflow")
    command = [sys.executable, "-m", "keras_effnet", "convert", str(source), str(tmp_path / "x.safetensors")]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
    assert (done.returncode, done.stderr) == (0, "")


def test_target_of_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"ends in \.weights\.h5 or \.safetensors"):
        convert(tmp_path / "a.pth", tmp_path / "b.onnx")


def test_contradicting_argument_is_refused_and_nothing_written(tmp_path: Path) -> None:
    source = foreign.write(tmp_path, "b0", foreign.random_layers("b0"), "torchvision")
    with pytest.raises(InvalidInputError, match="Build the model with padding='symmetric'"):
        convert(source, tmp_path / "b0.safetensors", padding="same")
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_damaged_source_leaves_an_older_target_alone(tmp_path: Path) -> None:
    target = tmp_path / "target.safetensors"
    target.write_text("older")
    source = tmp_path / "broken.pth"
    source.write_text("broken")
    with pytest.raises(WeightsError):
        convert(source, target, overwrite=True)
    assert target.read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.pth", "target.safetensors"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_command_replaces_an_existing_file_only_with_force_and_leaves_ordinary_permissions(
    tmp_path: Path, capsys: Any, ending: str
) -> None:
    source = foreign.write(tmp_path, "lite0", foreign.random_layers("lite0", classes=2), "timm")
    target = tmp_path / f"out{ending}"
    target.write_text("older")
    command = ["convert", str(source), str(target)]
    assert_refused(command, "which exists. Choose another name, or pass overwrite=True (--force)", capsys)
    assert target.read_text() == "older"
    assert main([*command, "--force"]) == 0
    (tmp_path / "ordinary").touch()
    assert target.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    with open_checkpoint(target) as checkpoint:
        assert checkpoint.metadata["variant"] == "lite0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["imagenet", "x.h5"], "Received: 'x.h5'. Rename it, for example to x.weights.h5 or x.safetensors."),
        (
            ["imagenet", "x.weights.h5"],
            "the published set 'imagenet'. Received: none. Pass for example --model b0",
        ),
        (["nosuch.h5", "x.weights.h5"], "Expected a weight file at 'nosuch.h5'. Received: no such file"),
        (["noisystudent", "x.weights.h5"], "Did you mean 'noisy-student'"),
        (["a.h5", "x.safetensors", "--model", "b9"], "Expected variant to be one of"),
        (["a.h5", "x.safetensors", "--preprocessing", "0.5,x"], "Expected preprocessing to be one of"),
    ],
)
def test_mistake_is_told_in_one_line_before_tensorflow_is_loaded(
    arguments: list[str], message: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras_effnet.system.quiet.import_keras", None)
    assert_refused(["convert", *arguments], message, capsys)


def test_missing_file_is_told_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom keras_effnet.cli import main\n"
        "assert main(['convert', 'nosuch.h5', 'x.weights.h5']) == 2\n"
        "print({'tensorflow', 'keras', 'h5py'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_command_takes_mean_and_standard_deviation(tmp_path: Path) -> None:
    source = foreign.write(tmp_path, "lite0", foreign.random_layers("lite0", classes=2), "timm")
    for text, expected in (
        ("0.5,0.25", [1 / 63.75]),
        ("0.4,0.5,0.6,0.1,0.2,0.3", [1 / 25.5, 1 / 51, 1 / 76.5]),
    ):
        command = [
            "convert",
            str(source),
            str(tmp_path / "out.safetensors"),
            "--preprocessing",
            text,
            "--force",
        ]
        assert main(command) == 0
        with open_checkpoint(tmp_path / "out.safetensors") as checkpoint:
            assert checkpoint.metadata["preprocessing"]["scale"] == pytest.approx(expected)


@pytest.mark.parametrize("value", [{"scale": [1e400], "offset": [0]}, {"scale": "x"}, ["unit"], "units", 5])
def test_metadata_with_an_impossible_preprocessing_is_refused(tmp_path: Path, value: object) -> None:
    layers = foreign.random_layers("lite0", classes=2)
    path = tmp_path / "odd.safetensors"
    flat = {f"{layer}.{key}": array for layer, w in layers.items() for key, array in w.items()}
    foreign.write_safetensors(path, flat, {"keras_effnet": json.dumps({"preprocessing": value})})
    with pytest.raises(
        WeightsError, match=r"in the metadata of a weight file\. Received for 'preprocessing'"
    ):
        keras_effnet.EfficientNetLite0(weights=path)


def test_published_set_is_converted_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirror" / "tensorflow" / "ckpts").mkdir(parents=True)
    layers = foreign.random_layers("b0")
    archive = foreign.write(tmp_path, "b0", layers, "tar")
    archive.rename(tmp_path / "mirror" / "tensorflow" / "ckpts" / "efficientnet-b0.tar.gz")
    monkeypatch.setenv("KERAS_EFFNET_WEIGHTS_URL", (tmp_path / "mirror").as_uri())
    monkeypatch.setenv("KERAS_EFFNET_CACHE", str(tmp_path / "cache"))
    target = convert("baseline", tmp_path / "b0.safetensors", variant="b0")
    with open_checkpoint(target) as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)
        known = {
            key: checkpoint.metadata[key] for key in ("variant", "weight_set", "preprocessing", "padding")
        }
    assert known == {
        "variant": "b0",
        "weight_set": "baseline",
        "preprocessing": "imagenet",
        "padding": "same",
    }
