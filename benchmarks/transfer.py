"""Our training against the recipe of the keras.io guide on EfficientNet, on the same photographs.

    python benchmarks/transfer.py DATA_DIR --weights b0.h5 [--seeds 0 1 2] [--json FILE]

DATA_DIR has the folders train/, validation/ and test/. Both start from the same B0 weights, a Keras `.h5`
with its classifier; ours is `keras-effnet train` with its defaults, the guide's is written out below on
keras.applications code: pictures squeezed to 224 x 224, its four augmentation layers, batches of 64,
batch normalization and dropout before the classifier, 25 epochs of Adam at 1e-2 on the frozen network,
then 4 epochs at 1e-5 on the last 20 layers. (The guide's own budget; it is larger than ours.) The test
photographs are used once, at the end of each phase.

Source of the recipe: "Image classification via fine-tuning with EfficientNet" on keras.io.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZE, BATCH, HEAD_EPOCHS, TUNING_EPOCHS = 224, 64, 25, 4


def guide(data: Path, weights: str, seed: int) -> dict[str, Any]:
    """The guide's recipe; returns accuracies and seconds of each phase."""
    import keras

    keras.utils.set_random_seed(seed)
    splits = {name: _pictures(data / name) for name in ("train", "validation", "test")}
    classes = int(splits["train"][1].max()) + 1
    model = _guide_model(keras, weights, classes)
    batches = _guide_batches(keras, *splits["train"], classes)
    eye = keras.ops.eye(classes)
    validation = (splits["validation"][0], keras.ops.take(eye, splits["validation"][1], axis=0))
    found: dict[str, Any] = {}
    for phase, epochs, rate in (("head", HEAD_EPOCHS, 1e-2), ("fine_tuning", TUNING_EPOCHS, 1e-5)):
        if phase == "fine_tuning":
            for layer in model.layers[-20:]:
                if not isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = True
        model.compile(keras.optimizers.Adam(rate), "categorical_crossentropy", metrics=["accuracy"])
        wall, cpu = time.monotonic(), time.process_time()
        model.fit(batches, epochs=epochs, validation_data=validation, verbose=0)
        found[phase] = {
            "seconds": time.monotonic() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "test_accuracy": _accuracy(model, *splits["test"]),
            "validation_accuracy": _accuracy(model, *splits["validation"]),
        }
    return found


def _guide_model(keras: Any, weights: str, classes: int) -> Any:
    whole = keras.applications.EfficientNetB0(weights=weights)
    backbone = keras.Model(whole.input, whole.get_layer("top_activation").output)
    backbone.trainable = False
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(backbone.output)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.2, name="top_dropout")(x)
    x = keras.layers.Dense(classes, activation="softmax", name="pred")(x)
    return keras.Model(backbone.input, x)


def _guide_batches(keras: Any, pixels: Any, labels: Any, classes: int) -> Any:
    import tensorflow as tf

    layers = [
        keras.layers.RandomRotation(0.15),
        keras.layers.RandomTranslation(0.1, 0.1),
        keras.layers.RandomFlip(),
        keras.layers.RandomContrast(0.1),
    ]

    def augment(images: Any, targets: Any) -> Any:
        for layer in layers:
            images = layer(images, training=True)
        return images, tf.one_hot(targets, classes)

    source = tf.data.Dataset.from_tensor_slices((pixels, labels)).shuffle(len(labels))
    batches = source.batch(BATCH, drop_remainder=True)
    return batches.map(augment, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def _pictures(folder: Path) -> tuple[Any, Any]:
    import numpy as np
    from PIL import Image

    pixels, labels = [], []
    for index, name in enumerate(sorted(path.name for path in folder.iterdir() if path.is_dir())):
        for path in sorted((folder / name).iterdir()):
            with Image.open(path) as picture:
                pixels.append(
                    np.asarray(picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
                )
            labels.append(index)
    return np.stack(pixels), np.array(labels)


def _accuracy(model: Any, pixels: Any, labels: Any) -> float:
    return float((model.predict(pixels, verbose=0).argmax(1) == labels).mean())


def ours(data: Path, weights: str, seed: int) -> dict[str, Any]:
    """`keras-effnet train` with its defaults."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "keras_effnet.cli", "train", str(data), "--model", "b0", "--weights", weights,
            "--seed", str(seed), "--out", f"{folder}/run", "--json", "--quiet",
        ]  # fmt: skip
        metrics = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    head, tuning = metrics["head"], metrics["fine_tuning"]
    keys = ("seconds", "cpu_seconds", "test_accuracy", "validation_accuracy")
    return {
        "head": {key: head[key] for key in keys},
        "fine_tuning": {
            "seconds": tuning["seconds"],
            "cpu_seconds": tuning["cpu_seconds"],
            "test_accuracy": metrics["test"]["accuracy"],
            "validation_accuracy": metrics["validation"]["accuracy"],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", required=True, help="B0 with its classifier, Keras .h5")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=["ours", "guide"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    rows = []
    for seed in arguments.seeds:
        for name, function in (("ours", ours), ("guide", guide)):
            if arguments.only in (None, name):
                rows.append({"who": name, "seed": seed, **function(arguments.data, arguments.weights, seed)})
                _print(rows[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _print(row: dict[str, Any]) -> None:
    phases = "   ".join(
        f"{phase}: test {figures['test_accuracy']:.3f}, {figures['seconds']:.0f} s ({figures['cpu_seconds']:.0f} s CPU)"
        for phase, figures in row.items()
        if isinstance(figures, dict)
    )
    print(f"{row['who']:6} seed {row['seed']}   {phases}", flush=True)


if __name__ == "__main__":
    main()
