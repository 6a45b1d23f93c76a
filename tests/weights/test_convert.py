"""Conversion to `.weights.h5` and `.safetensors`, and what a later load knows without flags."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import keras_effnet
from keras_effnet.errors import InvalidInputError, WeightsError
from keras_effnet.weights.convert import TARGETS, convert
from keras_effnet.weights.readers import open_checkpoint
from tests.weights import foreign


@pytest.mark.parametrize("ending", TARGETS)
@pytest.mark.parametrize("kind", ["timm", "lukemelas", "torchvision", "safetensors", "tensorflow", "tar"])
def test_converted_weights_are_the_source_bit_for_bit(tmp_path: Path, kind: str, ending: str) -> None:
    layers = foreign.random_layers("lite0", classes=3)
    target = convert(foreign.write(tmp_path, "lite0", layers, kind), tmp_path / f"out{ending}")
    with open_checkpoint(target) as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)
        assert checkpoint.metadata["variant"] == "lite0"
        assert len(checkpoint.metadata["source_sha256"]) == 64


@pytest.mark.parametrize(("first", "second"), [TARGETS, TARGETS[::-1]])
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


@pytest.mark.parametrize("ending", TARGETS)
def test_later_load_of_torchvision_weights_asks_for_their_flags(tmp_path: Path, ending: str) -> None:
    source = foreign.write(tmp_path, "b0", foreign.random_layers("b0"), "torchvision")
    target = convert(source, tmp_path / f"b0{ending}")
    with open_checkpoint(target) as checkpoint:
        assert checkpoint.metadata["padding"] == "symmetric"
        assert checkpoint.metadata["epsilon"] == 1e-5
    with pytest.raises(InvalidInputError, match="padding='symmetric', epsilon=1e-05"):
        keras_effnet.EfficientNetB0(weights=target)


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
        convert(source, target)
    assert target.read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.pth", "target.safetensors"]


@pytest.mark.slow
def test_published_set_is_converted_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirror" / "tensorflow" / "randaug").mkdir(parents=True)
    layers = foreign.random_layers("b5")
    archive = foreign.write(tmp_path, "b5", layers, "tar")
    archive.rename(tmp_path / "mirror" / "tensorflow" / "randaug" / "efficientnet-b5-randaug.tar.gz")
    monkeypatch.setenv("KERAS_EFFNET_WEIGHTS_URL", (tmp_path / "mirror").as_uri())
    monkeypatch.setenv("KERAS_EFFNET_CACHE", str(tmp_path / "cache"))
    target = convert("randaugment", tmp_path / "b5.safetensors", variant="b5")
    with open_checkpoint(target) as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)
        known = {
            key: checkpoint.metadata[key] for key in ("variant", "weight_set", "preprocessing", "padding")
        }
    assert known == {
        "variant": "b5",
        "weight_set": "randaugment",
        "preprocessing": "imagenet",
        "padding": "same",
    }
