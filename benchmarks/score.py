"""Many photographs: `export.score` beside the plain loop, in turns; and the memory of a long run.

    python benchmarks/score.py FILE PHOTOGRAPHS                 # two rounds of 200 photographs, small and large
    python benchmarks/score.py FILE PHOTOGRAPHS --many 100000   # memory while so many links to them are scored

The plain loop is what people write first: every JPEG at its full size, one after the other, and the file on all cores.
What the machine allows is its cores divided by the CPU seconds that one process with one thread spends on a picture.
Where other programs run, look at the CPU seconds: they are what a quiet machine's rate comes from.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from keras_effnet import export
from keras_effnet.pictures.decoding import decode_picture
from keras_effnet.pictures.folders import list_images
from keras_effnet.system.resources import cores

LARGE = (4000, 3000)  # twelve megapixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="an exported file")
    parser.add_argument("photographs", type=Path, help="a folder")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--ray", action="store_true", help="Ray on this machine too, once it runs (extra ray)"
    )
    parser.add_argument("--many", type=int, help="links to score, while the memory is watched")
    arguments = parser.parse_args()
    small = [str(path) for path in list_images(arguments.photographs)]
    with tempfile.TemporaryDirectory() as folder:
        if arguments.many:
            watch(arguments.file, linked(small, arguments.many, Path(folder)), Path(folder) / "scores.jsonl")
            return
        few = enlarged(small[: arguments.count // 4], Path(folder))
        # links, since `score` asks about a file that is named twice once
        links = list_images(linked(small, arguments.count, Path(folder)))
        for name, pictures in (("small", [str(path) for path in links]), ("12 megapixels", few)):
            compare(name, arguments.file, pictures, arguments.rounds, ray=arguments.ray)


def compare(name: str, file: str, photographs: list[str], rounds: int, *, ray: bool) -> None:
    """The plain loop, one process of one thread, and all of them, in turns."""
    contestants: dict[str, Callable[[], object]] = {
        "plain loop": lambda: plain(file, photographs),
        "one process": lambda: list(export.score(file, photographs, workers=1)),
        f"{cores()} processes": lambda: list(export.score(file, photographs, workers=cores())),
    }
    if ray:
        contestants["Ray"] = lambda: list(export.score(file, photographs, engine="ray"))
        list(export.score(file, photographs[:2], engine="ray"))  # starts it, which takes seconds
    figures: dict[str, list[tuple[float, float]]] = {each: [] for each in contestants}
    for _ in range(rounds):
        for each, run in contestants.items():
            wall, cpu = time.monotonic(), cpu_seconds()
            run()
            figures[each].append((time.monotonic() - wall, cpu_seconds() - cpu))
    count = len(photographs)
    for each, values in figures.items():
        walls, cpus = zip(*values, strict=True)
        print(
            f"{name:14} {each:12} {count / np.median(walls):6.1f} pictures/s, {1000 * np.median(cpus) / count:6.1f} "
            f"CPU ms each, {np.median(cpus) / np.median(walls):.2f} of {cores()} cores",
            flush=True,
        )


def plain(file: str, photographs: list[str]) -> None:
    runner = export.load(file)
    for photograph in photographs:
        picture = decode_picture(photograph).picture
        runner(runner.framing.square(picture, int(runner.size[0] or 0))[np.newaxis])


def cpu_seconds() -> float:
    """Of this process and of those that have ended."""
    own, ended = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def enlarged(photographs: list[str], folder: Path) -> list[str]:
    """Twelve megapixels with a camera's grain."""
    grain = np.random.default_rng(0)
    made = []
    for index, photograph in enumerate(photographs):
        pixels = np.asarray(
            Image.open(photograph).convert("RGB").resize(LARGE, Image.Resampling.BICUBIC), np.int16
        )
        noisy = pixels + grain.integers(-6, 7, pixels.shape, dtype=np.int16)
        made.append(str(folder / f"{index}.jpg"))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(made[-1], quality=90)
    return made


def linked(photographs: list[str], count: int, folder: Path) -> Path:
    """A folder with links to the photographs, again and again."""
    place = folder / "links"
    place.mkdir()
    for index in range(count):
        (place / f"{index:07}.jpg").symlink_to(Path(photographs[index % len(photographs)]).absolute())
    return place


def watch(file: str, photographs: Path, out: Path) -> None:
    """The resident memory of this process and the largest of its workers, at each tenth of the way."""
    scores = export.score(file, photographs)
    over = threading.Event()

    def look() -> None:
        told = -1
        while not over.wait(0.2):
            parts = sum(1 for _ in out.with_name(f"{out.name}.parts").glob("*.npz"))
            tenth = parts * 32 * 10 // len(scores)
            if tenth > told:
                told = tenth
                others = [resident(pid) for pid in children()]
                print(
                    f"{tenth * 10:3} %: {resident(os.getpid()):5.0f} MB, workers {max(others, default=0):5.0f} MB",
                    flush=True,
                )

    watcher = threading.Thread(target=look)
    watcher.start()
    start = time.monotonic()
    written = scores.write(out)
    over.set()
    watcher.join()
    rows = sum(1 for _ in out.open(encoding="utf-8"))
    print(
        f"{written.photographs} photographs, {written.failed} unreadable, {rows} rows, {time.monotonic() - start:.0f} s"
    )


def children() -> list[int]:
    return [int(text) for text in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()] + [
        int(text)
        for task in Path("/proc/self/task").iterdir()
        if task.name != str(os.getpid())
        for text in (task / "children").read_text().split()
    ]


def resident(pid: int) -> float:
    """Megabytes in memory; 0 for a process that is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
