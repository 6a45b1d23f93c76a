"""Integers for the forms in which people have their networks: the same weights, the same function.

    python benchmarks/int8_models.py weights.h5 photographs/ --calibration 64 --judged 60

`weights.h5`: a B0 as `keras.applications` stores it. Each row is one form of it: built by this package, by
`keras.applications`, with another head, with augmentation inside, nested, saved and read by a process that
has never seen the code that built it. The first row is what the others are measured against: within 1 dB
and 1 %. Every row has a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--calibration", type=int, default=64)
    parser.add_argument("--judged", type=int, default=60)
    parser.add_argument("--only", nargs="*", help="rows whose names begin so")
    parser.add_argument("--target", default="tflite", choices=("tflite", "onnx"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)  # a verb, and what it is about
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child, arguments)
        return
    print("| model | same best class | SQNR dB | seconds | in float |")
    print("|---|---|---|---|---|", flush=True)
    for name in (*MODELS, *SAVED):
        if arguments.only and not name.startswith(tuple(arguments.only)):
            continue
        if name in MODELS:
            again("built", name)
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/{name}"
            again("save", path)
            again("saved", path)


def again(*words: str) -> None:
    """This script in a fresh process."""
    subprocess.run([sys.executable, *sys.argv, "--child", *words], check=True)


def child(verb: str, subject: str, arguments: argparse.Namespace) -> None:
    """Save a model, or measure one: its line of the table."""
    if verb == "save":
        SAVED[Path(subject).name](arguments.weights).save(subject)
        return
    if verb == "saved":
        import keras

        model = keras.saving.load_model(subject, compile=False)
    else:
        model = MODELS[subject](arguments.weights)
    images = photographs(arguments.photographs, arguments.calibration + arguments.judged)
    calibration, judged = images[: arguments.calibration], images[arguments.calibration :]
    print(row(Path(subject).name, model, calibration, judged, arguments.target), flush=True)


def photographs(folder: Path, count: int) -> Any:
    """Pictures at 224 px, uint8, spread over the folder, calibration and judged ones mixed."""
    from keras_effnet import load_image

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, count).astype(int)]
    return np.stack([load_image(chosen[i], SIZE) for i in np.random.default_rng(0).permutation(count)])


def row(name: str, model: Any, calibration: Any, judged: Any, target: str) -> str:
    """Export the model, run the file, compare with Keras."""
    from keras_effnet.export import load, to_onnx, to_tflite
    from keras_effnet.export.quantization.accuracy import sqnr_db

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        start = time.perf_counter()
        if target == "tflite":
            options = {"output_type": "float32"}
            path = to_tflite(model, Path(folder) / "model.tflite", "int8", calibration, **options)
        else:
            path = to_onnx(model, Path(folder) / "model.onnx", "int8", calibration)
        seconds = time.perf_counter() - start
        found = np.asarray(load(path)(judged))
    expected = model.predict(judged.astype(np.float32), verbose=0)
    same = np.mean(found.argmax(1) == expected.argmax(1))
    floats = "; ".join(str(each.message) for each in told if "float" in str(each.message)) or "–"
    return (
        f"| {name} | {same:.3f} | {sqnr_db(logits(expected), logits(found)):.1f} | {seconds:.0f} | {floats} |"
    )


def logits(probabilities: Any) -> Any:
    """What a softmax would have made them of, their mean 0."""
    values = np.log(np.maximum(np.asarray(probabilities, np.float64), 1e-12))
    return values - values.mean(axis=1, keepdims=True)


def ours(weights: Path) -> Any:
    from keras_effnet import EfficientNetB0

    return EfficientNetB0(weights=weights)


def application(weights: Path) -> Any:
    import keras

    return keras.applications.EfficientNetB0(weights=str(weights))


def with_head(weights: Path, *names: str, nested: bool = False, ahead: Any = None) -> Any:
    """The network with layers between its pooled features and its classifier that change nothing."""
    import keras

    layers = keras.layers
    whole = ours(weights)
    last = whole.layers[-1]
    features = keras.Model(whole.input, whole.get_layer("top_activation").output, name="features")
    image = keras.Input((SIZE, SIZE, 3))
    normalization = layers.BatchNormalization(name="normal")
    between = {
        "normalization": [normalization, layers.Dropout(0.2)],
        "relu": [layers.Dense(2 * last.units, activation="relu", name="hidden")],
        "tanh": [layers.Dense(last.units, activation="tanh", name="hidden")],
    }
    chain = [layers.GlobalAveragePooling2D()]
    for name in names:
        chain += between[name]
    chain += [layers.Dense(last.units, activation="softmax", name="classifier")]
    x = features(image if ahead is None else ahead(image))
    if nested:
        head = keras.Sequential(chain, name="head")
        model = keras.Model(image, head(x), name="with_head")
    else:
        for layer in chain:
            x = layer(x)
        model = keras.Model(image, x, name="with_head")
    kernel, bias = last.get_weights()
    if "normalization" in names:
        rng = np.random.default_rng(0)
        count = len(kernel)
        gamma, variance = rng.uniform(0.5, 2, count), rng.uniform(0.5, 2, count)
        beta, mean = rng.normal(0, 0.3, count), rng.normal(0, 0.3, count)
        normalization.set_weights([gamma, beta, mean, variance])
        scale = gamma / np.sqrt(variance + normalization.epsilon)
        offset = beta - mean * scale
        kernel, bias = kernel / scale[:, np.newaxis], bias - (offset / scale) @ kernel
    if "relu" in names:  # x = relu(x) - relu(-x)
        hidden, classifier = chain[1], chain[-1]
        hidden.set_weights([np.concatenate([kernel, -kernel], 1), np.concatenate([bias, -bias])])
        eye = np.eye(last.units, dtype=np.float32)
        classifier.set_weights([np.concatenate([eye, -eye]), np.zeros(last.units, np.float32)])
    else:
        chain[-1].set_weights([kernel, bias])
    return model


def augmented(weights: Path, *names: str, nested: bool = False) -> Any:
    import keras

    layers = keras.layers
    ahead = keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.1)], name="augmentation")
    return with_head(weights, *names, nested=nested, ahead=ahead)


MODELS: dict[str, Callable[[Path], Any]] = {
    "keras_effnet.EfficientNetB0": ours,
    "keras.applications.EfficientNetB0": application,
    "pooling, BatchNormalization, Dropout, Dense": lambda path: with_head(path, "normalization"),
    "Dense with relu": lambda path: with_head(path, "relu"),
    "RandomFlip, RandomRotation inside": augmented,
    "head in a Sequential": lambda path: with_head(path, "normalization", nested=True),
}
# augmentation inside, the head in a Sequential; the name is the file's
SAVED: dict[str, Callable[[Path], Any]] = {
    f"saved{suffix}": lambda path: augmented(path, "normalization", nested=True)
    for suffix in (".keras", ".h5")
}


if __name__ == "__main__":
    main()
