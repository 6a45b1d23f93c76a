"""The export layer: SavedModel, TFLite and ONNX from a Keras model, each proven against it.

Importing this package loads no converter and no runtime; they are imported when they are needed.
"""

from __future__ import annotations

from .exporters import to_onnx, to_saved_model, to_tflite
from .legacy import from_saved_model
from .runners import Runner, load
from .scoring import Scores, score
from .targets import Tolerance
from .timing import latency
from .verify import Report, verify

__all__ = [
    "Report",
    "Runner",
    "Scores",
    "Tolerance",
    "from_saved_model",
    "latency",
    "load",
    "score",
    "to_onnx",
    "to_saved_model",
    "to_tflite",
    "verify",
]


def __dir__() -> list[str]:
    return __all__
