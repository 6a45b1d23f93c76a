"""Where the time and memory of one export go: by file, and by what the integer files' making consists of.

    pip install py-spy psutil
    python benchmarks/export_phases.py b7 --calibration PHOTOGRAPHS --out build/phases

Runs `keras-effnet export` with random weights, every target unless `--to` says otherwise, and watches it from
outside: seconds, CPU seconds and the largest resident memory between two lines of its progress, and py-spy's samples
of the main thread, each counted to the innermost function that `PARTS` names.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

TARGETS = ["saved_model", "tflite:float32", "tflite:float16", "tflite:weight_int8", "tflite:int8"]
TARGETS += ["onnx:float32", "onnx:float16", "onnx:int8"]
# functions of the package: what their time is called
PARTS = {
    "fold": "taking the model apart",
    "place": "measuring where ONNX' integers begin",
    "sample": "values of the float network",
    "equalize_swishes": "equalizing",
    "by_photograph": "importance of channels",
    "_computed": "maps, in float and in integers",
    "_rows": "rows to fit to",
    "gram": "products of the rows",
    "refit": "least squares",
    "round_compensated": "rounding",
    "best_bias": "biases",
    "_activation_ranges": "ranges",
    "_fit_plain": "ranges",
    "_fit": "rest of a layer",
    "prepare": "rest of preparing",
    "write_artefact": "writing files",
    "_verify": "verifying",
    "median_latencies_ms": "timing",
}
RATE = 5  # samples in a second
POLL = 0.2  # seconds


class Watch:
    """The figures of a process between two lines of its progress."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self.rows: list[tuple[str, float, float, float]] = []
        self.cpu = 0.0
        self._begin("starting")

    def _begin(self, name: str) -> None:
        self.name, self.peak = name, 0
        self.since = time.monotonic(), self.cpu

    def line(self, name: str) -> None:
        """A new step begins, or the process has ended."""
        wall, cpu = self.since
        self.rows.append((self.name, time.monotonic() - wall, self.cpu - cpu, self.peak / 1e9))
        self._begin(name)

    def poll(self) -> None:
        """Look at memory and time until the process is gone."""
        while True:
            try:
                self.peak = max(self.peak, self.process.memory_info().rss)
                times = self.process.cpu_times()
                self.cpu = times.user + times.system
            except psutil.NoSuchProcess:
                return
            time.sleep(POLL)


def watched(command: list[str], samples: Path) -> list[tuple[str, float, float, float]]:
    """Run a command: rows of step, seconds, CPU seconds and peak gigabytes; py-spy's stacks go to `samples`."""
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    record = ["py-spy", "record", "--idle", "--format", "raw", "--rate", str(RATE)]
    spy = subprocess.Popen(
        [*record, "--output", str(samples), "--pid", str(started.pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    watch = Watch(psutil.Process(started.pid))
    threading.Thread(target=watch.poll, daemon=True).start()
    assert started.stderr is not None
    for line in started.stderr:
        print(line, end="", file=sys.stderr)
        if line.startswith("["):
            watch.line(line.split("] ", 1)[1].strip())
    watch.line("")
    if started.wait() not in (0, 1):  # 1: integer files of random weights fail their verification
        raise SystemExit(f"the export ended with {started.returncode}")
    spy.wait()
    return watch.rows


def parts(samples: Path) -> Counter[str]:
    """Seconds of the main thread by what it did."""
    found: Counter[str] = Counter()
    for line in samples.read_text().splitlines():
        stack, count = line.rsplit(" ", 1)
        names = [frame.split(" (")[0].split(".")[-1] for frame in stack.split(";")]
        if "export_job" in names:
            inside = names[names.index("export_job") :]
            known = [name for name in inside if name in PARTS]
            found[PARTS[known[-1]] if known else "rest"] += int(count) / RATE
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variant")
    parser.add_argument("--calibration", type=Path, required=True, metavar="PHOTOGRAPHS")
    parser.add_argument("--max-images", type=int, default=32)
    parser.add_argument("--to", nargs="+", default=TARGETS)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    samples = arguments.out / "samples.txt"
    command = [str(Path(sys.executable).parent / "keras-effnet"), "export", arguments.variant]
    command += ["--weights", "none", "--to", *arguments.to, "--calibration", str(arguments.calibration)]
    command += ["--max-images", str(arguments.max_images), "--out", str(arguments.out / "files"), "--force"]
    if shutil.which("py-spy") is None:
        raise SystemExit("no py-spy on the path: pip install py-spy")
    rows = watched(command, samples)
    print("\n| step | s | CPU s | GB at most |\n|---|---|---|---|")
    for name, wall, cpu, peak in rows:
        print(f"| {name} | {wall:.0f} | {cpu:.0f} | {peak:.1f} |")
    print("\n| main thread | s |\n|---|---|")
    for name, seconds in parts(samples).most_common():
        print(f"| {name} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
