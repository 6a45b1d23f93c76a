"""Does a TFLite file answer on ARM64 as it does here? LiteRT's own wheel for ARM64, in an emulator.

On Debian, with the emulator of release 13 or newer (QEMU 10; QEMU 7.2 crashes when LiteRT opens a file) and an ARM64
Python beside the system's:

    apt-get install qemu-user
    python benchmarks/arm64.py prepare build/arm64
    python benchmarks/arm64.py run build/arm64 FILE.tflite … --photos DIR [--limit 100] [--emulator qemu-aarch64]

`prepare` downloads Debian's arm64 packages of Python 3.11 without installing them, and LiteRT's and NumPy's wheels.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

PYTHON = "3.11"  # of Debian 12
PACKAGES = [
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libc6",
    "libexpat1",
    "zlib1g",
    "libssl3",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libstdc++6",
    "libgcc-s1",
    "libuuid1",
    "libcrypt1",
]
GLIBC = ("manylinux2014", "manylinux_2_27", "manylinux_2_28")  # that wheels may ask for


def main() -> None:
    if sys.argv[1] == "child":
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    prepared = actions.add_parser("prepare")
    prepared.add_argument("folder", type=Path)
    ran = actions.add_parser("run")
    ran.add_argument("folder", type=Path)
    ran.add_argument("files", nargs="+", type=Path)
    ran.add_argument("--photos", type=Path, required=True)
    ran.add_argument("--limit", type=int, default=100)
    ran.add_argument("--emulator", default="qemu-aarch64")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    if arguments.action == "prepare":
        prepare(folder)
        return
    photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix in (".jpg", ".png"))
    print(
        "| file | same best class | largest difference of a score | s for each picture |\n|---|---|---|---|"
    )
    for file in arguments.files:
        print(
            f"| {file.name} | {compare(folder, file, photos[: arguments.limit], arguments.emulator)} |",
            flush=True,
        )


def prepare(folder: Path) -> None:
    """An ARM64 Python with LiteRT in a folder."""
    for name in ("debs", "root", "site", "wheels", "lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "--quiet", "-o", "APT::Architecture=arm64", "-o", "APT::Architectures=arm64"]
    apt += ["-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
    apt += ["-o", "Dir::State::status=/dev/null"]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", *PACKAGES], cwd=folder / "debs", check=True)
    for package in (folder / "debs").glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(folder / "root")], check=True)
    platforms = [word for glibc in GLIBC for word in ("--platform", f"{glibc}_aarch64")]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", *platforms]
    pip += ["--python-version", PYTHON, "--dest", str(folder / "wheels"), "ai-edge-litert", "numpy"]
    subprocess.run(pip, check=True)
    for wheel in (folder / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")


def compare(folder: Path, file: Path, photos: list[Path], emulator: str) -> str:
    """The cells of one file."""
    from keras_effnet.export import load

    runner = load(file)
    pictures = np.stack([runner.framing.read(path, int(runner.size[0] or 0)) for path in photos])
    expected = runner(pictures)
    with tempfile.TemporaryDirectory() as scratch:
        given, made = Path(scratch) / "given.npy", Path(scratch) / "made.npy"
        np.save(given, pictures)
        python = folder / "root" / "usr" / "bin" / f"python{PYTHON}"
        command = [emulator, "-L", str(folder / "root"), str(python), str(Path(__file__).absolute())]
        environment = os.environ | {"PYTHONPATH": str(folder / "site")}
        begin = time.perf_counter()
        subprocess.run(
            [*command, "child", str(file.absolute()), str(given), str(made)], check=True, env=environment
        )
        took = (time.perf_counter() - begin) / len(photos)
        found = np.load(made)
    same = np.mean(found.argmax(1) == expected.argmax(1))
    return f"{same:.1%} | {np.abs(found - expected).max():.1e} | {took:.1f}"


def child(file: str, given: Path, made: Path) -> None:
    """The scores of pictures. Runs in the emulator."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file, num_threads=1)
    interpreter.allocate_tensors()
    entry, leaving = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = leaving["quantization"]
    rows = []
    for picture in np.load(given):
        interpreter.set_tensor(entry["index"], picture[np.newaxis].astype(entry["dtype"]))
        interpreter.invoke()
        row = interpreter.get_tensor(leaving["index"])[0].astype(np.float32)
        rows.append((row - zero_point) * scale if scale else row)
    np.save(made, np.stack(rows))


if __name__ == "__main__":
    main()
