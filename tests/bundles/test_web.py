"""`keras-effnet bundle web`: what is in the folder, and what the page does in a real browser."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import ROOT, as_stored, assert_refused, encoded, exif
from PIL import Image

from keras_effnet.cli import main
from keras_effnet.export import load, to_tflite
from keras_effnet.export.bundles.web import CDN, VERSION
from keras_effnet.export.tflite_file import convert_float

sys.path.insert(0, str(ROOT / "benchmarks"))
try:
    from web import MODULES, has_tools, open_page, scores_of
finally:
    sys.path.remove(str(ROOT / "benchmarks"))

needs_browser = pytest.mark.skipif(
    not has_tools(), reason="needs node, chromium, and puppeteer-core with LiteRT.js in build/node_modules"
)
PACKAGES = ("core", "wasm-utils")
NAMES = ("cat", "dog & <wolf>", "fish")


@pytest.fixture(scope="module")
def files(nano: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The nano network with float and with integer ends."""
    folder = tmp_path_factory.mktemp("files")
    pixels = np.random.default_rng(2).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    return {
        "float32": to_tflite(nano, folder / "nano.tflite", labels=NAMES),
        "int8": to_tflite(nano, folder / "nano_int8.tflite", "int8", calibration=pixels, labels=NAMES),
    }


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Wide, tall, gray, half transparent, and stored on its side."""
    folder = tmp_path_factory.mktemp("photographs")
    noise = np.random.default_rng(5).integers(0, 256, (12, 9, 4), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((90, 120), Image.Resampling.BICUBIC)
    wide = smooth.convert("RGB").resize((150, 83))
    contents = {
        "wide.jpg": encoded(wide, "JPEG", quality=95),
        "tall.png": encoded(smooth.convert("RGB"), "PNG"),
        "gray.jpg": encoded(smooth.convert("L"), "JPEG"),
        "clear.png": encoded(smooth, "PNG"),
        "turned.jpg": encoded(as_stored(wide, 6), "JPEG", quality=95, exif=exif(6)),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def _vendored(file: Path, out: Path) -> Path:
    assert main(["bundle", "web", str(file), "--out", str(out), "--assets", str(MODULES)]) == 0
    return out


def test_page_has_all_it_needs_and_reaches_the_cdn_alone(files: dict[str, Path], tmp_path: Path) -> None:
    site = tmp_path / "site"
    assert main(["bundle", "web", str(files["int8"]), "--out", str(site)]) == 0
    assert sorted(path.name for path in site.iterdir()) == [
        "classifier.js",
        "index.html",
        "labels.txt",
        "model.json",
        "model.tflite",
        "page.css",
        "page.js",
        "pixels.js",
    ]
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "connect-src 'self' https://cdn.jsdelivr.net/npm/@litertjs/;" in page
    assert "default-src 'none'" in page and "script-src 'self' blob: 'wasm-unsafe-eval';" in page
    facts = json.loads((site / "model.json").read_text(encoding="utf-8"))
    ends = {"type": "uint8", "scale": 1 / 256, "zeroPoint": 0, "kind": "classes", "thresholds": []}
    assert facts["output"] == ends
    assert facts["framing"] == {"side": 32, "margin": 32, "interpolation": "bicubic", "channels": 3}
    assert facts["runtime"]["module"]["url"] == f"{CDN}/@litertjs/core@{VERSION}/dist/index.js"
    assert facts["runtime"]["relaxed"]["wasm"]["integrity"].startswith("sha384-AZ/Ak4CbDpjq")
    assert (site / "labels.txt").read_text(encoding="utf-8").splitlines() == list(NAMES)


def test_bundle_refuses_what_no_page_can_use(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bundle", "web", str(files["float32"]), "--out", str(tmp_path / "site")]
    assert_refused([*command, "--assets", str(tmp_path)], "npm install @litertjs/core@2.5.3", capsys)
    text = tmp_path / "labels.txt"
    text.write_text("cat\ndog\n", encoding="utf-8")
    assert_refused(["bundle", "web", str(text), *command[3:]], "Expected a TFLite file", capsys)
    assert_refused([*command[:3], str(files["int8"]), *command[3:]], "Expected one TFLite file", capsys)
    assert not (tmp_path / "site").exists()
    assert main(command) == 0
    capsys.readouterr()
    assert_refused(command, "--force", capsys)


def test_bundle_refuses_an_embedding_and_signed_bytes_and_leaves_nothing(
    nano: Any, files: dict[str, Path], pixels32: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    embedding = keras.Model(nano.input, nano.get_layer("avg_pool").output, name="embedding")
    signed = {"calibration": pixels32, "labels": NAMES, "output_type": "int8"}
    for path, message in (
        (to_tflite(embedding, tmp_path / "embedding.tflite"), "Received: "),
        (to_tflite(nano, tmp_path / "signed.tflite", "int8", **signed), "--output-type uint8"),
    ):
        assert_refused(["bundle", "web", str(path), "--out", str(tmp_path / "site")], message, capsys)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".tflite"]


def test_bundle_warns_of_a_file_that_does_not_say_what_it_does_to_pixels(
    nano: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(convert_float(nano, (32, 32, 3)))
    assert main(["bundle", "web", str(bare), "--out", str(tmp_path / "site")]) == 0
    assert "which does not. It will get RGB pixels 0-255" in capsys.readouterr().err
    names = (tmp_path / "site" / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert names == ["class 0", "class 1", "class 2"]


@needs_browser
def test_page_scores_as_load_does_and_names_what_it_sees(
    files: dict[str, Path], photographs: list[Path], tmp_path: Path
) -> None:
    site = tmp_path / "site"
    assert main(["bundle", "web", str(files["float32"]), "--out", str(site)]) == 0
    runner = load(files["float32"])
    expected = runner(np.stack([runner.framing.read(path, 32) for path in photographs]))
    sure, unsure = float(expected[0].max()), float(expected[1].max())
    facts = json.loads((site / "model.json").read_text(encoding="utf-8"))
    facts["output"]["thresholds"] = [(sure + unsure) / 2]
    (site / "model.json").write_text(json.dumps(facts), encoding="utf-8")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no photograph")
    said = open_page(
        site,
        cdn={f"{CDN}/@litertjs/{name}@{VERSION}/": f"{MODULES}/@litertjs/{name}/" for name in PACKAGES},
        chosen=[str(photographs[0])],
        dropped=[str(photographs[1]), str(broken)],
        tabs=1,
        photographs=[str(path) for path in photographs],
    )

    assert np.abs(np.array(said["scores"]) - expected).max() < 1e-3
    seen, dropped, refused = said["shown"]
    none = "None of these. Nearest: "
    for shown, scores in ((seen, expected[0]), (dropped, expected[1])):
        said_first = none if scores.max() < (sure + unsure) / 2 else ""
        assert shown["status"] == f"{said_first}{NAMES[scores.argmax()]}, {100 * scores.max():.1f} %"
    assert seen["status"].startswith(none) != dropped["status"].startswith(none)
    assert [name for name, *_ in seen["names"]] == [NAMES[index] for index in expected[0].argsort()[::-1]]
    assert "ms in the network on the processor (WebAssembly)" in seen["time"]
    assert seen["label"] == "The middle of wide.jpg, which the network looks at"
    assert refused["status"].startswith("broken.jpg cannot be read as a photograph.")
    assert refused["names"] == [] and refused["label"] == "No photograph yet"
    assert said["focused"] == ["choose"]  # the camera's button is there on phones only
    assert said["errors"] == []
    assert {request.split()[0] for request in said["requests"]} == {"GET"}
    hosts = {request.split()[1].split("/")[2].split(":")[0] for request in said["requests"]}
    assert hosts == {"127.0.0.1", "cdn.jsdelivr.net"}


@needs_browser
def test_page_sees_the_same_pixels_and_scores_as_load_when_the_file_is_integer(
    files: dict[str, Path], photographs: list[Path], tmp_path: Path
) -> None:
    said = scores_of(_vendored(files["int8"], tmp_path / "site"), photographs)
    runner = load(files["int8"])
    pictures = [runner.framing.read(path, 32).ravel() for path in photographs]
    differences = [
        np.abs(made.astype(int) - wanted).max() for made, wanted in zip(said["pixels"], pictures, strict=True)
    ]
    # a browser's canvas rounds transparent pixels once more; all else is equal to the last bit
    assert differences[:3] == [0, 0, 0] and differences[4] == 0 and differences[3] <= 1
    expected = runner(np.stack(pictures).reshape(-1, 32, 32, 3))
    assert np.abs(np.array(said["scores"]) - expected).max() <= 1 / 256


@needs_browser
def test_page_refuses_a_runtime_that_was_changed(files: dict[str, Path], tmp_path: Path) -> None:
    site = _vendored(files["float32"], tmp_path / "site")
    changed = site / "litert" / "core" / "wasm" / "litert_wasm_internal.js"
    changed.write_text(changed.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    refused = open_page(site)
    assert refused["loaded"].startswith("The network could not be loaded. ")
    assert "litert_wasm_internal.js cannot be reached, or is not the file" in refused["loaded"]
