"""What importing costs, and what the built wheel holds."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import ROOT, TESTS

from keras_effnet.costs import cost_of_variant
from keras_effnet.explain import Explanation
from keras_effnet.network.variants import get_variant
from keras_effnet.scaling.budget import Fit
from keras_effnet.train.folder import RunFolder
from keras_effnet.train.results import Outcome
from keras_effnet.train.settings import Settings

HEAVY = (
    "tf2onnx",
    "tensorflow_model_optimization",
    "litert_quantizer",
    "ai_edge_litert",
    "onnxruntime",
    "onnx",
)
CHECK = f"import sys; print([m for m in {HEAVY!r} if m in sys.modules])"


def _python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_import_loads_neither_converters_nor_runtimes() -> None:
    code = "import keras_effnet, keras_effnet.export; keras_effnet.EfficientNetB0; " + CHECK
    assert _python(code) == "[]"


def test_import_check_notices_a_heavy_import() -> None:
    assert _python("import onnx; " + CHECK) == "['onnx']"


def test_import_alone_does_not_even_load_keras() -> None:
    assert _python("import sys, keras_effnet; print('keras' in sys.modules)") == "False"


PUBLIC = (
    "CompoundScaling EfficientNet EfficientNetB0 EfficientNetB1 EfficientNetB2 EfficientNetB3 EfficientNetB4 "
    "EfficientNetB5 EfficientNetB6 EfficientNetB7 EfficientNetB8 EfficientNetL2 EfficientNetLite0 "
    "EfficientNetLite1 EfficientNetLite2 EfficientNetLite3 EfficientNetLite4 baselines cost decode_predictions "
    "errors evaluate explain export load_image load_weights preprocess_input scaling train transfer"
)


def test_dir_shows_the_public_names_and_no_other() -> None:
    code = (
        "import keras_effnet; before = dir(keras_effnet); keras_effnet.load_image; keras_effnet.cost\n"
        "assert dir(keras_effnet) == before; print(*before)"
    )
    assert _python(code) == PUBLIC


@pytest.mark.parametrize("name", ["baselines", "explain", "export", "scaling", "transfer"])
def test_dir_of_a_public_module_shows_its_public_names_and_no_other(name: str) -> None:
    module = importlib.import_module(f"keras_effnet.{name}")
    assert dir(module) == sorted(module.__all__)


def test_every_public_name_exists() -> None:
    import keras_effnet

    for name in keras_effnet.__all__:
        value = getattr(keras_effnet, name)
        assert callable(value) or value.__name__ == f"keras_effnet.{name}"
    with pytest.raises(AttributeError, match="EfficientNetB9"):
        keras_effnet.EfficientNetB9  # noqa: B018 - the access is the test


def test_backend_can_be_chosen_after_the_import() -> None:
    code = (
        "import os, keras_effnet; os.environ['KERAS_BACKEND'] = 'jax'\n"
        "keras_effnet.EfficientNet; import keras; print(keras.backend.backend())"
    )
    assert _python(code) == "jax"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(ROOT)]
    subprocess.run(pip, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_wheel_maps_export_into_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "keras_effnet/export/__init__.py" in names
    assert {"keras_effnet/py.typed", "keras_effnet/__init__.pyi"} <= set(names)
    assert "keras_effnet/export/templates/report.html" in names
    assert "keras_effnet/reports/templates/judged.html" in names
    assert "keras_effnet/photos/cat.jpg" in names
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"keras_effnet"}


def test_wheel_holds_every_module_and_what_bundles_are_made_of(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "keras_effnet").rglob("*.py")}
    modules |= {
        f"keras_effnet/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "export").rglob("*.py")
    }
    assert modules <= names
    bundled = {
        f"keras_effnet/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "export" / "bundles" / "templates").rglob("*")
        if path.is_file()
    }
    assert len(bundled) >= 18 and bundled <= names


def test_installed_wheel_classifies_and_exports(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    code = (
        "import keras_effnet, keras_effnet.export as export\n"
        "from keras_effnet.pictures.reading import sample_images\n"
        "model = keras_effnet.EfficientNet('lite0', weights=None, input_shape=(64, 64, 3), classes=3)\n"
        "path = export.to_tflite(model, 'm.tflite', labels=['a', 'b', 'c'])\n"
        "print(keras_effnet.__file__)\n"
        "print(export.verify(model, path, sample_images(64)).ok)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(TESTS)])}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=True,
    )
    origin, ok = result.stdout.split()[-2:]
    assert origin.startswith(str(site)) and ok == "True"


def test_results_print_as_one_short_line() -> None:
    cost = cost_of_variant("lite0")
    fit = Fit(
        phi=0.0,
        dimension="compound",
        member=get_variant("lite0"),
        cost=cost,
        latency_ms=None,
        next_phi=0.01,
        exceeded=("max_macs",),
    )
    rest: Any = None
    run = RunFolder(path=Path("run"), settings=Settings(data="photographs"))
    metrics = {"test": {"accuracy": 0.9}}
    outcome = Outcome(
        folder=run, model=rest, listing=rest, metrics=metrics, probabilities=rest, judged="test", framing=rest
    )
    heat = np.zeros((7, 7), np.float32)
    found = Explanation(heat=heat, evidence=heat, class_index=3, score=8.5, bias=None, output=0.5)
    assert [repr(each) for each in (cost, fit, outcome, found)] == [
        "Cost(input_shape=(224, 224, 3), batch=1, params=4652008, macs=385187552, "
        "peak_activation_bytes=9633792, file_bytes=18776096)",
        "<Fit 'lite0' of dimension 'compound': 4,652,008 parameters, 385,187,552 multiply-adds>",
        "<Outcome in 'run': test accuracy 0.900>",
        "Explanation(class_index=3, score=8.5, bias=None, output=0.5)",
    ]
