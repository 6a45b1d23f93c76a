"""What "none of these" is worth: calibration and coverage of a trained classifier, and of its integer file.

    python benchmarks/certainty.py DATA_DIR STRANGERS_DIR [--seeds 0 1 2] [--runs DIR] [--json FILE] [train's options …]

Each seed is a run of `keras-effnet train DATA_DIR --none STRANGERS_DIR --export tflite:int8`, kept in `--runs`, where
the same command goes on. Validation photographs
and one half of the strangers choose the temperature and the threshold for 95 % precision; the test photographs and the
other half, which decided nothing, give the figures. Those of the integer file are what `export.load` says of the same
pictures, with the thresholds that it carries.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

FIGURES = (
    "accuracy", "calibration_error_before", "calibration_error", "temperature", "threshold", "coverage", "precision",
    "refused", "precision_among_strangers",
)  # fmt: skip


def measured(
    data: Path, strangers: Path, seed: int, run: Path, options: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The figures of one run, of the Keras model and of the integer file."""
    command = [
        sys.executable, "-m", "keras_effnet.cli", "train", str(data), "--none", str(strangers), "--seed", str(seed),
        "--out", str(run), "--export", "tflite:int8", "--json", "--quiet", *options,
    ]  # fmt: skip
    command += ["--resume"] if run.exists() else []
    metrics = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    (file,) = (run / "export").glob("*.tflite")
    return {
        "keras": _flat(metrics["certainty"], metrics["test"]["accuracy"]),
        "int8": _of_file(run, file, metrics["certainty"]),
    }


def _of_file(run: Path, file: Path, certainty: dict[str, Any]) -> dict[str, float]:
    from keras_effnet.export import load
    from keras_effnet.system.progress import Progress
    from keras_effnet.train.batches import arrays
    from keras_effnet.train.certainty import Certainty, figures, strangers_of
    from keras_effnet.train.folder import RunFolder

    folder, runner = RunFolder.resume(run), load(file)
    found = folder.read_listing()
    assert found is not None
    listing, _ = found
    strangers = strangers_of(folder.settings, listing, Progress(quiet=True))
    assert strangers is not None
    side = int(runner.size[0] or 0)
    said = [runner(arrays(each, each.of("test"), side, runner.framing)) for each in (listing, strangers)]
    names = ("temperature", "thresholds", "photographs", "strangers", "wanted_precision")
    decided = Certainty.from_json({name: certainty[name] for name in names})
    decided = replace(decided, thresholds=runner.outputs[0].thresholds)  # what the file carries
    labels = listing.labels[listing.of("test")]
    return _flat(
        figures(decided, listing, listing.of("test"), *said), float((said[0].argmax(axis=1) == labels).mean())
    )


def _flat(certainty: dict[str, Any], accuracy: float) -> dict[str, float]:
    told = certainty | certainty["accepted"] | {"threshold": certainty["thresholds"][0], "accuracy": accuracy}
    return {name: told[name] for name in FIGURES}


def main() -> None:
    """Print each seed, then mean and standard deviation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("strangers", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, help="keep the runs in this folder (default: none is kept)")
    parser.add_argument("--json", type=Path)
    arguments, options = parser.parse_known_args()
    import numpy as np

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            run = (arguments.runs or Path(folder)) / str(seed)
            rows.append(measured(arguments.data, arguments.strangers, seed, run, options))
            for kind, figures in rows[-1].items():
                print(seed, kind, {name: round(value, 4) for name, value in figures.items()}, flush=True)
    for kind in rows[0]:
        for name in FIGURES:
            values = [row[kind][name] for row in rows]
            print(
                f"{kind:6} {name:28} {np.mean(values):.4f} ± {np.std(values, ddof=1) if values[1:] else 0:.4f}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
