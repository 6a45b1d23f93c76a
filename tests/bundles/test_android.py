"""`keras-effnet bundle android`: what is in the project, and what its Kotlin does on a computer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from material import ROOT
from PIL import Image

from keras_effnet.cli import main
from keras_effnet.export import to_tflite
from keras_effnet.pictures.framing import Framing

KOTLIN = ROOT / "build" / "node_modules" / "kotlin-compiler" / "bin" / "kotlinc"
STUBS = Path(__file__).parent / "android_stubs"
ASSETS = Path("app/src/main/assets")
SOURCES = Path("app/src/main/kotlin/com/example/classifier")
NAMES = ("cat", "dog", "fish")


@pytest.fixture(scope="module")
def app(nano: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of an integer file."""
    folder = tmp_path_factory.mktemp("android")
    pixels = np.random.default_rng(2).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    file = to_tflite(nano, folder / "nano.tflite", "int8", calibration=pixels, labels=NAMES)
    assert main(["bundle", "android", str(file), "--out", str(folder / "app")]) == 0
    return folder / "app"


@pytest.fixture(scope="module")
def program(app: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The app's code with stubs of Android, compiled for a computer; `Check.kt` says what it can be asked."""
    if not (KOTLIN.is_file() and shutil.which("java") and shutil.which("bash")):
        pytest.skip("needs java and npm's kotlin-compiler in build/node_modules")
    jar = tmp_path_factory.mktemp("kotlin") / "app.jar"
    sources = [*(app / SOURCES).glob("*.kt"), *STUBS.glob("*.kt")]
    command = ["bash", str(KOTLIN), "-nowarn", "-no-reflect", "-include-runtime", "-d", str(jar)]
    done = subprocess.run(
        [*command, *map(str, sources)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return ["java", "-cp", str(jar), "com.example.classifier.CheckKt"]


def test_project_has_the_network_its_facts_and_its_names(app: Path) -> None:
    assert sorted(path.name for path in (app / ASSETS).iterdir()) == [
        "labels.txt",
        "model.json",
        "model.tflite",
    ]
    assert (app / ASSETS / "labels.txt").read_text(encoding="utf-8").splitlines() == list(NAMES)
    facts = json.loads((app / ASSETS / "model.json").read_text(encoding="utf-8"))
    assert facts["input"] == "uint8" and facts["output"]["scale"] == 1 / 256
    for file in app.rglob("*.xml"):
        ElementTree.parse(file)
    readme = (app / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("# nano on Android\n") and "val w = 0.5f * shorter" in readme
    assert "the central square (50 % of the shorter side), Pillow's" in readme
    assert "$" not in readme


def test_app_names_only_resources_that_it_has(app: Path) -> None:
    """What Gradle would find missing: the stubs' R is written by hand."""
    strings = ElementTree.parse(app / "app/src/main/res/values/strings.xml").getroot()
    known = {f"R.string.{each.get('name')}" for each in strings} | {"R.layout.main"}
    layout = ElementTree.parse(app / "app/src/main/res/layout/main.xml").getroot()
    identifier = "{http://schemas.android.com/apk/res/android}id"
    known |= {f"R.id.{each.get(identifier, '').removeprefix('@+id/')}" for each in layout.iter()}
    text = (app / SOURCES / "MainActivity.kt").read_text(encoding="utf-8")
    used = set(re.findall(r"\bR\.\w+\.\w+", text))
    assert used and used <= known


@pytest.mark.parametrize(
    ("size", "framing"),
    [
        ((97, 60), Framing("bilinear", 32)),
        ((60, 200), Framing("bicubic", 0)),  # tall: Pillow begins with the columns
        ((40, 30), Framing("bicubic", 32, 1)),  # enlarged, gray
    ],
)
def test_square_of_the_app_equals_the_readers_to_the_last_bit(
    size: tuple[int, int], framing: Framing, program: list[str], tmp_path: Path
) -> None:
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    raw, out = tmp_path / f"{width}x{height}", tmp_path / "out"
    raw.write_bytes(pixels.tobytes())
    told = ["48", str(framing.margin), framing.interpolation, str(framing.channels)]
    subprocess.run([*program, "square", str(raw), str(out), *told], check=True)
    picture = Image.fromarray(pixels[..., :3]).convert("L" if framing.channels == 1 else "RGB")
    assert np.array_equal(np.frombuffer(out.read_bytes(), np.uint8), framing.square(picture, 48).ravel())


def test_app_gives_raw_unsigned_bytes_and_reads_unsigned_scores(program: list[str], app: Path) -> None:
    asked = [*program, "classify", str(app / ASSETS), "2 -56 54", "gpu"]  # -56 are the bits of 200
    said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == [
        "CPU | 0 128 255 | Framing(side=32, margin=32, interpolation=bicubic, channels=3)",
        "dog 0.7813",
        "fish 0.2109",
        "cat 0.0078",
    ]


@pytest.mark.parametrize(("gpu", "processor"), [("gpu", "GPU"), ("none", "CPU")])
def test_app_computes_floats_on_the_gpu_or_on_the_cpu_without_one(
    gpu: str, processor: str, program: list[str], app: Path, tmp_path: Path
) -> None:
    facts = json.loads((app / ASSETS / "model.json").read_text(encoding="utf-8"))
    output = {"type": "float32", "scale": 1.0, "zeroPoint": 0, "kind": "logits", "thresholds": [0.5]}
    ends = {"input": "float32", "output": output}
    (tmp_path / "model.json").write_text(json.dumps(facts | ends, indent=1), encoding="utf-8")
    shutil.copy(app / ASSETS / "labels.txt", tmp_path)
    asked = [*program, "classify", str(tmp_path), "0 0.6931472 -40", gpu]
    said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said[0].startswith(f"{processor} | 0 128 255 | ")
    assert said[1:] == ["dog 0.6667", "cat 0.3333 below", "fish 0.0000 below"]
