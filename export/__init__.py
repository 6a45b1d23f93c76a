"""The export layer: SavedModel, TFLite and ONNX from a Keras model, each proven against it.

Importing this package loads no converter and no runtime; they are imported when they are needed.
"""

from __future__ import annotations

from keras_effnet.export.latency import latency
from keras_effnet.export.onnx_model import to_onnx
from keras_effnet.export.runners import Runner, load
from keras_effnet.export.saved_model import to_saved_model
from keras_effnet.export.tflite import to_tflite
from keras_effnet.export.verify import Report, Tolerance, verify

__all__ = [
    "Report",
    "Runner",
    "Tolerance",
    "latency",
    "load",
    "to_onnx",
    "to_saved_model",
    "to_tflite",
    "verify",
]
