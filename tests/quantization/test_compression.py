"""Pruned and clustered integer files."""

from __future__ import annotations

import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_effnet.errors import ExportError, InvalidInputError
from keras_effnet.export.quantization import accuracy
from keras_effnet.export.quantization.prepare import prepare
from keras_effnet.export.quantization.to_tflite import integer_tflite
from keras_effnet.export.quantization.trained.compression import Compression, compress
from keras_effnet.export.quantization.weighted import Depthwise

pytest.importorskip("tensorflow_model_optimization")
pytest.importorskip("litert_quantizer")

SMALLEST = 1024  # the tiny network's kernels are small; six of them have more


@pytest.fixture(scope="module")
def compressed(tiny_swish: Any, calibration: Any) -> dict[str, Any]:
    # pruning takes eleven steps to choose its weights
    short, some = {"smallest": SMALLEST, "batch": 4}, calibration[:16]
    return {
        "plain": prepare(tiny_swish, some, equalize=0.0),
        "pruned": compress(tiny_swish, some, Compression(sparsity=0.3, steps=12, **short)),
        "clustered": compress(tiny_swish, some, Compression(clusters=8, steps=4, **short)),
    }


def kernels(network: Any) -> list[Any]:
    """Those that were large enough, without the stem's."""
    steps = [step for step in network.quantized.graph.weighted if not isinstance(step, Depthwise)][1:]
    return [step.kernel for step in steps if step.kernel.size >= SMALLEST]


def test_pruned_kernels_have_their_share_of_zeros(compressed: dict[str, Any]) -> None:
    found = [np.mean(kernel == 0) for kernel in kernels(compressed["pruned"])]
    assert len(found) >= 4 and min(found) >= 0.29
    assert max(np.mean(kernel == 0) for kernel in kernels(compressed["plain"])) < 0.2


def test_clustered_channels_have_few_weights(compressed: dict[str, Any]) -> None:
    for kernel in kernels(compressed["clustered"]):
        channels = kernel.reshape(-1, kernel.shape[-1]).T
        assert max(len(np.unique(channel)) for channel in channels) <= 8
        scaled = np.rint(channels / np.abs(channels).max(1, keepdims=True) * 127)
        plain_values = 255
        assert len(np.unique(scaled)) < plain_values / 4


@pytest.mark.parametrize("name", ["pruned", "clustered"])
def test_compressed_network_still_knows_its_classes_and_zips_smaller(
    name: str, compressed: dict[str, Any], held_out: Any
) -> None:
    network, plain = compressed[name], compressed["plain"]
    goal = plain.logits(held_out, integer=False)
    assert accuracy.sqnr_db(goal, network.logits(held_out)) > 3
    sizes = [len(zlib.compress(integer_tflite(each))) for each in (network, plain)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Expected either sparsity or clusters"),
        ({"sparsity": 0.5, "clusters": 16}, "Expected either sparsity or clusters"),
        ({"sparsity": 1.5}, "Expected sparsity between 0 and 1. Received: 1.5"),
        ({"clusters": 1}, "Expected clusters from 2 to 128. Received: 1"),
    ],
)
def test_impossible_compression_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Compression(**options)


def test_killed_child_is_reported_and_leaves_nothing(
    tiny_swish: Any, calibration: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def killed(command: Any, **options: Any) -> Any:
        assert list(tmp_path.iterdir()), "the pictures were handed over"
        return subprocess.CompletedProcess(command, -9)

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(ExportError, match="ended with code -9"):
        compress(tiny_swish, calibration, Compression(clusters=8, smallest=SMALLEST))
    assert not list(tmp_path.iterdir())
