"""What the integer ONNX file is worth on servers: ONNX Runtime and, where installed, OpenVINO.

    python benchmarks/int8_onnx.py b0 | lite0 | lite1 | lite2 | clothing [--equalize 0.25 0] [--rounds 60]
    pip install openvino        # for its rows

Photographs and networks are those of `int8_table.py`. Latency is a ratio to the float32 file in the same
runtime, the files taking turns, median; agreement is with the float model's best class.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from int8_table import subject_of

BATCHES = (1, 16)
Runner = Callable[[Any], Any]


def onnx_runtime(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"image": pixels})[0]


def openvino(path: Path) -> Runner:
    import openvino as ov

    compiled = ov.Core().compile_model(str(path), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    return lambda pixels: compiled([pixels])[0]


def runtimes() -> dict[str, Callable[[Path], Runner]]:
    found: dict[str, Callable[[Path], Runner]] = {"ONNX Runtime": onnx_runtime}
    try:
        import openvino as _  # noqa: F401

        found["OpenVINO"] = openvino
    except ImportError:
        print("OpenVINO is not installed: its rows are left out (pip install openvino)")
    return found


def write_files(model: Any, images: Any, shares: list[float], folder: Path) -> dict[str, Path]:
    """The float32 file and an integer file for each share of equalized swishes."""
    from keras_effnet.export import to_onnx
    from keras_effnet.export.quantization import post_training

    files = {"float32": to_onnx(model, folder / "float32.onnx")}
    for share in shares:
        network = post_training.prepare(model, images, equalize=share)
        files[f"int8, equalize={share:g}"] = to_onnx(model, folder / f"int8_{share:g}.onnx", "int8", network)
    return files


def in_turns(runners: list[Runner], pixels: Any, rounds: int) -> list[float]:
    """Median seconds of each."""
    times: list[list[float]] = [[] for _ in runners]
    for turn in range(rounds + 3):
        for run, measured in zip(runners, times, strict=True):
            start = time.perf_counter()
            run(pixels)
            if turn >= 3:
                measured.append(time.perf_counter() - start)
    return [float(np.median(measured)) for measured in times]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network")
    parser.add_argument("--equalize", type=float, nargs="+", default=[0.25, 0.0])
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    model, calibration, held_out, labels = subject_of(arguments.network)
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(model, calibration, arguments.equalize, Path(folder))
        pixels = np.ascontiguousarray(held_out.astype(np.float32).transpose(0, 3, 1, 2))
        print("| runtime | file | agreement | top-1 | size | batch 1 | batch 16 |")
        print("|---|---|---|---|---|---|---|")
        for name, opened in runtimes().items():
            runners = [opened(path) for path in files.values()]
            best = [np.concatenate([run(p[np.newaxis]) for p in pixels]).argmax(1) for run in runners]
            times = [in_turns(runners, pixels[:batch], arguments.rounds) for batch in BATCHES]
            for index, (file, path) in enumerate(files.items()):
                ratios = " | ".join(f"{measured[index] / measured[0]:.3f}" for measured in times)
                print(
                    f"| {name} | {file} | {np.mean(best[index] == best[0]):.3f} "
                    f"| {np.mean(best[index] == labels):.3f} "
                    f"| {path.stat().st_size / files['float32'].stat().st_size:.3f} | {ratios} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
