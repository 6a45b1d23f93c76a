"""Two processes on loopback against one; and what keeps people from starting them wrongly."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from material import ROOT
from PIL import Image

from keras_effnet.errors import InvalidInputError
from keras_effnet.system.devices import Share, join, strategy_scope

TRAIN = """
import sys
from keras_effnet.pretrain import examples
from keras_effnet.system import devices as hosts
from keras_effnet.pretrain import pretrain
from keras_effnet.pretrain.recipe import Recipe
from material import slim_variant

data, out, index, count, address = sys.argv[1:]
share = hosts.join(address, int(count), int(index))
recipe = Recipe(epochs=2, batch_size=8, learning_rate=0.05, warmup_epochs=0, ema=0.5, augment_ops=0)
found = examples.from_folders(data)
pretrain(slim_variant(1), found, found, out=out, recipe=recipe, share=share, verbose=0)
if share.count == 1:  # the process is there, and JAX with it
    import keras
    import numpy as np
    from keras_effnet.pretrain import batches as feeding

    plain, strong = (
        np.asarray(next(iter(feeding.training_batches(found, Recipe(batch_size=4, augment=name), 32)))[0])
        for name in ("none", "randaugment")
    )
    print(keras.backend.backend(), np.abs(plain - strong).mean() > 5, strong.min() >= 0, strong.max() <= 255)
"""

WAIT = """
import sys, time
from pathlib import Path
from keras_effnet.system import devices as hosts

out, index, count, address = sys.argv[1:]
hosts.join(address, int(count), int(index))
(Path(out) / index).touch()
time.sleep(600)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, generator = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for label in ("dark", "light"):
        (root / label).mkdir()
        for index in range(8):
            pixels = generator.integers(0, 156, (40, 40, 3)) + (100 if label == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{index}.png")
    return root


def _start(code: str, arguments: list[Path], count: int) -> list[subprocess.Popen[str]]:
    """So many processes, which get the arguments, their index, their count and the address of the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    more = {
        "KERAS_BACKEND": "jax",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # so few steps take less than compiling them
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(ROOT / "tests"),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments), str(index), str(count), address],
            env=os.environ | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def _curve(out: Path) -> list[dict[str, float]]:
    with (out / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def trained(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The runs of one process and of two, in folders `1` and `2`, and what the one said."""
    pytest.importorskip("jax")
    out = tmp_path_factory.mktemp("runs")
    processes = [process for count in (1, 2) for process in _start(TRAIN, [folders, out / str(count)], count)]
    said = []
    for process in processes:
        text, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors[-3000:]
        said.append(text)
    return out, said[0]


def test_two_processes_have_the_loss_curve_and_the_weights_of_one(trained: tuple[Path, str]) -> None:
    out, _ = trained
    one, two = (_curve(out / str(count)) for count in (1, 2))
    np.testing.assert_allclose([row["loss"] for row in two], [row["loss"] for row in one], rtol=2e-3)
    assert one[0]["loss"] != pytest.approx(
        one[1]["loss"], rel=2e-3
    )  # a curve that a constant would not match
    assert sorted(path.name for path in (out / "2").iterdir()) == [
        "history.csv",
        "labels.txt",
        "model.keras",
        "recipe.json",
    ]
    assert np.isfinite([row["loss"] for row in one]).all()
    models = [keras.models.load_model(out / str(count) / "model.keras") for count in (1, 2)]
    scale = [np.abs(weight).max() for weight in models[0].get_weights()]
    for left, right, largest in zip(models[0].get_weights(), models[1].get_weights(), scale, strict=True):
        np.testing.assert_allclose(left, right, atol=0.02 * largest + 1e-6)


def test_terminating_processes_ends_them(tmp_path: Path) -> None:
    """JAX would swallow SIGTERM for its preemption service, once processes have joined."""
    pytest.importorskip("jax")
    processes = _start(WAIT, [tmp_path], 2)
    try:
        deadline = time.monotonic() + 200
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            assert all(process.poll() is None for process in processes)
            time.sleep(0.2)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.communicate(timeout=30)
            assert process.returncode != 0
    finally:
        for process in processes:
            process.kill()


def test_randaugment_feeds_a_model_on_jax(trained: tuple[Path, str]) -> None:
    _, said = trained
    assert said.split()[-4:] == ["jax", "True", "True", "True"]


def test_share_divides_batches_evenly_or_not_at_all() -> None:
    assert Share(index=1, count=4).local_batch(32) == 8
    assert Share().writes and not Share(index=1, count=2).writes
    with pytest.raises(InvalidInputError, match="Choose a multiple of 3"):
        Share(count=3).local_batch(32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Share(index=2, count=2), "process id between 0 and 1 for 2 processes. Received: 2"),
        (lambda: Share(count=0), "for 0 processes"),
        (lambda: join("10.0.0.1", 2, 0), r"host:port of process 0. Received: '10.0.0.1'"),
        (lambda: join("10.0.0.1:99999", 2, 0), "host:port"),
        (lambda: join("10.0.0.1:1234", 2, 0), "Set KERAS_BACKEND=jax"),
        (lambda: strategy_scope("multi"), "Expected strategy to be one of none, mirrored"),
    ],
)
def test_wrong_use_is_told_in_one_sentence(call: Any, message: str) -> None:
    assert keras.backend.backend() == "tensorflow"
    with pytest.raises(InvalidInputError, match=message):
        call()
