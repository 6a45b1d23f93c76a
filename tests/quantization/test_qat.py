"""Quantization-aware training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from keras_effnet.errors import InvalidInputError
from keras_effnet.export.quantization import accuracy
from keras_effnet.export.quantization.layerwise import weight_scales_of
from keras_effnet.export.quantization.to_tflite import integer_tflite
from keras_effnet.export.quantization.trained import qat

pytest.importorskip("litert_quantizer")


def test_training_moves_weights_on_their_grids_and_keeps_scales(
    network: Any, calibration: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qat, "SPOILT", np.inf)
    labels = np.arange(len(calibration)) % 4
    training = qat.Training(steps=6, learning_rate=0.2)
    graph = qat.trained(network, calibration.astype(np.float32), labels, training)
    ranges, moved = network.quantized.ranges, []
    for step in network.quantized.graph.weighted:
        scales = weight_scales_of(step, ranges)
        assert np.allclose(weight_scales_of(graph[step.name], ranges), scales)
        steps = (graph[step.name].grouped() - step.grouped()) / scales[:, np.newaxis]
        assert np.allclose(steps, np.rint(steps), atol=1e-3)
        moved.append(np.abs(np.rint(steps)).max())
    assert max(moved) >= 1
    after = replace(network, quantized=replace(network.quantized, graph=graph))
    assert len(integer_tflite(after)) == len(integer_tflite(network))


def test_start_stays_when_training_does_harm(network: Any, calibration: Any) -> None:
    harmful = qat.Training(steps=3, learning_rate=20.0)
    with pytest.warns(
        UserWarning, match=r"cost \d+\.\d dB on the photographs.*Keeps the weights of recipe int8"
    ):
        graph = qat.trained(network, calibration.astype(np.float32), None, harmful)
    for step in network.quantized.graph.weighted:
        assert np.array_equal(graph[step.name].bias, step.bias)
        assert np.allclose(graph[step.name].kernel, step.kernel, rtol=1e-6)


def test_labels_are_rejected_when_some_are_missing(tiny_swish: Any, calibration: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"one label for each of 32 photographs. Received: 3"):
        qat.train(tiny_swish, calibration, [0, 1, 2])


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
    with pytest.raises(InvalidInputError, match=r"one output for training with labels.*2 outputs"):
        qat.train(two_ends, pixels32, np.zeros(16, int))
