"""The real Triton binary, which PyPI's `nvidia-pytriton` holds, on free ports of 127.0.0.1.

It needs an environment of its own, since it was built for NumPy 1:

    python -m venv build/triton
    build/triton/bin/pip install 'numpy<2' pillow onnxruntime nvidia-pytriton
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 90.0
PYTHON = Path(__file__).parents[1] / "build" / "triton" / "bin" / "python"


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        http, grpc: `host:port`.
        process: to look at its memory, say.
    """

    http: str
    grpc: str
    process: subprocess.Popen[bytes]


def binary() -> Path | None:
    """The server; None where it, or the shared library of the Python that it runs models in, is not installed."""
    found = next(
        (PYTHON.parents[1] / "lib").glob("python3.*/site-packages/pytriton/tritonserver/bin/tritonserver"),
        None,
    )
    return found if _python_library().is_file() else None


def _python_library() -> Path:
    """The shared library of this Python, of which `PYTHON` is a virtual environment."""
    names = sysconfig.get_config_vars("LIBDIR", "INSTSONAME")
    return Path(*(name or "" for name in names))


@contextmanager
def serving(repository: Path, folder: Path, *, options: tuple[str, ...] = ()) -> Iterator[Server]:
    """A server of this repository, ended with the block; `folder` gets its log and what it needs of the wheel."""
    server = binary()
    assert server is not None
    home = server.parents[1]
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    backend = folder / "backends" / "python"
    shutil.copytree(home / "backends" / "python", backend, dirs_exist_ok=True)
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, backend / stub.name)
    ports = _free_ports(3)
    libraries = home.parents[1] / "nvidia_pytriton.libs"
    # the stub takes the packages of the `python3` that it finds first
    environment = os.environ | {
        "LD_LIBRARY_PATH": f"{libraries}:{_python_library().parent}",
        "PATH": f"{PYTHON.parent}:{os.environ['PATH']}",
    }
    command = [
        server,
        f"--model-repository={repository}",
        f"--backend-directory={folder / 'backends'}",
        *(f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)),
        "--exit-timeout-secs=3",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        *options,
    ]
    with (folder / "triton.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            _wait(process, ports[0], folder / "triton.log")
            yield Server(f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", process)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"Triton did not start: {log.read_text(errors='replace')[-3000:]}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
