"""Measures keras_effnet against its peers, in alternation, and prints ratios (lower is better).

    python benchmarks/peers.py [--quick] [--only onnx,tflite,int8,fit,predict,import,export] [--rounds 30]
                               [--photographs DIR] [--b0 WEIGHTS] [--json FILE] [--torch-python PATH]
                               [--work DIR [--reuse]]

Needs `pip install '.[all]'` and, for the rows with timm, a Python with torch and timm (see
README.md); integer files are calibrated with the photographs. A full run takes about 45 minutes on
two idle cores, `--quick` about 6. Behind the table stands which rows are ahead of all their peers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contest import CPU, Arena, ChildError, Job, Times, cores, run_once, run_timed
from table import Row, render, standings

VARIANTS = ("b0", "b4")
BATCHES = (1, 16)
LAUNCHES = 6  # of Keras' processes: wall time depends on where the system puts their threads
# B4 at 16 pictures of 380 px keeps 6 GB of activations in each of the two processes
FIT_BATCHES = {"b0": 16, "b4": 4}

ONNX_TARGETS = {1: 0.97, 16: 0.85}
TFLITE_TARGET = 0.92
INT8_TARGETS = {("tflite", 1): 0.50, ("onnx", 16): 0.65}  # of our own float32 file
KERAS_TARGET = 0.95
IMPORT_TARGET = 0.1  # seconds more than `import keras`

ONNX_PEERS = {
    "timm_dynamo": "timm, torch.onnx dynamo",
    "timm_torchscript": "timm, torch.onnx TorchScript",
    "applications_onnx_nchw": "keras.applications, tf2onnx NCHW",
    "applications_onnx_nhwc": "keras.applications, tf2onnx NHWC",
}
TFLITE_PEERS = {"applications_tflite": "keras.applications, from_keras_model"}
OURS = "ours"
OURS_FLOAT32 = "ours, float32"
OURS_EACH = "ours, batching='each'"
THEIRS = "keras.applications"
# integer files of one network with trained weights: where our walk leaves float depends on them
INT8_FILES = {
    "onnx": {
        "ours_int8_onnx": OURS,
        "ours_onnx": OURS_FLOAT32,
        "applications_int8_onnx": "keras.applications, quantize_static",
    },
    "tflite": {
        "ours_int8_tflite": OURS,
        "ours_tflite": OURS_FLOAT32,
        "applications_int8_tflite": "keras.applications, TFLiteConverter int8",
    },
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure.

    Attributes:
        variants: short names.
        batches: pictures per run.
        rounds: turns of each contestant.
        export_rounds: how often each export is run; each one takes up to a minute.
        torch_python: the interpreter with torch and timm, or None.
        calibration: the folder of photographs and the weights of B0 for integer files, or None.
        work: where the exported files go.
        reuse: take the files that are there already.
    """

    variants: tuple[str, ...]
    batches: tuple[int, ...]
    rounds: int
    export_rounds: int
    torch_python: str | None
    calibration: tuple[str, str] | None
    work: Path
    reuse: bool

    def file(self, exporter: str, variant: str) -> Path:
        suffix = "tflite" if exporter.endswith("tflite") else "onnx"
        return self.work / f"{exporter}_{variant}.{suffix}"

    def export_job(self, exporter: str, variant: str) -> Job:
        arguments = (exporter, variant, str(self.file(exporter, variant)))
        if "int8" in exporter and self.calibration:
            arguments += self.calibration
        python = self.torch_python if exporter.startswith("timm") else None
        return Job(script="exporters.py", arguments=arguments, python=python or sys.executable)

    def peers(self, peers: dict[str, str]) -> dict[str, str]:
        """Those of `peers` that can be exported here."""
        return {key: name for key, name in peers.items() if self.torch_python or not key.startswith("timm")}


def onnx(settings: Settings) -> Iterator[Row]:
    """Our ONNX file against those of the peers, all in ONNX Runtime."""
    peers = settings.peers(ONNX_PEERS)
    for variant in settings.variants:
        files = _export_all(settings, {"ours_onnx": OURS, "ours_onnx_each": OURS_EACH, **peers}, variant)
        for batch in settings.batches:
            jobs = {
                name: Job(script="workers.py", arguments=("onnx", str(file), str(batch)))
                for name, file in files.items()
            }
            for peer, times in _play(settings, jobs):
                target = ONNX_TARGETS.get(batch)
                if peer != OURS_EACH:
                    yield _runtime_row("onnx", variant, batch, (peer, times), target)
                    if OURS_EACH in times:
                        row = ("onnx, each", variant, batch, (peer, times), target)
                        yield _runtime_row(*row, ours_name=OURS_EACH)


def tflite(settings: Settings) -> Iterator[Row]:
    """Our TFLite file against that of keras.applications, both in LiteRT with XNNPACK."""
    for variant in settings.variants:
        files = _export_all(settings, {"ours_tflite": OURS, **TFLITE_PEERS}, variant)
        for batch in settings.batches:
            # ours has a batch of one and is called for each picture; theirs can be resized
            modes = {"": "one"} if batch == 1 else {", each picture": "one", ", resized": "resize"}
            jobs = {
                name if name == OURS else name + suffix: Job(
                    script="workers.py", arguments=("tflite", str(file), str(batch), mode)
                )
                for name, file in files.items()
                for suffix, mode in (modes.items() if name != OURS else [("", "one")])
            }
            for played in _play(settings, jobs):
                yield _runtime_row("tflite", variant, batch, played, TFLITE_TARGET)


def int8(settings: Settings) -> Iterator[Row]:
    """Our integer files of B0 against our float32 ones and the stock quantizers' of keras.applications."""
    if settings.calibration is None:
        _note("skipped: int8, which needs --photographs DIR to calibrate with")
        return
    for runtime, exporters in INT8_FILES.items():
        files = _export_all(settings, exporters, "b0")
        for batch in settings.batches if runtime == "onnx" else (1,):
            mode = ("one",) if runtime == "tflite" else ()
            jobs = {
                name: Job(script="workers.py", arguments=(runtime, str(file), str(batch), *mode))
                for name, file in files.items()
            }
            for peer, times in _play(settings, jobs):
                target = INT8_TARGETS.get((runtime, batch)) if peer == OURS_FLOAT32 else None
                yield _runtime_row(f"{runtime} int8", "b0", batch, (peer, times), target)


def fit(settings: Settings) -> Iterator[Row]:
    """`model.fit`, two steps from memory."""
    for variant in settings.variants:
        yield from _keras_rows(settings, "fit", variant, FIT_BATCHES[variant])


def predict(settings: Settings) -> Iterator[Row]:
    """`model.predict` of one batch."""
    for variant in settings.variants:
        for batch in settings.batches:
            yield from _keras_rows(settings, "predict", variant, batch)


def _keras_rows(settings: Settings, what: str, variant: str, batch: int) -> Iterator[Row]:
    jobs = {
        name: Job(script="workers.py", arguments=(what, side, variant, str(batch)))
        for name, side in ((OURS, "ours"), (THEIRS, "applications"))
    }
    for played in _play(settings, jobs, launches=LAUNCHES):
        yield _runtime_row(what, variant, batch, played, KERAS_TARGET)
        row = (what + CPU, variant, batch, (played[0] + CPU, played[1]), KERAS_TARGET)
        yield _runtime_row(*row, ours_name=OURS + CPU)


def imports(settings: Settings) -> Iterator[Row]:
    """`import keras_effnet` against `import keras`, and the same up to the first constructor."""
    pairs = {
        "import": ("import keras_effnet", "import keras"),
        "import + name": (
            "from keras_effnet import EfficientNetB0",
            "from keras.applications import EfficientNetB0",
        ),
    }
    commands = {statement: [sys.executable, "-c", statement] for pair in pairs.values() for statement in pair}
    for command in commands.values():
        run_timed(command)  # byte code and disk cache
    times: Times = {statement: [] for statement in commands}
    for _ in range(settings.rounds):
        for statement, command in commands.items():
            times[statement].append(run_timed(command))
    for what, (ours, theirs) in pairs.items():
        yield Row(
            what=what,
            variant="",
            batch=0,
            peer=theirs,
            unit="s",
            ours=tuple(times[ours]),
            theirs=tuple(times[theirs]),
            target=IMPORT_TARGET,
            difference=True,
        )


def export(settings: Settings) -> Iterator[Row]:
    """Wall time and peak memory of every export."""
    for variant in settings.variants:
        for ours, peers in (("ours_onnx", settings.peers(ONNX_PEERS)), ("ours_tflite", TFLITE_PEERS)):
            replies = _repeat_exports(settings, [ours, *peers], variant)
            for key, what, unit in (("seconds", "export time", "s"), ("peak_mb", "export memory", "MB")):
                for peer, name in peers.items():
                    if peer not in replies or ours not in replies:
                        continue
                    yield Row(
                        what=what,
                        variant=variant,
                        batch=0,
                        peer=name,
                        unit=unit,
                        ours=tuple(reply[key] for reply in replies[ours]),
                        theirs=tuple(reply[key] for reply in replies[peer]),
                    )


def _repeat_exports(
    settings: Settings, exporters: Sequence[str], variant: str
) -> dict[str, list[dict[str, float]]]:
    replies: dict[str, list[dict[str, float]]] = {exporter: [] for exporter in exporters}
    for _ in range(settings.export_rounds):
        for exporter in list(replies):
            try:
                replies[exporter].append(run_once(settings.export_job(exporter, variant)))
            except ChildError as error:
                _note(f"skipped: {exporter} {variant}: {error}")
                del replies[exporter]
    return replies


def _export_all(settings: Settings, exporters: dict[str, str], variant: str) -> dict[str, Path]:
    """The exported files by the name of who made them; without those that could not be exported."""
    files: dict[str, Path] = {}
    for exporter, name in exporters.items():
        file = settings.file(exporter, variant)
        if not (settings.reuse and file.exists()):
            _note(f"exporting {file.name}")
            try:
                run_once(settings.export_job(exporter, variant))
            except ChildError as error:
                _note(f"skipped: {name} {variant}: {error}")
                continue
        files[name] = file
    return files


def _play(settings: Settings, jobs: dict[str, Job], *, launches: int = 1) -> Iterator[tuple[str, Times]]:
    """Name of each peer, with the seconds of everyone's turns; the rounds are shared among `launches`."""
    first = next(iter(jobs.values()))
    _note(
        f"running {len(jobs)} x {first.arguments[0]}, {settings.rounds} rounds: {' '.join(first.arguments)}"
    )
    times: Times = {}
    for launch in range(launches):
        # whoever starts first finds another machine: both get that place in turn
        order = dict(reversed(jobs.items())) if launch % 2 else jobs
        with Arena(order) as arena:
            played = arena.play(-(-settings.rounds // launches))
        for name, reason in arena.failures.items():
            _note(f"skipped: {name}: {reason}")
        for name, seconds in played.items():
            times.setdefault(name, []).extend(seconds)
        if launches > 1:
            _note(
                f"launch {launch + 1} of {launches}: "
                + ", ".join(
                    f"{n} {statistics.median(s):.3f} s" for n, s in played.items() if not n.endswith(CPU)
                )
            )
    if OURS in times:
        for name in times:
            if name != OURS and not name.endswith(CPU):
                yield name, times


def _runtime_row(
    what: str,
    variant: str,
    batch: int,
    played: tuple[str, Times],
    target: float | None,
    *,
    ours_name: str = OURS,
) -> Row:
    peer, times = played
    ours, theirs = (tuple(second * 1e3 for second in times[name]) for name in (ours_name, peer))
    return Row(
        what=what,
        variant=variant,
        batch=batch,
        peer=peer,
        unit="ms",
        ours=ours,
        theirs=theirs,
        target=target,
    )


SUBJECTS: dict[str, Callable[[Settings], Iterator[Row]]] = {
    "onnx": onnx,
    "tflite": tflite,
    "int8": int8,
    "fit": fit,
    "predict": predict,
    "import": imports,
    "export": export,
}


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _torch_python(asked: str | None) -> str | None:
    """The interpreter that exports timm's networks, or None if it lacks something."""
    python = asked or sys.executable
    try:
        missing = run_once(Job(script="exporters.py", arguments=("check",), python=python))["missing"]
    except (ChildError, OSError) as error:
        missing = [f"a Python that starts ({error})"]
    if not missing:
        return python
    _note(
        f"skipped: timm, because {python} lacks {', '.join(missing)}. Install into it or into another one, "
        "named by --torch-python: pip install torch timm onnx onnxscript; pip install --no-deps torchvision"
    )
    return None


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="keras_effnet against its peers; prints ratios.")
    parser.add_argument("--quick", action="store_true", help="B0 only, 5 rounds: does everything run?")
    parser.add_argument("--only", default=",".join(SUBJECTS), help="comma-separated: %(default)s")
    parser.add_argument("--variants", default=None, help="comma-separated: b0,b4")
    parser.add_argument("--rounds", type=int, default=None, help="turns of each contestant (30)")
    parser.add_argument("--export-rounds", type=int, default=None, help="runs of each export (3)")
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="calibrate integer files with these")
    parser.add_argument(
        "--b0", default="imagenet", metavar="WEIGHTS", help="of the integer files (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values of all rounds")
    parser.add_argument("--torch-python", metavar="PATH", help="a Python with torch and timm")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the exported files here")
    parser.add_argument("--reuse", action="store_true", help="take the files that --work holds already")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    unknown = [name for name in options.only if name not in SUBJECTS]
    if unknown:
        parser.error(f"--only: expected some of {','.join(SUBJECTS)}, received {','.join(unknown)}")
    options.variants = (options.variants or ("b0" if options.quick else ",".join(VARIANTS))).split(",")
    unknown = [name for name in options.variants if name not in VARIANTS]
    if unknown:
        parser.error(f"--variants: expected some of {','.join(VARIANTS)}, received {','.join(unknown)}")
    return options


@contextmanager
def _folder(asked: Path | None) -> Iterator[Path]:
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
        yield asked
        return
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        yield Path(folder)


def _measure(options: argparse.Namespace, work: Path) -> list[Row]:
    needs_timm = {"onnx", "export"} & set(options.only)
    settings = Settings(
        variants=tuple(options.variants),
        batches=BATCHES,
        rounds=options.rounds or (5 if options.quick else 30),
        export_rounds=options.export_rounds or (1 if options.quick else 3),
        torch_python=_torch_python(options.torch_python) if needs_timm else None,
        calibration=(str(options.photographs), options.b0) if options.photographs else None,
        work=work,
        reuse=options.reuse,
    )
    rows: list[Row] = []
    for name in options.only:
        for row in SUBJECTS[name](settings):
            _note("  " + "  ".join(row.cells()))
            rows.append(row)
    return rows


def _write(path: Path, rows: list[Row]) -> None:
    machine = {"cores": cores(), "processor": platform.machine(), "python": platform.python_version()}
    found = {"machine": machine, "rows": [row.as_json() for row in rows]}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    load = os.getloadavg()[0]
    if load > cores() / 4:
        _note(
            f"The machine is busy (load {load:.1f} on {cores()} cores): expect noise, repeat when it is idle."
        )
    with _folder(options.work) as work:
        rows = _measure(options, work)
    if options.json:
        _write(options.json, rows)
    print(render(rows))
    judged = [row for row in rows if row.met is not None]
    print(f"{sum(row.met is True for row in judged)} of {len(judged)} targets met.")
    print(standings(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
