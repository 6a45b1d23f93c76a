"""A bundled page in a headless Chromium beside `keras_effnet.export.load`: the same scores, and how long they take.

    npm install --prefix build puppeteer-core @litertjs/core@2.5.3 @litertjs/wasm-utils@2.5.3 @mediapipe/tasks-vision
    keras-effnet bundle web out/lite0_float32.tflite --out build/site --assets build/node_modules
    python benchmarks/web.py build/site … --photos DIR [--limit 100] [--mediapipe] [--screenshots DIR]

`--mediapipe` lets MediaPipe's own web task classify the same photographs, whole and at the network's square.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
MODULES = ROOT / "build" / "node_modules"
DRIVER = Path(__file__).with_name("web_page.mjs")
BATCH = 25  # photographs in one run of the browser
# WebGPU without a GPU: the same arithmetic, and no time worth reading
SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing: a page asks for many files."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder that is served on this machine within the block."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def has_tools() -> bool:
    """Whether a page can be opened here."""
    installed = (MODULES / "puppeteer-core").is_dir() and (MODULES / "@litertjs" / "core").is_dir()
    return installed and all(shutil.which(tool) for tool in ("node", "chromium"))


def open_page(site: Path, *, timeout: float = 300, query: str = "", **task: Any) -> dict[str, Any]:
    """What a page does in a browser; the tasks and answers are those of `web_page.mjs`."""
    with served(site) as address:
        done = subprocess.run(
            ["node", str(DRIVER), str(MODULES), str(shutil.which("chromium"))],
            input=json.dumps(task | {"url": address + query}),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"The browser failed: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


def scores_of(site: Path, photos: list[Path], **task: Any) -> dict[str, Any]:
    """All scores, pixels and times of photographs in a page, a batch at a time."""
    found: dict[str, Any] = {key: [] for key in ("scores", "pixels", "read", "computed")}
    processor = ""
    for start in range(0, len(photos), BATCH):
        batch = [str(path) for path in photos[start : start + BATCH]]
        said = open_page(site, photographs=batch, **task)
        for key, values in found.items():
            values.extend(said[key])
        processor = said["processor"]
    pixels = [np.frombuffer(base64.b64decode(text), np.uint8) for text in found["pixels"]]
    return found | {"pixels": pixels, "processor": processor}


def row(site: Path, photos: list[Path], processor: str) -> list[str]:
    """The cells of one page."""
    from keras_effnet.export import load

    runner = load(site / "model.tflite")
    pictures = [runner.framing.read(path, int(runner.size[0] or 0)) for path in photos]
    expected = runner(np.stack(pictures))
    said = scores_of(site, photos, processor=processor, flags=SOFTWARE_GPU if processor == "webgpu" else ())
    found = np.array(said["scores"])
    same = np.mean(
        [np.array_equal(made, wanted.ravel()) for made, wanted in zip(said["pixels"], pictures, strict=True)]
    )
    agreement = np.mean(found.argmax(1) == expected.argmax(1))
    return [
        runner.recipe,
        said["processor"],
        f"{same:.0%}",
        f"{agreement:.1%}",
        f"{np.abs(found - expected).max():.1e}",
        f"{np.median(said['computed']):.0f}",
        f"{np.median(said['read']):.0f}",
    ]


def in_mediapipe(site: Path, photos: list[Path]) -> list[list[str]]:
    """The same photographs in MediaPipe's web task: its best classes against ours, and its time."""
    from keras_effnet.export import load

    runner = load(site / "model.tflite")
    expected = runner(np.stack([runner.framing.read(path, int(runner.size[0] or 0)) for path in photos]))
    share = json.loads((site / "model.json").read_text(encoding="utf-8"))["framing"]
    fraction = share["side"] / (share["side"] + share["margin"])
    rows = []
    for name, crop in (("stretched", None), ("the network's square", fraction)):
        found, times = [], []
        for start in range(0, len(photos), BATCH):
            batch = [str(path) for path in photos[start : start + BATCH]]
            said = open_page(
                site, mediapipe=str(MODULES / "@mediapipe" / "tasks-vision"), crop=crop, whole=batch
            )
            found += said["best"]
            times += said["computed"]
        rows.append(
            [name, f"{np.mean(np.array(found) == expected.argmax(1)):.1%}", f"{np.median(times):.0f}"]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sites", nargs="+", type=Path)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--processor", default="wasm", choices=("wasm", "webgpu", "fastest"))
    parser.add_argument("--mediapipe", action="store_true")
    parser.add_argument("--screenshots", type=Path)
    arguments = parser.parse_args()
    photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix in (".jpg", ".png"))
    photos = photos[: arguments.limit]
    print(
        "| recipe | processor | same pixels | same class | largest difference | network, ms | reading, ms |"
    )
    print("|---|---|---|---|---|---|---|")
    for site in arguments.sites:
        print("| " + " | ".join(row(site, photos, arguments.processor)) + " |", flush=True)
        if arguments.screenshots is not None:
            for phone, view in ((True, (390, 844)), (False, (1280, 800))):
                shot = arguments.screenshots.absolute() / f"{site.name}_{view[0]}.png"
                open_page(site, phone=phone, chosen=[str(photos[0])], screenshots={str(shot): view})
    if arguments.mediapipe:
        for cells in in_mediapipe(arguments.sites[0], photos):
            print(f"| MediaPipe, {cells[0]} | same class {cells[1]} | {cells[2]} ms |")


if __name__ == "__main__":
    main()
