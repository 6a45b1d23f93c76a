"""A disk that is full while an artefact is written: one line that names the place, and nothing left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
from full_disk import full_disk

from keras_effnet.errors import ExportError
from keras_effnet.export import to_saved_model, to_tflite
from keras_effnet.export.saved_model import save

LIMIT = 3000  # bytes


@pytest.fixture(scope="module")
def model() -> Any:
    """Some weights of 6 kB."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(500, 1)(inputs)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


def test_full_disk_while_writing_a_saved_model_is_one_line_and_leaves_nothing(
    model: Any, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "saved_model"
    with pytest.raises(ExportError) as caught, full_disk(LIMIT):
        to_saved_model(model, out)
    assert str(caught.value) == (
        f"Expected to write {str(out)!r}. The system said: File too large. "
        "Free some space or choose another folder; nothing was left behind."
    )
    assert not list(tmp_path.iterdir())


def test_full_folder_for_temporary_files_is_one_line_that_names_it(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with pytest.raises(ExportError) as caught, full_disk(LIMIT):
        to_tflite(model, tmp_path / "x.tflite")
    assert str(caught.value) == (
        f"Expected room for a SavedModel in {str(tmp_path / 'tmp')!r}, which the converter reads. "
        "The system said: File too large. Free some space, or set TMPDIR to another disk."
    )
    assert [path for path in tmp_path.rglob("*") if path.name != "tmp"] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{node SaveV2}} /x/part-0; No space left on device [Op:SaveV2] name: ", "No space left on device"),
        ("/x/part-0; Disk quota exceeded\n\tFailed to close", "Disk quota exceeded"),
        ("something else\nwith details", "something else"),
    ],
)
def test_error_of_tensorflow_becomes_what_the_system_said(
    text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, text)

    monkeypatch.setattr("tensorflow.saved_model.save", fail)
    with pytest.raises(OSError, match=f"^{said}$"):
        save({}, Path("x"))
