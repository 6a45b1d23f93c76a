"""Paths that the system does not let us look at: a typed error of one line, and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from permissions import counting
from PIL import Image

from keras_effnet import load_image
from keras_effnet.cli import main
from keras_effnet.errors import EffNetError, InvalidInputError, WeightsError
from keras_effnet.export import load
from keras_effnet.export.pipeline import check_paths
from keras_effnet.network.variants import VARIANTS
from keras_effnet.pictures.folders import list_images
from keras_effnet.system.files import reachable, staged
from keras_effnet.weights.readers import open_checkpoint
from keras_effnet.weights.sources import plan_weights

LONG = "x" * 300  # no file system allows more than 255


def _open_weights(path: Path) -> None:
    with open_checkpoint(path):
        pass


def _stage(path: Path) -> None:
    with staged(path):
        pass


def _plan(path: Path) -> None:
    plan_weights(path, VARIANTS["lite0"])


def _check(path: Path) -> None:
    check_paths([path], overwrite=True)


def _load_image(path: Path) -> None:
    load_image(path, 32)


READERS: list[tuple[Callable[[Path], Any], type[EffNetError]]] = [
    (_load_image, InvalidInputError),
    (list_images, InvalidInputError),
    (load, InvalidInputError),
    (_open_weights, WeightsError),
    (_plan, WeightsError),
]
WRITERS: list[tuple[Callable[[Path], Any], type[EffNetError]]] = [
    (_stage, InvalidInputError),
    (_check, InvalidInputError),
]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("use", "kind"), READERS + WRITERS)
def test_name_too_long_is_one_line(
    use: Callable[[Path], Any], kind: type[EffNetError], tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        use(tmp_path / LONG)
    message = str(caught.value)
    assert message.startswith("Expected ") and "\n" not in message
    assert "The system said: File name too long. Check the path" in message


@pytest.mark.parametrize(("use", "kind"), READERS + WRITERS)
def test_path_in_a_closed_folder_is_one_line(
    use: Callable[[Path], Any], kind: type[EffNetError], tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with counting(closed), pytest.raises(kind) as caught:
        use(closed / "file.onnx")
    assert "The system said: Permission denied." in str(caught.value)


@pytest.mark.parametrize(("use", "kind"), [row for row in READERS if row[0] is not list_images])
@pytest.mark.parametrize("name", ["m.onnx", "m.weights.h5", "m.safetensors"])
def test_file_of_mode_zero_is_one_line(
    use: Callable[[Path], Any], kind: type[EffNetError], name: str, tmp_path: Path
) -> None:
    closed = tmp_path / name
    closed.write_bytes(b"content")
    closed.chmod(0)
    with counting(closed), pytest.raises(kind) as caught:
        use(closed)
    message = str(caught.value)
    assert repr(str(closed)) in message and "The system said: Permission denied." in message


@pytest.mark.parametrize("use", [list_images, _open_weights])
def test_folder_that_may_not_be_listed_is_not_taken_for_an_empty_one(
    use: Callable[[Path], Any], tmp_path: Path
) -> None:
    closed = tmp_path / "photos"
    closed.mkdir(mode=0o300)
    with counting(closed), pytest.raises(EffNetError, match=r"The system said: Permission denied\."):
        use(closed)


def test_folder_within_photographs_that_may_not_be_listed_is_told(picture: Path) -> None:
    closed = picture.parent / "more"
    closed.mkdir(mode=0)
    with counting(closed), pytest.raises(InvalidInputError, match="Permission denied"):
        list_images(picture.parent)
    assert list_images(picture.parent) == [picture]


def test_longest_name_that_the_system_allows_is_written(tmp_path: Path) -> None:
    """The name it is written under first must not be longer."""
    path = tmp_path / ("é" * 125 + ".onnx")  # 255 bytes
    for _ in range(2):  # the second one replaces a folder, which takes another name too
        with staged(path, overwrite=True) as temporary:
            temporary.mkdir()
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_pass_through_reachable(tmp_path: Path) -> None:
    with pytest.raises(KeyError), reachable(tmp_path, "a folder"):
        raise KeyError


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "IMAGE", "--model", LONG],
        ["predict", LONG, "--model", "FILE"],
        ["predict", "IMAGE", "--weights", LONG],
        ["export", "lite0", "--to", "saved_model", "--out", LONG],
        ["export", "lite0", "--to", "saved_model", "--out", "OUT", "--calibration", LONG],
        ["verify", LONG],
        ["cost", LONG],
        ["explain", "IMAGE", "--model", LONG],
        ["train", LONG, "--out", "OUT"],
    ],
    ids=lambda command: " ".join(word.replace(LONG, "LONG") for word in command),
)
def test_name_too_long_ends_a_command_with_two_and_one_line(
    command: list[str], picture: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((32, 32, 3))
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)).save("FILE.keras")
    places = {"IMAGE": str(picture), "FILE": "FILE.keras"}
    assert main([places.get(word, word) for word in command]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("keras-effnet: Expected ")
    assert not (tmp_path / "OUT").exists()


def test_command_without_a_better_word_names_the_file_and_what_the_system_said(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> int:
        raise PermissionError(13, "Permission denied", "secret.json")

    monkeypatch.setattr("keras_effnet.commands.list_variants.run", refuse)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == (
        "keras-effnet: Expected files and folders that can be read and written. Received: 'secret.json'. "
        "The system said: Permission denied. Check the path and its permissions.\n"
    )
