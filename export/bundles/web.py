"""A page that classifies photographs on its visitor's own machine, with LiteRT.js: a folder for any static host.

The page's own code lies in `templates/web`. LiteRT.js comes from a CDN, or from a folder that npm filled; either
way the page runs what has the hashes below and nothing else.
"""

from __future__ import annotations

import argparse
import html
import shlex
import shutil
from pathlib import Path
from string import Template
from typing import Any

from keras_effnet.errors import InvalidInputError

from .classifier import Classifier, check_single, integrity_of, read_classifier

NAME = "web"
HELP = "a page that classifies photographs in the visitor's own browser"
EXAMPLES = """\
  keras-effnet bundle web out/lite0_int8.tflite --out site
  keras-effnet bundle web out/lite0_float32.tflite --out site --assets node_modules"""

TITLE = "What does this photograph show?"
VERSION = "2.5.3"
CDN = "https://cdn.jsdelivr.net/npm"
# role in model.json: package of @litertjs on npm, path in it, and the SHA-384 of that file in version 2.5.3
RUNTIME: dict[str, tuple[str, str, str]] = {
    "module": (
        "core",
        "dist/index.js",
        "MapSVJ/DPwvaWpp7q+Bid9O3uY1oB0KOU1QRMP+Mm5zdz5oMme/BUyX6dVAMWnPg",
    ),
    "utils": (
        "wasm-utils",
        "dist/index.js",
        "HIPwlWsctS5BRqrnvJKDVJ8SvqKB0QmiImdr6+hpP7+8UqeMJX/qrBkdfKQV2WZ/",
    ),
    "relaxed.loader": (
        "core",
        "wasm/litert_wasm_internal.js",
        "NB/Wc4iozynQO5jzJ2VFoMKbqMvwwFGWxJL/o63IJT6W2JfZbsSLxA2cF6H/mLpQ",
    ),
    "relaxed.wasm": (
        "core",
        "wasm/litert_wasm_internal.wasm",
        "AZ/Ak4CbDpjqpSr8WsnoL3Dcx6bDFA/k9b/jahok1TGHZ2OqIRjLBMiEmiNedhlC",
    ),
    "compatible.loader": (
        "core",
        "wasm/litert_wasm_compat_internal.js",
        "oh4nb8zDq6eVOpGeZE5gwDOJ16QujHLL8k/HEXt3XiPxr+8zn3YnkXP8P3BlJET1",
    ),
    "compatible.wasm": (
        "core",
        "wasm/litert_wasm_compat_internal.wasm",
        "glAZ6WjS7tLRt89pbTPXvLC1c7DCaVSfL2ngn5gZJiUuPs76fWYJy7ZeFaD0PJXx",
    ),
}
_TEMPLATES = Path(__file__).parent / "templates" / "web"
_COPIED = ("page.css", "page.js", "classifier.js", "pixels.js")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the runtime comes from, and what the page is called."""
    parser.add_argument(
        "--assets",
        type=Path,
        metavar="DIR",
        help=f"node_modules with @litertjs/core {VERSION}, to be copied into the page (default: from {CDN})",
    )
    parser.add_argument("--title", metavar="TEXT", help=f"of the page (default: {TITLE!r})")


def check(arguments: argparse.Namespace) -> None:
    """Tell what is wrong with the file and the runtime's folder."""
    check_single(arguments.files)
    if arguments.assets is not None:
        for package, path, digest in RUNTIME.values():
            _check_asset(_asset(arguments.assets, package, path), digest)


def write(arguments: argparse.Namespace, folder: Path) -> None:
    """The page, the network with its names, and the runtime if it is to be copied."""
    classifier = read_classifier(arguments.files[0])
    network = {"url": "model.tflite", "integrity": integrity_of(classifier.path)}
    classifier.write_into(folder, file=network, runtime=_runtime(folder, arguments.assets))
    for name in _COPIED:
        shutil.copyfile(_TEMPLATES / name, folder / name)
    vendored = arguments.assets is not None
    page = Template((_TEMPLATES / "index.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(arguments.title or TITLE),
        about=html.escape(_about(classifier)),
        connect="" if vendored else f" {CDN}/@litertjs/",
        also="" if vendored else " and LiteRT.js",
    )
    (folder / "index.html").write_text(page, encoding="utf-8")


def next_step(out: Path) -> str:
    """How to see it."""
    return f"python3 -m http.server --directory {shlex.quote(str(out))}    # and open http://localhost:8000"


def _about(classifier: Classifier) -> str:
    megabytes = classifier.path.stat().st_size / 1e6
    recipe = f", {classifier.recipe}" if classifier.recipe else ""
    return (
        f"{classifier.name}{recipe}, {megabytes:.1f} MB, {len(classifier.labels)} classes; "
        f"LiteRT.js {VERSION} computes in this page."
    )


def _runtime(folder: Path, assets: Path | None) -> dict[str, Any]:
    """Where the page finds each of the runtime's files, and their hashes; copies them if they are to be."""
    told: dict[str, Any] = {}
    for role, (package, path, digest) in RUNTIME.items():
        url = f"{CDN}/@litertjs/{package}@{VERSION}/{path}"
        if assets is not None:
            url = f"litert/{package}/{path}"
            target = folder / url
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_asset(assets, package, path), target)
        group, _, name = role.rpartition(".")
        (told.setdefault(group, {}) if group else told)[name] = {"url": url, "integrity": f"sha384-{digest}"}
    return told


def _asset(assets: Path, package: str, path: str) -> Path:
    return assets / "@litertjs" / package / path


def _check_asset(path: Path, digest: str) -> None:
    advice = f"Run: npm install @litertjs/core@{VERSION} @litertjs/wasm-utils@{VERSION}"
    if not path.is_file():
        raise InvalidInputError(
            f"Expected LiteRT.js {VERSION} in --assets. Received: no file {str(path)!r}. {advice}"
        )
    if integrity_of(path) != f"sha384-{digest}":
        raise InvalidInputError(
            f"Expected LiteRT.js {VERSION} in --assets. Received: {str(path)!r} of another version, or damaged. "
            f"{advice}"
        )
