"""What several test modules use: where the checkout lies, and weights that show a wrong mapping."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
SHARED = ROOT.parent / "shared"


def slim_variant(stages: int = 2) -> Any:
    """The first three of B0's blocks at 32 px: every kind of layer, and little to trace and to compile.

    With one stage it is a single block, which learns too.
    """
    from keras_effnet.network.table import EFFICIENTNET_B0
    from keras_effnet.network.variants import Variant

    baseline = replace(EFFICIENTNET_B0, stages=EFFICIENTNET_B0.stages[:stages])
    scale: dict[str, Any] = {"width": 1.0, "depth": 1.0, "resolution": 32, "dropout": 0.1}
    return Variant(name="slim", title="Slim", baseline=baseline, **scale)


def slim_lite() -> Any:
    """Two of Lite0's blocks at 64 px, which children of a test know by the name of `slim` too, see `CLI`."""
    from keras_effnet.network.table import EFFICIENTNET_LITE0
    from keras_effnet.network.variants import Variant

    first, second, *_ = EFFICIENTNET_LITE0.stages
    baseline = replace(EFFICIENTNET_LITE0, stages=(first, replace(second, repeats=1)))
    scale: dict[str, Any] = {"width": 1.0, "depth": 1.0, "resolution": 64, "dropout": 0.2}
    return Variant(name="slim", title="Slim", baseline=baseline, **scale)


# a process of its own for a command line whose `--model slim` is `slim_lite`; needs tests/ in PYTHONPATH
CLI = """
import sys
from keras_effnet.cli import main
from keras_effnet.network.variants import VARIANTS
from material import slim_lite

VARIANTS["slim"] = slim_lite()
sys.exit(main(sys.argv[1:]))
"""


def exported(model: Any, out: Path, pictures: Any, *targets: str) -> list[Any]:
    """The artefacts of one job, also those that fail, calibrated and verified on the same pictures."""
    from keras_effnet.export.pipeline import Job, export_job
    from keras_effnet.export.targets import parse_target

    wanted = [parse_target(target) for target in targets]
    given: dict[str, Any] = {"images": pictures, "calibration": pictures, "keep_failed": True, "rounds": 1}
    return export_job(Job(model=model, name=model.name, targets=wanted, out=out, **given))


def outputs(model: Any, pixels: Any) -> Any:
    """What a Keras or tf_keras model gives for a batch, without compiling it: that would cost far more."""
    return model(pixels, training=False).numpy()


@contextmanager
def without_values() -> Iterator[None]:
    """In here networks get their layers and all shapes, but no weights: drawing those of B7 takes seconds."""
    import keras
    from keras.src.backend.common.global_state import set_global_attribute

    with keras.StatelessScope(initialize_variables=False):
        yield
    set_global_attribute("uninitialized_variables", [])  # else Keras would draw them at its next occasion


def needs_keras_alone(path: Path) -> bool:
    """Whether a `.keras` file names nothing of this package; `test_builder.py` loads such a file without it."""
    with zipfile.ZipFile(path) as file:
        return b"keras_effnet" not in file.read("config.json")


def randomize(model: Any, seed: int = 0) -> None:
    """Give every variable a value that a wrong mapping would show."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        shape, name = tuple(variable.shape), variable.name.split("/")[-1]
        if not shape:
            continue  # a counter
        if "variance" in name:
            value = generator.uniform(0.5, 1.5, shape)
        elif "gamma" in name:
            value = generator.uniform(0.8, 1.2, shape)
        elif len(shape) == 1:
            value = generator.normal(0, 0.1, shape)
        else:
            fan_in = np.prod(shape[:-1]) if "depthwise" not in name and shape[-1] != 1 else np.prod(shape[:2])
            value = generator.normal(0, 1 / np.sqrt(fan_in), shape)
        variable.assign(value.astype("float32"))


def assert_refused(command: list[str], message: str, capsys: Any) -> None:
    """A command line ends with exit code 2 and one line that holds `message`."""
    from keras_effnet.cli import main

    try:
        code: Any = main(command)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1 and "Traceback" not in error


def build_nano(*, input_shape: tuple[int | None, int | None, int] = (32, 32, 3), classes: int = 3) -> Any:
    """Three layers with weights, for tests that export and do not care what: every target in seconds."""
    import keras

    layers = keras.layers
    image = keras.Input(input_shape)
    x = layers.Rescaling(1 / 255, name="rescaling")(image)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(x)
    x = layers.Activation("swish", name="stem_activation")(layers.BatchNormalization(name="stem_bn")(x))
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    outputs = layers.Dense(classes, activation="softmax", dtype="float32", name="predictions")(x)
    model = keras.Model(image, outputs, name="nano")
    randomize(model)
    return model


def build_colours(kernel: Any, bias: Any, activation: str, names: tuple[str, ...]) -> Any:
    """A last layer on the mean red, green and blue of a picture, 0–1: what it says can be counted by hand."""
    import keras

    from keras_effnet.pictures.labels import labels_layer_name

    image = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Identity(name=labels_layer_name(names))(x)
    head = keras.layers.Dense(len(bias), activation=activation, name="predictions")
    model = keras.Model(image, head(x), name="colours")
    head.set_weights([np.array(kernel, np.float32), np.array(bias, np.float32)])
    return model


def encoded(picture: Any, kind: str, **options: Any) -> bytes:
    """The bytes of a file that Pillow writes from a picture."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int, *, order: str = "<", malformed: bool = False) -> bytes:
    """EXIF data with an orientation; malformed: beside tags of the wrong types, as some cameras write them."""
    entries = [struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)]
    if malformed:
        entries = [
            struct.pack(order + "HHI4s", 0x0100, 2, 4, b"abc\0"),  # a width in letters
            *entries,
            struct.pack(order + "HHI4s", 0x0128, 7, 4, b"abcd"),  # a unit in bytes
        ]
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(order + "IH", 8, len(entries))
    return b"Exif\0\0" + head + b"".join(entries) + bytes(4)


def as_stored(picture: Any, orientation: int) -> Any:
    """An upright picture as a camera stores it that was held otherwise, to go with `exif(orientation)`."""
    turns = Image.Transpose
    stored = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_90,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_270,
    }
    return picture.transpose(stored[orientation]) if orientation > 1 else picture
