"""Evaluation beside what it is made of: CPU seconds to read the photographs, to ask the file, and of `evaluate`.

    python benchmarks/evaluate.py FILE… PHOTOGRAPHS     # a folder per class, a CSV file or another source

What reading and computing allow is a picture for each of their CPU seconds and cores; the share of it that `evaluate`
reaches is their CPU seconds over its own, where nothing waits (see `cores`). Where other programs run, only the CPU
seconds say something.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from score import cpu_seconds

import keras_effnet
from keras_effnet import export
from keras_effnet.export.formats import KERAS, format_of
from keras_effnet.pictures.listing import Listing, read_judged

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="exported files, or .keras")
    parser.add_argument("data", help="labelled photographs")
    parser.add_argument("--times", type=int, default=10, help="each photograph so often (default: 10)")
    arguments = parser.parse_args()
    listing = repeated(read_judged(arguments.data), arguments.times)
    keras_effnet.evaluate(arguments.files[0], repeated(listing, 1))  # what is loaded once is loaded
    for file in arguments.files:
        compare(file, listing)


def repeated(listing: Listing, times: int) -> Listing:
    return replace(
        listing,
        files=listing.files * times,
        labels=np.tile(listing.labels, times),
        splits=np.tile(listing.splits, times),
    )


def compare(file: str, listing: Listing) -> None:
    threads = None if format_of(Path(file)) == KERAS else 1
    runner = export.load(file, threads=threads)
    side = int(runner.size[0] or 224)
    count = len(listing.files)
    pictures = [runner.framing.read(listing.source(place), side) for place in range(BATCH)]
    batch = np.stack(pictures)
    runner(batch)
    _, reading = timed(lambda: [runner.framing.read(listing.source(place), side) for place in range(count)])
    _, computing = timed(lambda: [runner(batch) for _ in range(0, count, BATCH)])
    wall, whole = timed(lambda: keras_effnet.evaluate(file, listing))
    print(
        f"{file}: {count} photographs, CPU ms each: reading {1000 * reading / count:.2f}, computing "
        f"{1000 * computing / count:.2f}, evaluate {1000 * whole / count:.2f}: {(reading + computing) / whole:.2f} of what "
        f"they allow; {count / wall:.0f} photographs/s on {whole / wall:.2f} cores",
        flush=True,
    )


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.monotonic(), cpu_seconds()
    run()
    return time.monotonic() - wall, cpu_seconds() - cpu


if __name__ == "__main__":
    main()
