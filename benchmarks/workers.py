"""One runtime, ready to run when it is told to. A child of `peers.py`; see `contest.py`.

    python workers.py onnx FILE BATCH | tflite FILE BATCH one|resize | predict SIDE VARIANT BATCH
                      | fit SIDE VARIANT BATCH

SIDE is `ours` or `applications` (keras.applications). It loads, runs three times, writes the seconds
of these runs, wall and CPU, as a JSON list of pairs and then answers each line `WARM_UPS REPEATS` with such a list.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np
from contest import cores
from exporters import SIDES, build

Run = Callable[[], object]
SETTLING_RUNS = 3
FIT_STEPS = 2  # per call of fit
CLASSES = 1000


def onnx(file: str, batch: str) -> Run:
    """An ONNX file in ONNX Runtime, with its defaults on all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = cores()
    # spins within a run, as by default, but not while another contestant has its turn
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    pixels = _pixels(int(batch), *entry.shape[1:])
    return lambda: session.run(None, {entry.name: pixels})


def tflite(file: str, batch: str, mode: str) -> Run:
    """A TFLite file in LiteRT with XNNPACK: `one` picture at a time, or its input resized to the batch."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file, num_threads=cores())
    entry = interpreter.get_input_details()[0]
    shape = [int(batch) if mode == "resize" else 1, *(int(side) for side in entry["shape"][1:])]
    if list(entry["shape"]) != shape:
        interpreter.resize_tensor_input(entry["index"], shape)
    interpreter.allocate_tensors()
    output = interpreter.get_output_details()[0]["index"]
    pixels = _pixels(int(batch), *shape[1:])
    if entry["dtype"] != np.float32:  # integers: int8 counts from -128
        pixels = (pixels + np.iinfo(entry["dtype"]).min).astype(entry["dtype"])
    parts = [pixels[start : start + shape[0]] for start in range(0, int(batch), shape[0])]

    def run() -> None:
        for part in parts:
            interpreter.set_tensor(entry["index"], part)
            interpreter.invoke()
            interpreter.get_tensor(output)

    return run


def predict(side: str, variant: str, batch: str) -> Run:
    """`model.predict` of one batch."""
    model = build(side, variant)
    pixels = _pixels(int(batch), *model.input_shape[1:])
    return lambda: model.predict(pixels, batch_size=int(batch), verbose=0)


def fit(side: str, variant: str, batch: str) -> Run:
    """`model.fit` over `FIT_STEPS` batches held in memory."""
    model = build(side, variant)
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    count = int(batch) * FIT_STEPS
    pixels = _pixels(count, *model.input_shape[1:])
    labels = np.arange(count) % CLASSES
    return lambda: model.fit(pixels, labels, batch_size=int(batch), shuffle=False, verbose=0)


def _pixels(*shape: int) -> Any:
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def _timed(run: Run, repeats: int) -> list[tuple[float, float]]:
    seconds = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    return seconds


def _serve(run: Run, replies: TextIO) -> None:
    replies.write(json.dumps(_timed(run, SETTLING_RUNS)) + "\n")
    replies.flush()
    for line in sys.stdin:
        warm_ups, repeats = map(int, line.split())
        _timed(run, warm_ups)
        replies.write(json.dumps(_timed(run, repeats)) + "\n")
        replies.flush()


KINDS: dict[str, Callable[..., Run]] = {"onnx": onnx, "tflite": tflite, "predict": predict, "fit": fit}


def main(arguments: list[str]) -> None:
    kind, *rest = arguments
    assert kind in ("onnx", "tflite") or rest[0] in SIDES
    # replies go to the real standard output; whatever a library prints goes to standard error
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        _serve(KINDS[kind](*rest), replies)


if __name__ == "__main__":
    main(sys.argv[1:])
