"""The Triton bundle in the real server beside `export.score` and a plain loop, on one machine in one run.

    python benchmarks/serve.py FILE PHOTOGRAPHS                  # rates at 1, 8 and 16 clients, HTTP and gRPC
    python benchmarks/serve.py FILE PHOTOGRAPHS --minutes 10     # load, with a second version in the middle

The server of `tests/triton_server.py`; its clients are threads of one process of their own, which send the bytes of one
photograph after the other. All of it shares this machine's cores, so that the clients' CPU time is told too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from score import cpu_seconds, linked, plain

from keras_effnet import export
from keras_effnet.cli import main as keras_effnet
from keras_effnet.pictures.folders import list_images
from keras_effnet.system.resources import cores

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import triton_server

MODEL = "served"
CLIENTS = (1, 8, 16)
SCORED = 400  # photographs, for the plain loop and for `score`
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="an ONNX file")
    parser.add_argument("photographs", type=Path, help="a folder")
    parser.add_argument("--seconds", type=float, default=15, help="for each number of clients")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--instances", type=int, default=cores())
    parser.add_argument("--minutes", type=float, help="load of 16 clients instead, and a second version")
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)  # protocol, address, clients, seconds
    arguments = parser.parse_args()
    files = [str(path) for path in list_images(arguments.photographs)]
    if arguments.client:
        protocol, address, clients, seconds = arguments.client
        print(json.dumps(asked(protocol, address, int(clients), float(seconds), files)))
        return
    with serving(arguments) as (server, repository):
        if arguments.minutes:
            endure(arguments, server, repository)
            return
        for round_ in range(arguments.rounds):
            with (
                tempfile.TemporaryDirectory() as folder
            ):  # `score` asks about a file that is named twice once
                links = list_images(linked(files, SCORED, Path(folder)))
                compare(arguments, server, [str(path) for path in links], warm=round_ == 0)


@contextmanager
def serving(arguments: argparse.Namespace) -> Iterator[tuple[triton_server.Server, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        repository = bundled(arguments, Path(folder) / "repository", 1)
        options = ("--model-control-mode=explicit", f"--load-model={MODEL}")
        with triton_server.serving(repository, Path(folder), options=options) as server:
            yield server, repository


def bundled(arguments: argparse.Namespace, out: Path, version: int) -> Path:
    command = ["bundle", "triton", str(arguments.file), "--name", MODEL, "--out", str(out)]
    assert (
        keras_effnet([*command, "--instances", str(arguments.instances), "--model-version", str(version)])
        == 0
    )
    return out


def compare(
    arguments: argparse.Namespace, server: triton_server.Server, files: list[str], *, warm: bool
) -> None:
    if warm:
        load(arguments, server, "grpc", 8, 3)
    for name, run in (
        ("plain loop", lambda: plain(str(arguments.file), files)),
        ("score", lambda: list(export.score(arguments.file, files, workers=cores()))),
    ):
        count = len(files)
        wall, cpu = time.monotonic(), cpu_seconds()
        run()
        wall, cpu = time.monotonic() - wall, cpu_seconds() - cpu
        print(f"{name:15} {count / wall:6.1f} pictures/s, {1000 * cpu / count:5.1f} CPU ms each", flush=True)
    for protocol, clients in itertools.product(("http", "grpc"), CLIENTS):
        before = used(server)
        told = load(arguments, server, protocol, clients, arguments.seconds)
        seconds = used(server) - before
        print(f"{protocol} {clients:2} clients {line(told, seconds)}, {memory(server):.0f} MB", flush=True)


def line(told: dict[str, Any], server_seconds: float) -> str:
    p50, p99 = np.percentile(told["ms"], [50, 99])
    count = len(told["ms"])
    return (
        f"{count / told['wall']:6.1f} pictures/s, p50 {p50:6.1f} ms, p99 {p99:6.1f}, failed {told['failed']}; CPU ms each: "
        f"server {1000 * server_seconds / count:.1f}, clients {1000 * told['cpu'] / count:.1f}"
    )


def load(
    arguments: argparse.Namespace, server: triton_server.Server, protocol: str, clients: int, seconds: float
) -> dict[str, Any]:
    """What the clients' process found."""
    address = getattr(server, protocol)
    command = [sys.executable, __file__, str(arguments.file), str(arguments.photographs), "--client"]
    made = subprocess.run(
        [*command, protocol, address, str(clients), str(seconds)], check=True, stdout=subprocess.PIPE
    )
    return dict(json.loads(made.stdout))


def asked(protocol: str, address: str, clients: int, seconds: float, files: list[str]) -> dict[str, Any]:
    """Ask for so long; milliseconds of each answer, and how many failed."""
    module = __import__(f"tritonclient.{protocol}", fromlist=["x"])
    contents = [np.array([[Path(file).read_bytes()]], object) for file in files]
    end = time.monotonic() + seconds
    answers: list[float] = []
    versions: dict[str, int] = {}
    failed: list[str] = []

    def ask(first: int) -> None:
        with module.InferenceServerClient(address) as client:
            for place in itertools.count(first * len(contents) // clients):
                if time.monotonic() > end:
                    return
                entry = module.InferInput("image", [1, 1], "BYTES")
                entry.set_data_from_numpy(contents[place % len(contents)])
                start = time.monotonic()
                try:
                    answer = client.infer(MODEL, [entry])
                    if error := answer.as_numpy("error").ravel()[0]:
                        raise RuntimeError(error.decode())
                    told = answer.get_response()
                    version = told["model_version"] if protocol == "http" else told.model_version
                    versions[version] = versions.get(version, 0) + 1
                except Exception as error:
                    failed.append(str(error))
                answers.append(1000 * (time.monotonic() - start))

    start, cpu = time.monotonic(), cpu_seconds()
    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(ask, range(clients)))
    told = {"ms": answers, "failed": len(failed), "errors": failed[:5], "versions": versions}
    return told | {"wall": time.monotonic() - start, "cpu": cpu_seconds() - cpu}


def endure(arguments: argparse.Namespace, server: triton_server.Server, repository: Path) -> None:
    """Minutes of load; half of the way a second version takes over."""
    seconds = 60 * arguments.minutes
    over = threading.Event()

    def look() -> None:
        start = time.monotonic()
        while not over.wait(seconds / 20):
            print(f"{time.monotonic() - start:5.0f} s: {memory(server):.0f} MB", flush=True)

    def replace() -> None:
        import tritonclient.http

        if over.wait(seconds / 2):
            return
        made = bundled(arguments, repository.parent / "next", 2)
        shutil.move(made / MODEL / "2", repository / MODEL / "2")
        start = time.monotonic()
        with tritonclient.http.InferenceServerClient(server.http) as client:
            client.load_model(MODEL)
        print(f"second version after {time.monotonic() - start:.1f} s", flush=True)

    watchers = [threading.Thread(target=each) for each in (look, replace)]
    for each in watchers:
        each.start()
    before = used(server)
    told = load(arguments, server, "grpc", 16, seconds)
    seconds_used = used(server) - before
    over.set()
    for each in watchers:
        each.join()
    print(line(told, seconds_used))
    print(f"answers by version: {told['versions']}; errors: {told['errors']}")


def family(pid: int) -> list[int]:
    """A process and those that it started, and theirs."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = [int(text) for text in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            found += family(child)
    return found


def used(server: triton_server.Server) -> float:
    """CPU seconds of the server and its models' processes so far; those of a version that is gone are lost."""
    total = 0
    for pid in family(server.process.pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory(server: triton_server.Server) -> float:
    """Megabytes of the server and its models' processes; what they share is counted once (PSS)."""
    total = 0
    for pid in family(server.process.pid):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(next(row for row in text.splitlines() if row.startswith("Pss:")).split()[1])
    return total / 1e3


if __name__ == "__main__":
    main()
