"""The paper's Table 4 again: one picture on one core, EfficientNets against larger networks of like accuracy.

    python benchmarks/latency.py                          # B1 against ResNet-152, B7 against NASNet-A (large)
    python benchmarks/latency.py --only b1 --rounds 30
    python benchmarks/latency.py --large ConvNeXtXLarge   # another peer for B7: needs about 12 GB

Each pair takes turns in one process, so a machine that slows down slows both. The peers are those of
keras.applications with random weights, through the same exporters; time does not depend on weights.
None of them is the paper's peer of B7, GPipe's AmoebaNet of 557 M parameters, which is not public in a form
that runs here: NASNet-A (large) has 89 M, 1.3 times B7's.
Close all other programs first.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# seconds per picture on one core of a Xeon E5-2690 (arXiv:1905.11946, Table 4), and how many times the
# parameters its peer has as the paper prints it (Table 2): 60 M over 7.8 M would be 7.7, it says 7.6
PAPER = {
    "b1": {"peer": "ResNet-152", "ours_s": 0.098, "peer_s": 0.554, "params_ratio": 7.6},
    "b7": {"peer": "GPipe", "ours_s": 3.1, "peer_s": 19.0, "params_ratio": 8.4},
}
WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=tuple(PAPER), nargs="*", default=tuple(PAPER))
    parser.add_argument("--runtimes", nargs="*", default=("onnx", "tflite", "keras"))
    parser.add_argument(
        "--large", default="NASNetLarge", help="peer of B7 in keras.applications (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE", help="write every time too")
    arguments = parser.parse_args()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from keras_effnet.commands.printing import table

    rows, entries = [], []
    for name in arguments.only:
        peer = "ResNet152" if name == "b1" else arguments.large
        for runtime in arguments.runtimes:
            entry = measure_pair(name, peer, runtime, arguments.rounds)
            entries.append(entry)
            mine, other = np.median(entry["ours_ms"]), np.median(entry["peer_ms"])
            fastest = min(entry["peer_ms"]) / min(entry["ours_ms"])  # where others disturb, the better figure
            paper = PAPER[name]
            rows.append(
                [
                    f"{name} : {peer}",
                    runtime,
                    f"{mine:.1f} ms",
                    f"{other:.1f} ms",
                    f"{other / mine:.1f}×",
                    f"{fastest:.1f}×",
                    f"{paper['peer_s'] / paper['ours_s']:.1f}× ({paper['peer']})",
                    f"{entry['peer_params'] / entry['params']:.1f}×",
                    f"{paper['params_ratio']:.1f}×",
                    f"{entry['peer_macs'] / entry['macs']:.1f}×" if entry["peer_macs"] else "–",
                ]
            )
            print(" | ".join(rows[-1]), flush=True)
    header = [
        "pair",
        "runtime",
        "ours",
        "peer",
        "medians",
        "fastest",
        "paper",
        "parameters",
        "paper",
        "multiply-adds",
    ]
    print(table(header, rows, left=2))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(entries, indent=2), encoding="utf-8")


def measure_pair(name: str, peer: str, runtime: str, rounds: int) -> dict[str, Any]:
    """Median times of a variant and of a network of keras.applications, taking turns."""
    import keras

    import keras_effnet

    with tempfile.TemporaryDirectory() as folder:
        calls, facts = [], []
        for build in (lambda: keras_effnet.EfficientNet(name, weights=None), lambda: peer_model(keras, peer)):
            model = build()
            facts.append(describe(model))
            calls.append(prepare(model, runtime, Path(folder) / f"{len(calls)}"))
            if runtime != "keras":
                del model
                keras.backend.clear_session()
        spent: list[list[float]] = [[], []]
        for turn in range(WARM_UP + rounds):
            for call, times in zip(calls, spent, strict=True):
                start = time.perf_counter()
                call()
                if turn >= WARM_UP:
                    times.append((time.perf_counter() - start) * 1e3)
    (params, macs), (peer_params, peer_macs) = facts
    return {
        "variant": name,
        "peer": peer,
        "runtime": runtime,
        "params": params,
        "macs": macs,
        "peer_params": peer_params,
        "peer_macs": peer_macs,
        "ours_ms": spent[0],
        "peer_ms": spent[1],
    }


def peer_model(keras: Any, name: str) -> Any:
    return getattr(keras.applications, name)(weights=None)


def describe(model: Any) -> tuple[int, int | None]:
    """Parameters, and multiply-adds where every layer is known."""
    import keras_effnet
    from keras_effnet.errors import InvalidInputError

    try:
        counted = keras_effnet.cost(model)
    except InvalidInputError:
        return int(model.count_params()), None
    return counted.params, counted.macs


def prepare(model: Any, runtime: str, path: Path) -> Callable[[], Any]:
    """One call on one picture, on one thread."""
    from keras_effnet import export

    side = int(model.input_shape[1])
    picture = np.random.default_rng(0).integers(0, 256, (1, side, side, 3)).astype("float32")
    if runtime == "keras":
        return lambda: model.predict_on_batch(picture)
    labels = [str(index) for index in range(1000)]
    if runtime == "onnx":
        runner = export.load(export.to_onnx(model, path.with_suffix(".onnx"), labels=labels), threads=1)
    else:
        runner = export.load(export.to_tflite(model, path.with_suffix(".tflite"), labels=labels), threads=1)
    return lambda: runner(picture)


if __name__ == "__main__":
    main()
