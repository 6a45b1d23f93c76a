"""What the integer ONNX file is worth on servers: ONNX Runtime and, where installed, OpenVINO.

    python benchmarks/int8_onnx.py b0 | lite0 | lite1 | lite2 | clothing [--rounds 60]
    python benchmarks/int8_onnx.py b0 --first-integer block4a block6a     other places to begin
    pip install openvino        # for its rows

The row `int8` is the file that an export writes: of a network with swishes, the stages before
`ONNX_FIRST_INTEGER` compute in float. Below it the same network with all stages in integers, and the network
that TFLite files have, with equalized swishes.

Photographs and networks are those of `int8_table.py`. Latency is a ratio to the float32 file in the same
runtime, median, either with the files taking turns or each file called many times in a row, which
leaves its weights in the cache; agreement is with the float model's best class.
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
IN_A_ROW = 20
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


def write_files(model: Any, images: Any, others: list[str], folder: Path) -> dict[str, Path]:
    """The float32 file and the integer files."""
    from keras_effnet.export import to_onnx
    from keras_effnet.export.quantization.layerwise import Method
    from keras_effnet.export.quantization.prepare import prepare

    networks = {"int8": prepare(model, images, target="onnx")}
    if not networks["int8"].serves_all:
        for first in others:
            method = Method(first_integer=first)
            networks[f"int8 from {first} on"] = prepare(model, images, equalize=0.0, method=method)
        networks["all in integers"] = prepare(model, images, equalize=0.0)
        networks["the TFLite file's"] = prepare(model, images)
    files = {"float32": to_onnx(model, folder / "float32.onnx")}
    for name, network in networks.items():
        files[name] = to_onnx(model, folder / f"{len(files)}.onnx", "int8", network=network)
    return files


def medians(runners: list[Runner], pixels: Any, rounds: int, block: int) -> list[float]:
    """Median seconds of each, called `block` times in a row; a block's first calls do not count."""
    times: list[list[float]] = [[] for _ in runners]
    for turn in range(-(-rounds // block) + 1):
        for run, measured in zip(runners, times, strict=True):
            for call in range(block):
                start = time.perf_counter()
                run(pixels)
                if turn > 0 and call >= min(3, block - 1):
                    measured.append(time.perf_counter() - start)
    return [float(np.median(measured)) for measured in times]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network")
    parser.add_argument("--first-integer", nargs="+", default=[], metavar="BLOCK")
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    model, calibration, held_out, labels = subject_of(arguments.network)
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(model, calibration, arguments.first_integer, Path(folder))
        pixels = np.ascontiguousarray(held_out.astype(np.float32).transpose(0, 3, 1, 2))
        columns = [f"batch {batch}, {how}" for batch in BATCHES for how in ("in turns", "in a row")]
        print(f"| runtime | file | agreement | top-1 | size | {' | '.join(columns)} |")
        print("|---" * (5 + len(columns)) + "|")
        for name, opened in runtimes().items():
            runners = [opened(path) for path in files.values()]
            best = [np.concatenate([run(p[np.newaxis]) for p in pixels]).argmax(1) for run in runners]
            times = [
                medians(runners, pixels[:batch], arguments.rounds, block)
                for batch in BATCHES
                for block in (1, IN_A_ROW)
            ]
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
