"""Times of files whose input is open, oblong or gray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import pytest

from keras_effnet import export
from keras_effnet.cli import main
from keras_effnet.errors import InvalidInputError
from keras_effnet.system.stopwatch import medians


def network(*shape: int | None) -> Any:
    image = keras.Input(shape)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image)))


@pytest.mark.parametrize("target", ["tflite:float32", "saved_model"])
def test_latency_of_a_model_whose_size_is_open_asks_for_one_and_takes_it(target: str) -> None:
    model = network(None, None, 3)
    with pytest.raises(InvalidInputError, match=r"known input size.*Pass size="):
        export.latency(target, rounds=1)(model)
    assert export.latency(target, size=40, rounds=1)(model) > 0


def test_latency_of_an_oblong_gray_model_is_measured() -> None:
    assert export.latency("tflite:float32", rounds=1)(network(32, 48, 1)) > 0


def test_benchmark_of_a_file_whose_size_is_open_asks_for_one_and_takes_it(
    tmp_path: Path, capsys: Any
) -> None:
    path = tmp_path / "open.keras"
    network(None, None, 3).save(path)
    assert main(["benchmark", str(path), "--rounds", "1"]) == 2
    assert "which takes pictures of any. Received: none. Pass size= (--size)" in capsys.readouterr().err
    assert main(["benchmark", str(path), "--rounds", "1", "--size", "40", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["median_ms"] > 0


def test_benchmark_refuses_a_size_that_the_file_does_not_take(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "closed.keras"
    network(32, 48, 3).save(path)
    assert main(["benchmark", str(path), "--rounds", "1"]) == 0
    assert main(["benchmark", str(path), "--rounds", "1", "--size", "40"]) == 2
    assert "takes 32 × 48 pixels. Received: 40. Leave it out" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "turns"), [(float("inf"), 6), (0.0, 4)])
def test_timed_calls_take_turns_and_end_early_when_they_take_too_long(seconds: float, turns: int) -> None:
    made: list[str] = []
    found = medians(
        [lambda: made.append("a"), lambda: made.append("b")], rounds=5, warm_up=1, seconds=seconds
    )
    assert "".join(made) == "ab" * turns
    assert len(found) == 2 and all(0 <= each < 1 for each in found)
