"""Integers for networks of keras.applications: what stays float, how long it takes, how close beside the stock tools.

    python benchmarks/int8_applications.py photographs/ --calibration 24 --judged 24
    python benchmarks/int8_applications.py photographs/ --only ConvNeXtTiny

Random weights; the statistics of batch normalizations are taken from photographs, so that signals have the
sizes they have in a trained network. Layer scales of ConvNeXt, which begin at 1e-6 and would leave nothing but
its shortcuts, are drawn from 0.1 to 0.5. Outputs are logits. Random networks say nearly the same of every
photograph, so the second figure of a pair is that of what differs between photographs: their mean is taken away.
Every network has a process of its own.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from int8_models import photographs
from int8_table import stock_converter, stock_quantizer

SIZE = 224
# by name: what must be done to a pixel in front, as (scale, offset); None for those that do it themselves
NETWORKS: dict[str, tuple[float, float] | None] = {
    "MobileNetV2": (1 / 127.5, -1.0),
    "MobileNetV3Small": None,
    "MobileNetV3Large": None,
    "ResNet50V2": (1 / 127.5, -1.0),
    "DenseNet121": (1 / 58.0, -2.0),
    "EfficientNetV2B0": None,
    "ConvNeXtTiny": None,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--calibration", type=int, default=24)
    parser.add_argument("--judged", type=int, default=24)
    parser.add_argument("--only", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument(
        "--no-converter", action="store_true", help="leave TensorFlow's converter out: it is slow"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        pictures = photographs(arguments.photographs, arguments.calibration + arguments.judged)
        pictures = pictures.astype(np.float32)
        parts = pictures[: arguments.calibration], pictures[arguments.calibration :]
        print(row(arguments.child, *parts, converter=not arguments.no_converter))
        return
    print(
        "| network | in float | seconds | TFLite int8 | ONNX int8 | LiteRT quantizer | TensorFlow's converter |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.only:
        subprocess.run([sys.executable, *sys.argv, "--child", name], check=True)


def network(name: str, images: Any) -> Any:
    """A network whose batch normalizations have seen the photographs."""
    import keras

    keras.utils.set_random_seed(0)
    options = {"weights": None, "classifier_activation": None, "input_shape": (SIZE, SIZE, 3)}
    model = getattr(keras.applications, name)(**options)
    if (constants := NETWORKS[name]) is not None:
        image = keras.Input((SIZE, SIZE, 3))
        model = keras.Model(image, model(keras.layers.Rescaling(*constants)(image)), name=name)
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = 0.0
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
        elif type(layer).__name__ == "LayerScale":
            layer.gamma.assign(rng.uniform(0.1, 0.5, layer.gamma.shape))
    model(images[:16], training=True)
    return model


def row(name: str, calibration: Any, judged: Any, *, converter: bool) -> str:
    """The ONNX file is that of the TFLite file's network: one calibration serves both."""
    from keras_effnet.export import load, to_onnx, to_tflite
    from keras_effnet.export.quantization.accuracy import island_costs
    from keras_effnet.export.quantization.prepare import prepare
    from keras_effnet.export.tflite_file import convert_float

    model = network(name, calibration)
    expected = model.predict(judged, batch_size=8, verbose=0)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what stays float stands in the table
        start = time.perf_counter()
        prepared = prepare(model, calibration)
        files = [to_tflite(model, Path(folder) / "x.tflite", "int8", network=prepared)]
        seconds = time.perf_counter() - start
        files.append(to_onnx(model, Path(folder) / "x.onnx", "int8", network=prepared))
        found = [np.asarray(load(file)(judged)) for file in files]
    found.append(answers(stock_quantizer(convert_float(model, judged.shape[1:]), calibration), judged))
    if converter:
        found.append(answers(stock_converter(model, calibration), judged))
    cells = [closeness(expected, each) for each in found] + ([] if converter else ["not run"])
    return f"| {name} | {told(island_costs(prepared))} | {seconds:.0f} | {' | '.join(cells)} |"


def told(islands: Any) -> str:
    """How many layers of which kind stay float, their share of all values, and the worst of them in dB."""
    if not islands:
        return "–"
    kinds = Counter(kind for island in islands for kind in re.findall(r"', an? (\w+)", island["layer"]))
    share = sum(island["share_of_values"] for island in islands)
    worst = min((island["sqnr_db"] for island in islands if island["sqnr_db"] is not None), default=None)
    kept = "" if worst is None else f", each alone at least {worst:.0f} dB"
    return f"{', '.join(f'{count} {kind}' for kind, count in kinds.items())}: {share:.1%} of all values{kept}"


def answers(content: bytes, images: Any) -> Any:
    """What a file with one float or int8 input and output says."""
    from ai_edge_litert.interpreter import Interpreter

    opened = Interpreter(model_content=content)
    opened.allocate_tensors()
    (given,), (taken,) = opened.get_input_details(), opened.get_output_details()
    found = []
    for image in images:
        scale, zero = given["quantization"]
        value = np.clip(np.rint(image / scale) + zero, -128, 127) if scale else image
        opened.set_tensor(given["index"], value[np.newaxis].astype(given["dtype"]))
        opened.invoke()
        scale, zero = taken["quantization"]
        raw = opened.get_tensor(taken["index"])[0].astype(np.float64)
        found.append((raw - zero) * scale if scale else raw)
    return np.stack(found)


def closeness(expected: Any, found: Any) -> str:
    from keras_effnet.export.quantization.accuracy import sqnr_db

    mean = expected.mean(axis=0)
    return f"{sqnr_db(expected, found):.1f} / {sqnr_db(expected - mean, found - mean):.1f} dB"


if __name__ == "__main__":
    main()
