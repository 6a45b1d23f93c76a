"""The formats, and how a file or a folder shows which one it has."""

from __future__ import annotations

from pathlib import Path

from keras_effnet.errors import InvalidInputError

SAVED_MODEL, TFLITE, ONNX, KERAS = "saved_model", "tflite", "onnx", "keras"
# endings by which readers know a format: another one under them would not be found again
ENDINGS = {
    ".tflite": TFLITE,
    ".lite": TFLITE,
    ".onnx": ONNX,
    ".keras": KERAS,
    ".h5": KERAS,
    ".hdf5": KERAS,
    ".pb": "frozen graph",
}


def format_of(path: Path) -> str | None:
    """What is there: TFLite by its signature, the others, which have none of their own, by name; None for neither.

    Args:
        path: a file or folder that exists. Only its first bytes are read.
    """
    if path.is_dir():
        return SAVED_MODEL if (path / "saved_model.pb").is_file() else None
    with path.open("rb") as file:
        if file.read(8)[4:] == b"TFL3":
            return TFLITE
    named = ENDINGS.get(path.suffix)
    return named if named in (ONNX, KERAS) else None


def unreadable_keras(path: str | Path, error: Exception) -> InvalidInputError:
    """The error for a Keras file that cannot be read; `error` says why."""
    said = " ".join((str(error).splitlines() or [""])[0].split())
    return InvalidInputError(
        f"Expected a Keras model in {str(path)!r}. It cannot be read ({type(error).__name__}: {said}). "
        "Save it with model.save('name.keras')."
    )
