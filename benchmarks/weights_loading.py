"""Time and extra memory of loading weights from each format, beside keras.applications' own loading.

Each measurement runs in a fresh process that builds the model first: "extra" is how far the peak of
the resident memory rises above its level just before loading, as a share of the file's size.

    python benchmarks/weights_loading.py b7 --out loading.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

LIMIT = 1.3  # extra memory, as a multiple of the file's size


def make_files(variant: str, folder: Path) -> dict[str, str]:
    """The same random weights in every format."""
    import h5py
    import keras
    from exporters import normalize
    from keras.src.legacy.saving import legacy_h5_format

    from tests.weights import foreign

    layers = foreign.random_layers(variant)
    kinds = (*foreign.FORMATS, "tar")
    files = {kind: str(foreign.write(folder, variant, layers, kind)) for kind in kinds}
    if variant.startswith("b") and variant != "b8":
        theirs = getattr(keras.applications, f"EfficientNet{variant.upper()}")(weights=None)
        normalize(theirs.get_layer("normalization"))
        for kind, ending in (("keras-weights-h5", ".weights.h5"), ("keras-archive", ".keras")):
            files[kind] = str(folder / f"theirs{ending}")
        theirs.save_weights(files["keras-weights-h5"])
        theirs.save(files["keras-archive"])
        files["keras-legacy-h5"] = str(folder / "theirs.h5")
        with h5py.File(files["keras-legacy-h5"], "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
    return files


def size_of(path: Path) -> int:
    """Of a file, or of all files of a checkpoint."""
    return sum(p.stat().st_size for p in path.rglob("*")) if path.is_dir() else path.stat().st_size


def resident() -> int:
    """Bytes, without the pages of mapped files, which the system takes back when it needs them."""
    import resource

    whole, mapped = Path("/proc/self/statm").read_text(encoding="ascii").split()[1:3]
    return (int(whole) - int(mapped)) * resource.getpagesize()


class Peak:
    """The highest resident memory while the context is open, sampled every millisecond."""

    def __enter__(self) -> Peak:
        self.start = self.highest = resident()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.stopped.wait(0.001):
            self.highest = max(self.highest, resident())

    def __exit__(self, *_: object) -> None:
        self.highest = max(self.highest, resident())
        self.stopped.set()
        self.thread.join()

    @property
    def extra(self) -> int:
        return self.highest - self.start


def measure(variant: str, path: str, loader: str) -> dict[str, Any]:
    """Build, load, report; `loader` is `ours` or `keras`."""
    import keras

    import keras_effnet
    from keras_effnet.weights.readers import open_checkpoint

    flags = {"padding": "symmetric", "epsilon": 1e-5} if "torchvision" in path and variant < "b5" else {}
    if loader == "keras":
        model = getattr(keras.applications, f"EfficientNet{variant.upper()}")(weights=None)
    else:
        model = keras_effnet.EfficientNet(variant, weights=None, **flags)
    with open_checkpoint(path):  # imports h5py and the like, reads the headers
        pass
    with Peak() as peak:
        start = time.perf_counter()
        if loader == "keras":
            model.load_weights(path)
        else:
            keras_effnet.load_weights(model, path)
        seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 2), "extra_bytes": peak.extra}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("PATH", "LOADER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.variant, *arguments.measure)))
        return 0
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(arguments.variant, Path(folder))
        jobs = [(kind, "ours") for kind in files]
        jobs += [(kind, "keras") for kind in ("keras-legacy-h5", "keras-weights-h5") if kind in files]
        for kind, loader in jobs:
            command = [sys.executable, __file__, arguments.variant, "--measure", files[kind], loader]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            size = size_of(Path(files[kind]))
            row = {"format": kind, "loader": loader, "file_mb": round(size / 2**20, 1), **row}
            row["extra"] = round(row.pop("extra_bytes") / size, 2)
            rows.append(row)
            print(row, flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return 1 if any(row["extra"] > LIMIT for row in rows if row["loader"] == "ours") else 0


if __name__ == "__main__":
    sys.exit(main())
