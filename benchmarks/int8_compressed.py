"""Pruned and clustered integer files of B0: what they keep and how far they compress.

    python benchmarks/int8_compressed.py [sparsity=0.3 sparsity=0.5 clusters=32 clusters=16]

Photographs as in `int8_table.py`; the size is that of a zip archive, as a ratio to plain int8's.
"""

from __future__ import annotations

import argparse
import time
import zlib
from typing import Any

import numpy as np
from int8_table import subject_of


def main() -> None:
    from keras_effnet.export.quantization import accuracy
    from keras_effnet.export.quantization.prepare import prepare
    from keras_effnet.export.quantization.to_tflite import integer_tflite
    from keras_effnet.export.quantization.trained.compression import Compression, compress

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", default=["sparsity=0.3", "clusters=32"])
    settings = parser.parse_args().settings
    model, calibration, held_out, labels = subject_of("b0")
    images = held_out.astype(np.float32)
    start = time.perf_counter()
    plain = prepare(model, calibration)
    goal = plain.logits(images, integer=False)
    zipped = len(zlib.compress(integer_tflite(plain)))

    def show(name: str, network: Any, seconds: float) -> None:
        content, logits = integer_tflite(network), network.logits(images)
        print(
            f"| {name} | {np.mean(logits.argmax(1) == goal.argmax(1)):.3f} "
            f"| {np.mean(logits.argmax(1) == labels):.3f} | {accuracy.sqnr_db(goal, logits):.1f} "
            f"| {len(content) / 1e6:.2f} | {len(zlib.compress(content)) / zipped:.3f} | {seconds:.0f} |",
            flush=True,
        )

    print("| file | agreement | top-1 | logits SQNR dB | MB | zipped | seconds |")
    print("|---|---|---|---|---|---|---|")
    show("int8", plain, time.perf_counter() - start)
    for setting in settings:
        name, value = setting.split("=")
        options: dict[str, Any] = {name: float(value) if name == "sparsity" else int(value)}
        start = time.perf_counter()
        network = compress(model, calibration, Compression(**options))
        show(setting, network, time.perf_counter() - start)


if __name__ == "__main__":
    main()
