"""Mutated weight files through every reader: only the package's own error may come out.

Each worker process reads a batch of files under a limit on its memory; the parent notices a crash, a
hang and a process that was started. Reading includes every array that the reader offers.

    python benchmarks/weights_fuzz.py --files 12000 --out fuzz.json
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

MEMORY_BYTES = 2**30  # above what the interpreter has mapped at the start
SLOW_S = 5.0
BATCH_TIMEOUT_S = 300.0
INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\xff" * 8)
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.fork", "exec", "compile")


def seeds(folder: Path) -> dict[str, Path]:
    """One small valid file of each format: the first blocks of an EfficientNet with few classes."""
    import h5py
    import keras
    from keras.src.legacy.saving import legacy_h5_format

    from keras_effnet.network.variants import Variant
    from tests.weights import foreign

    tiny = Variant(name="tiny", title="Tiny", width=0.25, depth=0.3, resolution=32, dropout=0.1)
    layers = foreign.random_layers_of(tiny, classes=2)
    found = {kind: foreign.write_of(folder, tiny, layers, kind) for kind in (*foreign.FORMATS, "tar")}
    found["torch-legacy"] = folder / "tiny-legacy.pth"
    foreign.write_torch_legacy(found["torch-legacy"], foreign.state_dict(tiny, layers, "timm"))
    import keras_effnet

    model = keras_effnet.EfficientNet(tiny, weights=None, classes=2)
    found["keras-weights-h5"] = folder / "tiny.weights.h5"
    model.save_weights(str(found["keras-weights-h5"]))
    found["keras-archive"] = folder / "tiny.keras"
    model.save(str(found["keras-archive"]))
    found["keras-legacy-h5"] = folder / "tiny.h5"
    with h5py.File(found["keras-legacy-h5"], "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    keras.backend.clear_session()
    return found


def mutate(content: bytes, rng: random.Random, structure: int) -> bytes:
    """Change a few places; the first and last `structure` bytes hold most of what readers parse."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        size = len(data)
        if size < 2:
            break
        at = rng.choice(
            (
                rng.randrange(size),
                rng.randrange(min(size, structure)),
                -rng.randrange(1, min(size, structure)),
            )
        )
        at %= size
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            piece = rng.choice(INTERESTING)
            data[at : at + len(piece)] = piece
        elif kind == 3:
            del data[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            source = rng.randrange(size)
            data[at:at] = data[source : source + rng.randrange(1, 64)]
        else:
            del data[at + 1 :]
    return bytes(data)


def work(batch: list[tuple[str, str, int]], seed_files: dict[str, str], pipe: Any) -> None:
    """Read a batch of mutants and report one result for each."""
    executed: list[str] = []
    armed = False

    def audit(event: str, _: Any) -> None:
        if armed and event in FORBIDDEN:
            executed.append(event)

    from keras_effnet.errors import EffNetError
    from keras_effnet.weights.readers import open_checkpoint, pytorch

    # the hash would keep every mutant of a legacy file from its reader
    pytorch.recognize = lambda _: "published"  # type: ignore[assignment,return-value]
    for path in seed_files.values():  # load every lazy import before the limits
        with open_checkpoint(path) as checkpoint:
            read_all(checkpoint)
    sys.addaudithook(audit)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, mapped + MEMORY_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        for name, kind, seed in batch:
            path = mutant(Path(folder), kind, Path(seed_files[kind]), seed)
            pipe.send(("started", name, 0.0))
            start = time.perf_counter()
            executed.clear()
            armed = True
            try:
                with open_checkpoint(path) as checkpoint:
                    read_all(checkpoint)
                outcome = "read"
            except EffNetError:
                outcome = "refused"
            except BaseException:
                outcome = "escaped: " + traceback.format_exc(limit=-3)
            armed = False
            if executed:
                outcome = f"executed: {executed}"
            pipe.send((outcome, name, time.perf_counter() - start))
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pipe.send(("done", "", float(peak)))


def read_all(checkpoint: Any) -> None:
    for weights in checkpoint.layers.values():
        for array in weights.values():
            array.read()


def mutant(folder: Path, kind: str, original: Path, seed: int) -> Path:
    rng = random.Random(seed)
    target = folder / original.name
    if original.is_dir():
        shutil.copytree(original, target)
        file = rng.choice(sorted(p for p in target.iterdir()))
        file.write_bytes(mutate(file.read_bytes(), rng, 4096))
        return target
    content = original.read_bytes()
    if kind == "tar":  # the mutation goes inside: gzip's checksum would catch every other one
        import gzip

        content = (
            gzip.compress(mutate(gzip.decompress(content), rng, 4096), 1)
            if rng.random() < 0.7
            else mutate(content, rng, 512)
        )
        target.write_bytes(content)
        return target
    if (
        kind in ("timm", "lukemelas", "torchvision") and rng.random() < 0.7
    ):  # into the pickle, checksum made right
        import zipfile

        with zipfile.ZipFile(original) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        members["archive/data.pkl"] = mutate(members["archive/data.pkl"], rng, 4096)
        with zipfile.ZipFile(target, "w") as archive:
            for name, part in members.items():
                archive.writestr(name, part)
        return target
    target.write_bytes(mutate(content, rng, 4096))
    return target


def run(files: int, workers: int, batch_size: int, first_seed: int) -> dict[str, Any]:
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    problems: list[dict[str, Any]] = []
    slowest, peak = (0.0, ""), 0.0
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        originals = {kind: str(path) for kind, path in seeds(Path(folder)).items()}
        kinds = sorted(originals)
        jobs = [
            (f"{kinds[i % len(kinds)]}#{first_seed + i}", kinds[i % len(kinds)], first_seed + i)
            for i in range(files)
        ]
        batches = [jobs[i : i + batch_size] for i in range(0, files, batch_size)]
        running: list[tuple[Any, Any, float, list[str]]] = []
        while batches or running:
            while batches and len(running) < workers:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=work, args=(batches.pop(0), originals, theirs))
                process.start()
                theirs.close()
                running.append((process, ours, time.monotonic(), [""]))
            for entry in list(running):
                process, pipe, started, current = entry
                finished = False
                try:
                    while pipe.poll(0.05):
                        outcome, name, figure = pipe.recv()
                        if outcome == "started":
                            current[0] = name
                        elif outcome == "done":
                            peak, finished = max(peak, figure), True
                        else:
                            current[0] = ""
                            slowest = max(slowest, (figure, name))
                            counts[name.split("#")[0]][outcome.split(":")[0]] += 1
                            if outcome not in ("read", "refused") or figure > SLOW_S:
                                problems.append({"file": name, "outcome": outcome, "seconds": figure})
                except EOFError:
                    finished = True
                hung = time.monotonic() - started > BATCH_TIMEOUT_S
                if hung:
                    process.kill()
                if finished or hung:
                    process.join()
                    if process.exitcode or hung:
                        problems.append(
                            {
                                "file": current[0],
                                "outcome": f"crash {process.exitcode}" if not hung else "hang",
                            }
                        )
                        counts[current[0].split("#")[0]]["crash"] += 1
                    running.remove(entry)
    return {
        "files": sum(sum(c.values()) for c in counts.values()),
        "by_format": {kind: dict(c) for kind, c in sorted(counts.items())},
        "slowest_s": slowest,
        "peak_rss_mb": round(peak / 2**20),
        "problems": problems,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=12_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    start = time.monotonic()
    result = run(arguments.files, arguments.workers, arguments.batch, arguments.seed)
    result["seconds"] = round(time.monotonic() - start)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
