"""A disk that is full while a run writes: one line, no half file. And what is kept can be gone on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_disk import full_disk

from keras_effnet.errors import EffNetError, ExportError, InvalidInputError
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import read_listing
from keras_effnet.system.files import shown, staged, system_said
from keras_effnet.train.batches import evaluation_batches
from keras_effnet.train.checkpoints import EpochCheckpoint
from keras_effnet.train.head import cached_features
from keras_effnet.train.run import plain_errors

pytest.importorskip("tensorboard")
LIMIT = 3000  # bytes


def _compiled(rate: Any = 0.01) -> Any:
    """A thousand weights, 4 kB."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(10)])
    model.compile(keras.optimizers.Adam(rate), "mse")
    return model


def _fit(model: Any, epochs: int, *callbacks: Any) -> None:
    generator = np.random.default_rng(0)
    pair = generator.normal(size=(32, 100)), generator.normal(size=(32, 10))
    model.fit(*pair, validation_data=pair, epochs=epochs, batch_size=8, verbose=0, callbacks=callbacks)


def _features(folder: Path) -> None:
    backbone = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])

    def batches(chunk: Any) -> Any:
        pixels = np.zeros((len(chunk), 4, 4, 3), np.float32)
        return tf.data.Dataset.from_tensor_slices((pixels, chunk)).batch(8)

    cached_features(backbone.predict, 48, np.arange(40), batches, folder / "train.f32")


def _checkpoint(folder: Path) -> None:
    _fit(_compiled(), 1, EpochCheckpoint(folder, to_beat=9.0, patience=3))


def _log(folder: Path) -> None:
    # the writer buffers: with more than its ten events the first flush is within `fit`
    _fit(_compiled(), 30, keras.callbacks.TensorBoard(folder / "logs", write_graph=False))


@pytest.mark.parametrize(
    ("write", "name"),
    [(_features, "train.f32"), (_checkpoint, "epoch-001.weights.h5"), (_log, "events.out")],
    ids=["features", "checkpoint", "log"],
)
def test_full_disk_is_one_line_that_names_the_file(
    write: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError) as caught, full_disk(LIMIT), plain_errors():
        write(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"Expected to write '{tmp_path}") and name in message
    assert "The system said: File too large. Free some space" in message and "\n" not in message
    assert not list(tmp_path.rglob(".*")) and not list(tmp_path.glob("*.h5"))


def test_features_go_on_where_the_disk_was_full(tmp_path: Path) -> None:
    with pytest.raises(ExportError), full_disk(LIMIT):
        _features(tmp_path)
    _features(tmp_path)
    assert (tmp_path / "train.f32").stat().st_size == 40 * 4 * 4 * 3 * 4


def test_error_of_a_library_becomes_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"said: No space left on device\. Free"), staged(tmp_path / "x"):
        raise OSError(28, "file write failed: time = now\n, filename = 'x'")
    assert system_said(OSError("two\nlines")) == "two lines"


def test_photograph_that_is_gone_by_now_is_one_line(tmp_path: Path) -> None:
    rows = "".join(f"{name}.png,{name},train\n" for name in "ab")
    (tmp_path / "list.csv").write_text(f"file,label,split\n{rows}")
    listing = read_listing(tmp_path / "list.csv")
    batches = evaluation_batches(listing, np.arange(2), 32, Framing(), batch_size=1)
    with pytest.raises(InvalidInputError) as caught, plain_errors():
        next(iter(batches))
    message = str(caught.value)
    assert message.startswith(f"Expected a picture at '{tmp_path / 'a.png'}'. Received: no such file.")
    assert message.endswith(" It could be read when the run began; put it back and resume.")
    assert "\n" not in message


def test_other_errors_of_tensorflow_stay_what_they_are() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError) as caught, plain_errors():
        tf.debugging.assert_equal(1, 2)
    assert not isinstance(caught.value, EffNetError)


def test_name_that_is_not_utf8_is_shown() -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert shown(name) == "caf\N{REPLACEMENT CHARACTER}.png"
    assert shown("café.png") == "café.png"


def test_checkpoint_restores_weights_moments_steps_and_rate(tmp_path: Path) -> None:
    """What a resumed run starts with is what the killed one had, number by number."""
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 20)
    first = _compiled(schedule)
    _fit(first, 2, EpochCheckpoint(tmp_path, to_beat=9.0, patience=9))
    checkpoint = EpochCheckpoint(tmp_path, to_beat=9.0, patience=9)
    assert checkpoint.epoch == 2 and len(checkpoint.history["loss"]) == 2
    again = _compiled(schedule)
    checkpoint.restore(again)
    assert int(again.optimizer.iterations) == 8  # two epochs of four steps
    assert float(again.optimizer.learning_rate) == float(first.optimizer.learning_rate) != 0.01
    moments = [variable for variable in first.optimizer.variables if "kernel" in variable.path]
    assert len(moments) == 2 and all(np.abs(np.asarray(moment)).max() > 0 for moment in moments)
    for old, new in zip(first.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old, new, err_msg=old.path)
    for old, new in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    _fit(first, 1)
    _fit(again, 1)
    np.testing.assert_allclose(first.get_weights()[0], again.get_weights()[0], rtol=1e-5)
