"""How long the exported file of a model takes: what `fit(max_latency_ms=…)` measures when asked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError
from keras_effnet.export.benchmark import median_latencies_ms
from keras_effnet.export.onnx_model import to_onnx
from keras_effnet.export.recipes import parse_target
from keras_effnet.export.runners import load
from keras_effnet.export.saved_model import to_saved_model
from keras_effnet.export.tflite import to_tflite
from keras_effnet.pictures.reading import sample_images


def latency(target: str = "tflite:float32", *, threads: int = 1, rounds: int = 30) -> Callable[[Any], float]:
    """A function from a Keras model to the median milliseconds of its exported file.

    Args:
        target: `saved_model`, or a recipe that needs no calibration, such as `tflite:float32`.
        threads: threads that the runtime may use (TFLite and ONNX).
        rounds: timed calls with one picture each, after a warm-up.

    Raises:
        InvalidInputError: no such target, or one that needs photographs to calibrate.
    """
    recipe = parse_target(target)
    if recipe.integer:
        raise InvalidInputError(
            f"Expected a target that needs no calibration. Received: {target!r}. "
            "Measure another one, or pass a function of your own that exports with your photographs."
        )

    def measure(model: Any) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{recipe.suffix}"
            if recipe.format == "tflite":
                to_tflite(model, path, recipe.name)
            elif recipe.format == "onnx":
                to_onnx(model, path, recipe.name)
            else:
                to_saved_model(model, path)
            images = sample_images(int(model.input_shape[1]))[:1]
            return median_latencies_ms([load(path, threads=threads)], images, rounds=rounds)[0]

    return measure
