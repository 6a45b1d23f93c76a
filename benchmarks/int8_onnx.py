"""What integer ONNX files are worth, each in the runtime that it is for, beside that runtime's own quantizer.

    python benchmarks/int8_onnx.py b0 | lite0 | lite1 | lite2 | clothing
    python benchmarks/int8_onnx.py backbone.weights.h5 --photographs photographs/     as int8_real.py takes them
    python benchmarks/int8_onnx.py b0 --first-integer stem block3 block5      of each runtime's file, other beginnings
    python benchmarks/int8_onnx.py b0 --threads 1              on a machine that has other things to do: CPU time
    pip install openvino nncf                                  for their rows; NNCF may be in another environment:
    python benchmarks/int8_onnx.py b0 --nncf other/bin/python

Every second photograph calibrates, the others judge. The last activation of a classifier is taken off, so that
logits are judged: per photograph the signal-to-noise ratio, of these the median, the 5th percentile and the
worst; the nearest neighbour by them; the best class. Latency is the median of calls in which the files take turns,
as a ratio to the float32 file in ONNX Runtime. TensorRT needs a GPU: its file is judged by ONNX Runtime, its
time there says nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = (1, 16)
RUNTIMES = ("onnxruntime", "openvino", "tensorrt")
WARM_UP = 2
FLOAT32, CALIBRATION, NNCF = "float32.onnx", "calibration.npy", "nncf.xml"
Runner = Callable[[Any], Any]


def onnx_runtime(path: Path, threads: int) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def openvino(path: Path, threads: int) -> Runner:
    import openvino as ov

    settings = {"PERFORMANCE_HINT": "LATENCY", **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
    compiled = ov.Core().compile_model(str(path), "CPU", settings)
    return lambda pixels: compiled([pixels])[0]


def has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def subject(arguments: Any) -> tuple[Any, Any, Any]:
    """The model, without its last activation, and the photographs that calibrate and that judge."""
    import keras

    if arguments.photographs is None:
        from int8_table import subject_of

        model, calibration, judged, _ = subject_of(arguments.network)
    else:
        from int8_real import opened, read

        from keras_effnet.export.model_facts import facts_of

        model = opened(Path(arguments.network))
        pictures = read(arguments.photographs, facts_of(model).height)
        calibration, judged = pictures[::2], pictures[1::2]
    if isinstance(model.layers[-1], keras.layers.Dense):
        model.layers[-1].activation = keras.activations.linear
    return model, calibration[: arguments.images], judged[: arguments.images]


def files_of(model: Any, calibration: Any, arguments: Any, folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Every file: the runtime that it runs in, what it is, where it is."""
    from keras_effnet.export import to_onnx

    float32 = to_onnx(model, folder / FLOAT32)
    yield "ONNX Runtime", "float32", float32
    for begin in arguments.first_integer or [None]:
        for runtime in arguments.runtimes:
            where = "OpenVINO" if runtime == "openvino" else "ONNX Runtime"
            name = f"int8 for {runtime}" + (f" from {begin} on" if begin else "")
            path = folder / f"{name}.onnx"
            to_onnx(model, path, "int8", calibration, runtime=runtime, first_integer=begin)
            if where != "OpenVINO" or has("openvino"):
                yield where, name, path
    np.save(folder / CALIBRATION, calibration)
    yield "ONNX Runtime", "quantize_static", quantize_static(folder)
    if has("openvino"):
        yield "OpenVINO", "float32", float32
    if arguments.nncf is not None or has("nncf"):
        child = [arguments.nncf or sys.executable, __file__, str(folder), "--quantize-with-nncf"]
        subprocess.run(child, check=True, capture_output=True)
        yield "OpenVINO", "NNCF", folder / NNCF


def quantize_static(folder: Path) -> Path:
    """ONNX Runtime's own quantizer: pairs, uint8 × int8, a scale per channel, smallest and largest value."""
    from onnxruntime import quantization

    pictures = iter(np.load(folder / CALIBRATION))

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            picture = next(pictures, None)
            return None if picture is None else {"image": planes(picture[np.newaxis])}

    path = folder / "quantize_static.onnx"
    quantization.quant_pre_process(folder / FLOAT32, folder / "prepared.onnx", skip_symbolic_shape=True)
    quantization.quantize_static(
        folder / "prepared.onnx",
        path,
        Reader(),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return path


def quantize_with_nncf(folder: Path) -> None:
    """OpenVINO's quantizer: asymmetric activations, bias correction, all photographs."""
    import nncf
    import openvino as ov

    pictures = [planes(picture[np.newaxis]) for picture in np.load(folder / CALIBRATION)]
    quantized = nncf.quantize(
        ov.Core().read_model(folder / FLOAT32),
        nncf.Dataset(pictures),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(pictures),
        fast_bias_correction=False,
    )
    ov.save_model(quantized, folder / NNCF, compress_to_fp16=False)


def planes(pictures: Any) -> Any:
    return np.ascontiguousarray(pictures.astype(np.float32).transpose(0, 3, 1, 2))


def medians(runners: list[Runner], pixels: Any, rounds: int, clock: Callable[[], float]) -> list[float]:
    """Median seconds of each; they take turns."""
    times: list[list[float]] = [[] for _ in runners]
    for turn in range(WARM_UP + rounds):
        for run, measured in zip(runners, times, strict=True):
            start = clock()
            run(pixels)
            if turn >= WARM_UP:
                measured.append(clock() - start)
    return [float(np.median(measured)) for measured in times]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network")
    parser.add_argument("--photographs", type=Path, help="calibrate and judge by these")
    parser.add_argument("--first-integer", nargs="+", default=[], metavar="LAYER")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES, help="our files to make")
    parser.add_argument("--nncf", metavar="PYTHON", help="interpreter that has NNCF; default: this one")
    parser.add_argument("--threads", type=int, default=0, help="one: CPU time is measured; default: all")
    parser.add_argument("--images", type=int, help="at most so many calibrate and judge; default: all")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--quantize-with-nncf", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quantize_with_nncf:
        quantize_with_nncf(Path(arguments.network))
        return
    show(arguments)


def show(arguments: Any) -> None:
    """Accuracy as soon as a file is there, then the times of all."""
    from int8_real import figures

    model, calibration, judged = subject(arguments)
    goal, pixels = np.asarray(model.predict(judged.astype(np.float32), verbose=0)), planes(judged)
    opened = {"ONNX Runtime": onnx_runtime, "OpenVINO": openvino}
    names, runners, sizes = [], [], []
    print(f"{len(calibration)} photographs calibrate, {len(judged)} judge\n")
    print("| runtime | file | median dB | 5th percentile | worst | same nearest | same best | size |")
    print("|---" * 8 + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for where, name, path in files_of(model, calibration, arguments, Path(folder)):
            runner = opened[where](path, arguments.threads)
            stored = path.with_suffix(".bin") if path.suffix == ".xml" else path
            names.append(f"| {where} | {name} |")
            runners.append(runner)
            sizes.append(stored.stat().st_size)
            found = figures(goal, np.concatenate([runner(each[np.newaxis]) for each in pixels]))
            print(
                f"{names[-1]} {found['median']:.1f} | {found['p5']:.1f} | {found['worst']:.1f} "
                f"| {found['neighbour']:.2f} | {found['best']:.2f} | {sizes[-1] / sizes[0]:.2f} |",
                flush=True,
            )
        clock = time.process_time if arguments.threads == 1 else time.perf_counter
        times = [
            medians(runners, pixels[:batch], max(8, arguments.rounds // batch), clock) for batch in BATCHES
        ]
    print(f"\n| runtime | file | {' | '.join(f'batch {batch}' for batch in BATCHES)} |\n|---|---|---|---|")
    for place, name in enumerate(names):
        print(f"{name} {' | '.join(f'{measured[place] / measured[0]:.2f}' for measured in times)} |")


if __name__ == "__main__":
    main()
