"""Does every recipe take every size of input? Random weights, random pictures, a line for each file.

    python benchmarks/sizes.py b0 lite0 --sizes 32 33 47 64x96 97x33
    python benchmarks/sizes.py b0 --sizes 32 --targets tflite:int8_qat tflite:int8_pruned

Says of each file how far its outputs are from the model's, and of an integer TFLite file how many partitions
XNNPACK makes of it. With random weights integers differ a lot; what counts is that the file is there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

PICTURES = 16


def main() -> None:
    from keras_effnet.errors import EffNetError
    from keras_effnet.export.targets import TARGETS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--sizes", nargs="+", type=sides, default=[(32, 32), (33, 33), (47, 47), (64, 96)])
    untrained = [name for name in TARGETS if not name.endswith(("qat", "pruned", "clustered"))]
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=untrained)
    parser.add_argument("--channels", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # random weights, few pictures: known
    failed = 0
    for variant in arguments.variants:
        for height, width in arguments.sizes:
            model, images = network(variant, (height, width, arguments.channels))
            for name in arguments.targets:
                try:
                    said = exported(model, name, images)
                except EffNetError as error:
                    failed += 1
                    said = f"FAILED: {error}"
                print(f"{variant} {height}×{width} {name}: {said}", flush=True)
    sys.exit(1 if failed else 0)


def sides(text: str) -> tuple[int, int]:
    """`64x96` as height and width, `32` as both."""
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def network(variant: str, shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """A variant whose batch normalizations have seen the pictures, and the pictures."""
    import keras

    from keras_effnet import EfficientNet

    keras.utils.set_random_seed(0)
    model = EfficientNet(variant, weights=None, classes=10, input_shape=shape)
    images = np.random.default_rng(0).integers(0, 256, (PICTURES, *shape)).astype(np.float32)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = 0.0
    model(images, training=True)
    return model, images


def exported(model: Any, name: str, images: Any) -> str:
    """The file's largest error, and its partitions."""
    from keras_effnet import export
    from keras_effnet.export.targets import TARGETS

    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{target.suffix}"
        calibration = {"calibration": images} if target.integer else {}
        if target.format == "saved_model":
            export.to_saved_model(model, path)
        else:
            write = export.to_tflite if target.format == "tflite" else export.to_onnx
            write(model, path, target.recipe, **calibration)
        report = export.verify(model, path, images, raise_on_failure=False)
        cut = f", partitions {partitions(path)}" if target.format == "tflite" else ""
    return f"largest error {report.max_abs_error:.1e}{cut}"


def partitions(path: Path) -> int:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    return sum(details["op_name"] == "DELEGATE" for details in interpreter._get_ops_details())


if __name__ == "__main__":
    main()
