"""Two processes on loopback train as one does: the loss curves side by side.

    pip install '.[report]' jax
    python benchmarks/two_processes.py                          # a small network on photographs of the package
    python benchmarks/two_processes.py --data DIR --model lite0 --size 96 --epochs 3 --plot curves.png

Trains the same network three times with the same global batch: in one process, in two processes that
share each batch (`keras_effnet.system.devices`, collectives over gloo), and in one process from another seed,
which shows how far apart different runs are. RandAugment is off, because its random numbers depend on
the process; everything else (random crops, drop-connect, dropout, averages of the weights) is on.
Exits with 1 where the two curves differ by more than the tolerance.
"""

from __future__ import annotations

import argparse
import csv
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TOLERANCE = 0.01  # relative, of an epoch's loss: summation order differs, and training amplifies it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", help="folder with a folder for each class (default: crops of our photographs)"
    )
    parser.add_argument("--model", default="small", help="variant, or 'small' (default)")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--plot", help="PNG of the curves")
    parser.add_argument("--worker", nargs=5, metavar=("OUT", "SEED", "ID", "COUNT", "ADDRESS"))
    arguments = parser.parse_args()
    if arguments.worker:
        train(arguments)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        arguments.data = arguments.data or str(make_data(Path(scratch) / "data"))
        curves, times = {}, {}
        for name, count, seed in (("one process", 1, 0), ("two processes", 2, 0), ("another seed", 1, 1)):
            start = time.monotonic()
            curves[name] = run(arguments, Path(scratch) / name.replace(" ", "_"), count, seed)
            times[name] = time.monotonic() - start
    show(curves, times)
    if arguments.plot:
        plot(curves, arguments.plot)
    apart = difference(curves["one process"], curves["two processes"])
    print(f"largest relative difference, two processes : one process  {apart:.2e}")
    print(
        f"the same, another seed : one process  {difference(curves['one process'], curves['another seed']):.2e}"
    )
    return int(apart > TOLERANCE)


def train(arguments: argparse.Namespace) -> None:
    """What each process runs."""
    from keras_effnet.network.variants import Variant, get_variant
    from keras_effnet.pretrain import examples, pretrain
    from keras_effnet.pretrain.recipe import Recipe
    from keras_effnet.system import devices as hosts

    out, seed, index, count, address = arguments.worker
    share = hosts.join(address, int(count), int(index))
    variant: Any = arguments.model
    if variant == "small":
        variant = Variant(name="small", title="Small", width=0.25, depth=0.3, resolution=64, dropout=0.2)
    pretrain(
        get_variant(variant),
        examples.from_folders(arguments.data),
        out=out,
        size=arguments.size,
        recipe=Recipe(
            epochs=arguments.epochs, batch_size=arguments.batch_size, warmup_epochs=1, ema=0.9, augment_ops=0
        ),
        seed=int(seed),
        share=share,
        verbose=0,
    )


def run(arguments: argparse.Namespace, out: Path, count: int, seed: int) -> list[dict[str, float]]:
    """Start the processes, wait for them, read the curve that process 0 wrote."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = [
        f"--{name}={getattr(arguments, name.replace('-', '_'))}"
        for name in ("data", "model", "size", "epochs", "batch-size")
    ]
    environment = os.environ | {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                __file__,
                *settings,
                "--worker",
                str(out),
                str(seed),
                str(index),
                str(count),
                address,
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    for process in processes:
        _, errors = process.communicate()
        if process.returncode:
            sys.exit(f"a process failed with {process.returncode}:\n{errors[-3000:]}")
    with (out / "history.csv").open() as file:
        return [{name: float(row[name]) for name in ("loss", "accuracy")} for row in csv.DictReader(file)]


def difference(left: list[dict[str, float]], right: list[dict[str, float]]) -> float:
    return max(abs(a["loss"] - b["loss"]) / a["loss"] for a, b in zip(left, right, strict=True))


def show(curves: dict[str, list[dict[str, float]]], times: dict[str, float]) -> None:
    print("epoch  " + "  ".join(f"{name:>26}" for name in curves))
    for epoch, rows in enumerate(zip(*curves.values(), strict=True), 1):
        cells = (f"loss {row['loss']:.6f}  acc. {row['accuracy']:.4f}" for row in rows)
        print(f"{epoch:5d}  " + "  ".join(f"{cell:>26}" for cell in cells))
    print("time   " + "  ".join(f"{times[name]:>24.0f} s" for name in curves))


def plot(curves: dict[str, list[dict[str, float]]], path: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    styles = {"one process": "-", "two processes": "o", "another seed": ":"}
    for name, rows in curves.items():
        axes.plot(range(1, len(rows) + 1), [row["loss"] for row in rows], styles[name], label=name)
    axes.set(xlabel="epoch", ylabel="training loss", xticks=range(1, len(curves["one process"]) + 1))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def make_data(root: Path) -> Path:
    """Twenty-four crops of each photograph of the package: eight classes that a small network can learn."""
    from PIL import Image

    import keras_effnet

    for path in sorted((Path(keras_effnet.__file__).parent / "photos").glob("*.jpg")):
        (root / path.stem).mkdir(parents=True)
        with Image.open(path) as opened:
            picture = opened.convert("RGB").resize((128, 128))
        for index in range(24):
            left, top = index % 6 * 4, index // 6 * 4
            picture.crop((left, top, left + 104, top + 104)).save(root / path.stem / f"{index:02d}.png")
    return root


if __name__ == "__main__":
    raise SystemExit(main())
