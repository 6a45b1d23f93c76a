from .exporters import to_onnx, to_saved_model, to_tflite
from .legacy import from_saved_model
from .runners import Runner, load
from .scoring import Scores, score
from .targets import Tolerance
from .timing import latency
from .verification import Report, verify

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
