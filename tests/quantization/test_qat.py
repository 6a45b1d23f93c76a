"""Quantization-aware training in a child process."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_effnet.errors import ExportError, InvalidInputError
from keras_effnet.export.quantization import accuracy
from keras_effnet.export.quantization.to_tflite import integer_tflite
from keras_effnet.export.quantization.trained import qat

pytest.importorskip("tensorflow_model_optimization")
pytest.importorskip("litert_quantizer")


def test_training_changes_weights_and_keeps_the_network(
    tiny_swish: Any, network: Any, calibration: Any, held_out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qat, "prepare", lambda *_, **__: network)  # as it would, of the same photographs
    labels = np.arange(len(calibration)) % 4
    short = qat.Training(steps=4, batch=4, learning_rate=1e-5)
    after = qat.train(tiny_swish, calibration, labels, training=short)
    goal = after.logits(held_out, integer=False)
    assert (
        accuracy.sqnr_db(goal, after.logits(held_out)) > accuracy.sqnr_db(goal, network.logits(held_out)) - 1
    )
    assert after.quantized.ranges == network.quantized.ranges
    assert len(integer_tflite(after)) == len(integer_tflite(network))


def test_labels_are_rejected_when_some_are_missing(tiny_swish: Any, calibration: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"one label for each of 32 photographs. Received: 3"):
        qat.train(tiny_swish, calibration, [0, 1, 2])


def test_killed_child_is_reported_and_leaves_nothing(
    network: Any, tiny_swish: Any, calibration: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(qat, "prepare", lambda *args, **options: network)

    def killed(command: Any, **options: Any) -> Any:
        assert list(tmp_path.iterdir()), "the pictures were handed over"
        return subprocess.CompletedProcess(command, -9)

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(ExportError, match="ended with code -9"):
        qat.train(tiny_swish, calibration)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def two_ends() -> Any:
    """Classes, and the map that they are made of, which the network reads on."""
    import keras
    from material import build_nano

    base = build_nano()
    return keras.Model(base.input, {"classes": base.output, "map": base.get_layer("stem_activation").output})


def test_network_of_several_outputs_trains_all_of_them(two_ends: Any, pixels32: Any) -> None:
    trained = qat.train(two_ends, pixels32, training=qat.Training(steps=2, batch=4))
    goals, found = (trained.results(pixels32.astype(np.float32), integer=whole) for whole in (False, True))
    assert min(map(accuracy.sqnr_db, goals, found)) > 25
    assert b"map" in integer_tflite(trained)


def test_labels_are_refused_where_there_are_several_outputs(two_ends: Any, pixels32: Any) -> None:
    with pytest.raises(
        ExportError, match=r"one output for quantization-aware training with labels.*2 outputs"
    ):
        qat.train(two_ends, pixels32, np.zeros(16, int))
