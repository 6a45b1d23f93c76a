"""How time and memory of each thing that is done with a network grow from B0 to B7.

    python benchmarks/growth.py --work build/growth                        # goes on where it was stopped
    python benchmarks/growth.py --work build/growth --variants b0 b1 --steps build load
    python benchmarks/growth.py --work build/growth --no-run --figure growth.png

Each measurement is a process of its own that prepares, then does one step: seconds and CPU seconds of the step alone,
and the largest resident memory of the process. Random weights; the photographs are noise, which computes as long. The
exponents are the slopes of straight lines through the logarithms: 1 is in proportion.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

VARIANTS = tuple(f"b{number}" for number in range(8))
CALIBRATION = 4  # photographs of an integer file: the walk's time is in proportion to them
TRAINING = 2  # photographs of a training step
FEWEST = 3  # variants to fit a line through
PROPORTIONAL = 1.15  # largest exponent that counts as in proportion


def pictures(model: Any, count: int) -> Any:
    """Noise in the size of a network."""
    return np.random.default_rng(0).integers(0, 256, (count, *model.input_shape[1:]), np.uint8)


def prepared(variant: str, step: str, weights: Path) -> tuple[Callable[[], Any], Any]:
    """What a step does, everything it needs being there; and the network, or None where it is yet to be built."""
    import keras

    import keras_effnet
    from keras_effnet import export

    def build() -> Any:
        keras.utils.set_random_seed(0)
        return keras_effnet.EfficientNet(variant, weights=None)

    if step == "build":
        return build, None
    model = build()
    folder = weights.parent
    if step == "load":
        if not weights.exists():
            model.save_weights(weights)
        return lambda: keras_effnet.load_weights(model, weights), model
    if step == "training step":
        model.compile("sgd", "categorical_crossentropy")
        truth = np.eye(1000, dtype=np.float32)[np.arange(TRAINING)]
        model.train_on_batch(pictures(model, TRAINING), truth)  # traced
        return lambda: model.train_on_batch(pictures(model, TRAINING), truth), model
    if step == "verify":
        path = export.to_onnx(model, folder / f"{variant}.onnx", overwrite=True)
        return lambda: export.verify(model, path, pictures(model, 2)), model
    return lambda: written(model, step, folder / f"{variant}_{step.replace(':', '_')}"), model


def written(model: Any, step: str, out: Path) -> Any:
    """The file of one target."""
    from keras_effnet import export

    format_, _, recipe = step.partition(":")
    if format_ == "saved_model":
        return export.to_saved_model(model, out, overwrite=True)
    if format_ == "onnx":
        return export.to_onnx(model, out.with_suffix(".onnx"), recipe, overwrite=True)
    calibration = pictures(model, CALIBRATION) if recipe == "int8" else None
    return export.to_tflite(model, out.with_suffix(".tflite"), recipe, calibration, overwrite=True)


STEPS = (
    "build",
    "load",
    "saved_model",
    "tflite:float32",
    "onnx:float32",
    "verify",
    "training step",
    "tflite:int8",
)


def measure(variant: str, step: str, weights: Path) -> dict[str, Any]:
    """One step in this process."""
    from keras_effnet import cost

    do, model = prepared(variant, step, weights)
    wall, cpu = time.monotonic(), time.process_time()
    made = do()
    row = {"seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # before the cost is counted
    facts = cost(model or made)
    return {**row, "peak_bytes": peak, "macs": facts.macs, "weight_bytes": 4 * facts.params}


def run(work: Path, variants: Sequence[str], steps: Sequence[str]) -> None:
    """Measure what is not there yet, small networks first."""
    work.mkdir(parents=True, exist_ok=True)
    for variant in variants:
        for step in steps:
            place = work / f"{variant}_{step.replace(':', '_').replace(' ', '_')}.json"
            if place.exists():
                continue
            command = [sys.executable, __file__, "--work", str(work), "--measure", variant, step]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(
                    f"{variant} {step}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}",
                    file=sys.stderr,
                )
                continue
            row = {"variant": variant, "step": step, **json.loads(done.stdout.splitlines()[-1])}
            place.write_text(json.dumps(row) + "\n", encoding="utf-8")
            print(
                f"{variant} {step}: {row['cpu_seconds']:.1f} CPU s, {row['peak_bytes'] / 1e9:.2f} GB",
                flush=True,
            )


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Of the power of the size in proportion to which values grow; None for too few."""
    if len(sizes) < FEWEST:
        return None
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each step: its exponents against multiply-adds and bytes of weights."""
    found = []
    for step in STEPS:
        own = sorted((row for row in rows if row["step"] == step), key=lambda row: row["macs"])
        sizes = {name: [row[name] for row in own] for name in ("macs", "weight_bytes")}
        told: dict[str, Any] = {"step": step, "variants": [row["variant"] for row in own]}
        for name, values in (("time", "cpu_seconds"), ("memory", "peak_bytes")):
            for against, size in sizes.items():
                told[f"{name} ~ {against}"] = exponent(size, [row[values] for row in own])
        found.append(told)
    return found


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The table: CPU seconds and peak memory of each step and variant, and the exponents."""
    cells = {(row["step"], row["variant"]): row for row in rows}
    known = [variant for variant in VARIANTS if any(row["variant"] == variant for row in rows)]
    print(f"| CPU s, GB | {' | '.join(known)} | time ~ macs, bytes | memory ~ macs, bytes |")
    print(f"|{' --- |' * (len(known) + 3)}")
    for told in summary(rows):
        step = told["step"]
        row = [cells.get((step, variant)) for variant in known]
        shown = [
            "–" if cell is None else f"{cell['cpu_seconds']:.1f}, {cell['peak_bytes'] / 1e9:.2f}"
            for cell in row
        ]
        slopes = [
            [told[f"{name} ~ {against}"] for against in ("macs", "weight_bytes")]
            for name in ("time", "memory")
        ]
        ends = [", ".join("–" if slope is None else f"{slope:.2f}" for slope in pair) for pair in slopes]
        print(f"| {' | '.join([step, *shown, *ends])} |")
    for told in summary(rows):
        slope = told["time ~ macs"]
        if slope is not None and slope > PROPORTIONAL:
            print(f"{told['step']}: time grows faster than multiply-adds ({slope:.2f})")


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Time and memory against multiply-adds, a line for each step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name, label in zip(
        figure.subplots(1, 2),
        ("cpu_seconds", "peak_bytes"),
        ("CPU seconds", "peak memory [bytes]"),
        strict=True,
    ):
        for step in STEPS:
            own = sorted((row for row in rows if row["step"] == step), key=lambda row: row["macs"])
            if own:
                axes.loglog(
                    [row["macs"] for row in own], [row[name] for row in own], "o-", label=step, markersize=3
                )
        axes.set(xlabel="multiply-adds", ylabel=label)
        axes.grid(alpha=0.3)
    figure.axes[1].legend(fontsize=8, loc="upper left")  # where no line passes
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="one file for each measurement; kept")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--no-run", action="store_true", help="only show what is there")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("VARIANT", "STEP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.measure:
        variant, step = arguments.measure
        print(json.dumps(measure(variant, step, arguments.work / f"{variant}.weights.h5")))
        return
    if not arguments.no_run:
        run(arguments.work, arguments.variants, arguments.steps)
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(arguments.work.glob("*.json"))]
    show(rows)
    if arguments.json:
        told = {"rows": rows, "exponents": summary(rows)}
        arguments.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if arguments.figure:
        draw(rows, arguments.figure)


if __name__ == "__main__":
    main()
