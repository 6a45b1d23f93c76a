"""Do a SavedModel's `serve_bytes` and an ONNX file that takes a JPEG see what `load_image` sees? Photographs of your own tell.

python benchmarks/served_pictures.py PHOTOGRAPHS
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from keras_effnet import EfficientNetLite0, export, load_image
from keras_effnet.errors import InvalidInputError
from keras_effnet.export.encoded_pictures import batch_decoder
from keras_effnet.export.onnx_pictures import checked
from keras_effnet.pictures.folders import list_images
from keras_effnet.pictures.framing import framing_of

BATCH = 32


def main() -> None:
    files = list_images(sys.argv[1])
    contents = [path.read_bytes() for path in files]
    model = EfficientNetLite0()
    with tempfile.TemporaryDirectory() as folder:
        loaded = tf.saved_model.load(str(export.to_saved_model(model, Path(folder) / "lite0")))
        serve = loaded.signatures["serve_bytes"]
        batches = [tf.constant(contents[start : start + BATCH]) for start in range(0, len(contents), BATCH)]
        served = np.concatenate([next(iter(serve(image_bytes=batch).values())) for batch in batches])
        runner = export.load(export.to_onnx(model, Path(folder) / "lite0.onnx", input="jpeg"), threads=1)
    usable, inside = answers_of(runner, contents)
    start = time.process_time()
    pixels = np.stack([load_image(content, model) for content in contents])
    reading = time.process_time() - start
    expected = model.predict(pixels, verbose=0)
    signature = [tf.TensorSpec([None], tf.string)]
    decode = tf.function(batch_decoder(224, 224, framing_of(model)), input_signature=signature)
    decode(batches[0])
    start = time.process_time()
    decoded = np.concatenate([decode(batch)[0] for batch in batches])
    decoding = time.process_time() - start
    difference = np.abs(decoded - pixels)
    compare("ONNX", expected[usable], inside)
    print(f"{len(files)} photographs, Lite0, SavedModel")
    print(f"same best class: {(served.argmax(1) == expected.argmax(1)).mean():.2%}")
    print(f"largest difference of a probability: {np.abs(served - expected).max():.4f}")
    print(f"pixels: mean difference {difference.mean():.3f}, largest {difference.max():.0f} of 255")
    print(
        f"CPU: load_image {reading / len(files) * 1e3:.1f} ms, the graph {decoding / len(files) * 1e3:.1f} ms each"
    )


def answers_of(runner: export.Runner, contents: list[bytes]) -> tuple[list[int], np.ndarray]:
    """Which photographs an ONNX file's decoder can be given, and its answers for them."""
    usable = []
    for place, content in enumerate(contents):
        try:
            checked(content, runner.framing, 224)
        except InvalidInputError as error:
            print(f"ONNX: {error}")
        else:
            usable.append(place)
    start = time.process_time()
    answers = runner.answers_to_files([contents[place] for place in usable])
    print(f"ONNX: CPU {(time.process_time() - start) / len(usable) * 1e3:.1f} ms each, with the network")
    return usable, next(iter(answers.values()))


def compare(name: str, expected: np.ndarray, found: np.ndarray) -> None:
    largest = np.abs(found - expected).max(axis=1)
    shares = ", ".join(f"{share} %: {np.percentile(largest, share):.4f}" for share in (50, 95, 99, 100))
    same = (found.argmax(axis=1) == expected.argmax(axis=1)).mean()
    print(f"{name}: {len(found)} photographs, {same:.2%} the same best class, largest differences: {shares}")


if __name__ == "__main__":
    main()
