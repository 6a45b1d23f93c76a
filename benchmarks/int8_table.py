"""What integer files of a network are worth: stock tools and ours, in one table, on the same photographs.

    python benchmarks/int8_table.py b0                 ../shared/b0_distilled, all methods
    python benchmarks/int8_table.py b0 --steps         what each step of the method adds
    python benchmarks/int8_table.py lite0              Lite0–2 with their ImageNet weights
    python benchmarks/int8_table.py b0 --qat           and quantization-aware training, the files next to it
    python benchmarks/int8_table.py clothing           B0 fine-tuned on ../shared/clothing
    python benchmarks/int8_table.py clothing --trained FILE.keras     or by `keras-effnet train`
    python benchmarks/int8_table.py lite0 --swap       the photographs in each other's part
    python benchmarks/int8_table.py b4 --images 32     B4–B7, grown from the trained B0 (see grown.py)

Every second photograph calibrates, the others judge. Agreement is with the float model's best class, as
the file says it; the signal-to-noise ratio is that of the logits. Latency is one picture, as a ratio to the
float32 file, files taking turns in one process, median: on all cores by the clock, or on a machine that has
other things to do by the CPU time of one thread (`--threads 1`).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from keras_effnet.pictures.framing import Framing

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
ROUNDS = 200
LONGEST = 60.0  # seconds for each file; fewer rounds if that is not enough


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file of the table."""

    name: str
    content: bytes
    seconds: float
    sqnr_db: float | None = None


def photographs(size: int, limit: int | None = None) -> tuple[Any, Any]:
    """`../shared/photos`, or the first of them, as uint8 `[N, size, size, 3]`, and their classes."""
    import csv

    from keras_effnet import load_image

    with (SHARED / "photos" / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:limit]
    pictures = [load_image(SHARED / "photos" / row["file"], size) for row in rows]
    return np.stack(pictures), np.array([int(row["class_index"]) for row in rows])


def clothes(
    split: str, size: int, limit: int | None = None, framing: Framing | None = None
) -> tuple[Any, Any]:
    """`../shared/clothing` as uint8 pictures and class indices."""
    from keras_effnet.pictures.framing import Framing

    folders = sorted(path for path in (SHARED / "clothing" / split).iterdir() if path.is_dir())
    found = [(path, index) for index, folder in enumerate(folders) for path in sorted(folder.iterdir())]
    found = [found[i] for i in np.random.default_rng(0).permutation(len(found))[:limit]]
    pictures = (framing or Framing()).read_all([path for path, _ in found], size)
    return pictures, np.array([index for _, index in found])


def trained_b0() -> Any:
    from keras_effnet import EfficientNet

    return EfficientNet("b0", weights=SHARED / "b0_distilled" / "b0_distilled.h5")


def fine_tuned_b0(epochs: int) -> Any:
    """B0 on ten kinds of clothes, all layers trained."""
    import keras

    from keras_effnet import EfficientNet

    keras.utils.set_random_seed(0)
    source = trained_b0()
    model = EfficientNet("b0", weights=None, classes=10)
    for layer in model.layers[1:-1]:
        layer.set_weights(source.get_layer(layer.name).get_weights())
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.trainable = False
    images, labels = clothes("train", 224)
    model.compile(keras.optimizers.Adam(5e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch_size=16, epochs=epochs, verbose=2)
    return model


def grown_from_b0(variant: str) -> Any:
    """A large variant that computes about what the trained B0 does."""
    from grown import grown

    from keras_effnet import EfficientNet
    from keras_effnet.system.resources import release

    large = EfficientNet(variant, weights=None, drop_connect_rate=0.0, dropout_rate=0.0)
    images, _ = photographs(large.input_shape[1], limit=2)
    model = grown(trained_b0(), large, images.astype(np.float32))
    release()  # the training pass of B7 leaves gigabytes behind
    return model


def timed(name: str, make: Callable[[], tuple[bytes, float | None]]) -> Row:
    start = time.perf_counter()
    content, sqnr = make()
    return Row(name=name, content=content, seconds=time.perf_counter() - start, sqnr_db=sqnr)


def stock_converter(model: Any, images: Any) -> bytes:
    """TensorFlow's own full integer quantization."""
    import keras
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec((1, *images.shape[1:]), tf.float32, name="image")]
    archive.add_endpoint("serving_default", lambda image: model(image, training=False), signature)
    folder = tempfile.mkdtemp()
    archive.write_out(folder, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def stock_quantizer(content: bytes, images: Any) -> bytes:
    """The LiteRT quantizer as its documentation uses it."""
    from litert_quantizer import quantizer, recipe

    worker = quantizer.Quantizer(bytearray(content), recipe.static_wi8_ai8())
    ranges = worker.calibrate({"serving_default": [{"image": image[np.newaxis]} for image in images]})
    return bytes(worker.quantize(ranges).quantized_model)


def rows(
    model: Any, images: Any, held_out: Any, *, steps: bool, stock: bool, converter: bool, qat: bool
) -> Iterator[Row]:
    from keras_effnet.export.quantization import accuracy
    from keras_effnet.export.quantization.layerwise import Method
    from keras_effnet.export.quantization.prepare import EQUALIZED_SHARE, prepare
    from keras_effnet.export.quantization.to_tflite import integer_tflite
    from keras_effnet.export.tflite_file import convert_float

    content = convert_float(model, images.shape[1:])
    yield Row(name="float32", content=content, seconds=0.0)

    def ours(equalize: float, method: Method = Method()) -> Callable[[], tuple[bytes, float]]:  # noqa: B008
        def make() -> tuple[bytes, float]:
            network = prepare(model, images, equalize=equalize, method=method)
            goal = network.logits(held_out, integer=False)
            sqnr = accuracy.sqnr_db(goal, network.logits(held_out))
            return integer_tflite(network), sqnr

        return make

    if steps:
        nearest = {"weights": "keep", "rounding": "nearest"}
        yield timed("min/max", ours(0.0, Method(ranges="minmax", **nearest)))
        yield timed("+ ranges by error", ours(0.0, Method(**nearest)))
        yield timed("+ bias correction", ours(0.0, Method(weights="bias", rounding="nearest")))
        yield timed("+ refitted weights", ours(0.0, Method(rounding="nearest")))
        yield timed("+ compensated rounding", ours(0.0))
        yield timed("+ equalized, 10 %", ours(0.1))
        yield timed("+ equalized, 25 %", ours(0.25))
        yield timed(f"+ equalized, {EQUALIZED_SHARE:.0%} (int8)", ours(EQUALIZED_SHARE))
        yield timed("+ equalized, 100 %", ours(1.0))
        return
    if stock and converter:
        yield timed("TFLite converter, int8", lambda: (stock_converter(model, images), None))
    if stock:
        yield timed("LiteRT quantizer, int8", lambda: (stock_quantizer(content, images), None))
    yield timed("keras_effnet int8", ours(EQUALIZED_SHARE))
    if qat:
        yield timed("keras_effnet int8_qat", lambda: quantization_aware(model, images, held_out))


def quantization_aware(model: Any, images: Any, held_out: Any) -> tuple[bytes, float]:
    """`int8_qat` without labels."""
    from keras_effnet.export.quantization import accuracy
    from keras_effnet.export.quantization.to_tflite import integer_tflite
    from keras_effnet.export.quantization.trained import qat as aware

    network = aware.train(model, images)
    sqnr = accuracy.sqnr_db(network.logits(held_out, integer=False), network.logits(held_out))
    return integer_tflite(network), sqnr


def predict(content: bytes, images: Any) -> tuple[Any, Any]:
    """What a file says: probabilities, and the tensor in front of its softmax."""
    from ai_edge_litert.interpreter import Interpreter

    opened = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    opened.allocate_tensors()
    (given,), (taken,) = opened.get_input_details(), opened.get_output_details()
    softmax = next(op for op in opened._get_ops_details() if op["op_name"] == "SOFTMAX")
    logits = next(d for d in opened.get_tensor_details() if d["index"] == softmax["inputs"][0])
    found: tuple[list[Any], list[Any]] = ([], [])
    for image in images:
        scale, zero = given["quantization"]
        value = image if not scale else np.clip(np.rint(image / scale) + zero, *_limits(given["dtype"]))
        opened.set_tensor(given["index"], value[np.newaxis].astype(given["dtype"]))
        opened.invoke()
        for results, detail in zip(found, (taken, logits), strict=True):
            scale, zero = detail["quantization"]
            raw = opened.get_tensor(detail["index"])[0].astype(np.float64)
            results.append((raw - zero) * scale if scale else raw)
    return np.stack(found[0]), np.stack(found[1])


def _limits(dtype: Any) -> tuple[int, int]:
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def partitions(content: bytes) -> int:
    """Delegated parts of a file."""
    from ai_edge_litert.interpreter import Interpreter

    opened = Interpreter(model_content=content)
    opened.allocate_tensors()
    return sum(op["op_name"] == "DELEGATE" for op in opened._get_ops_details())


def latencies(contents: list[bytes], threads: int = 0) -> list[float]:
    """Median seconds of each file, taking turns; of one thread CPU time."""
    from ai_edge_litert.interpreter import Interpreter

    clock = time.process_time if threads == 1 else time.perf_counter
    threads = threads or os.cpu_count() or 1
    opened = [Interpreter(model_content=content, num_threads=threads) for content in contents]
    for one in opened:
        one.allocate_tensors()
    times: list[list[float]] = [[] for _ in opened]
    begun = time.perf_counter()
    for _ in range(ROUNDS):
        if time.perf_counter() - begun > LONGEST * len(opened):
            break
        for one, measured in zip(opened, times, strict=True):
            start = clock()
            one.invoke()
            measured.append(clock() - start)
    return [float(np.median(measured)) for measured in times]


def table(model: Any, images: Any, held_out: Any, labels: Any, threads: int, **options: bool) -> None:
    from keras_effnet.export.quantization.accuracy import sqnr_db

    found = list(rows(model, images, held_out, **options))
    times = latencies([row.content for row in found], threads)
    goal, goal_logits = predict(found[0].content, held_out)
    print("| file | agreement | top-1 | logits SQNR dB | simulated | size | latency | partitions | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row, latency in zip(found, times, strict=True):
        probabilities, logits = predict(row.content, held_out)
        best = probabilities.argmax(1)
        print(
            f"| {row.name} | {np.mean(best == goal.argmax(1)):.3f} | {np.mean(best == labels):.3f} "
            f"| {sqnr_db(goal_logits, logits):.1f} | {'' if row.sqnr_db is None else f'{row.sqnr_db:.1f}'} "
            f"| {len(row.content) / len(found[0].content):.3f} | {latency / times[0]:.3f} "
            f"| {partitions(row.content)} | {row.seconds:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help="b0, lite0, lite1, lite2, clothing, b4 or b7")
    parser.add_argument("--steps", action="store_true", help="what each step of the method adds")
    parser.add_argument("--qat", action="store_true", help="quantization-aware training too")
    parser.add_argument("--no-stock", action="store_true", help="leave the stock tools out (hours for B7)")
    parser.add_argument(
        "--no-converter", action="store_true", help="leave TensorFlow's converter out: it is slow"
    )
    parser.add_argument("--threads", type=int, default=0, help="one: CPU time is measured; default: all")
    parser.add_argument("--epochs", type=int, default=8, help="of fine-tuning on clothes")
    parser.add_argument("--trained", type=Path, help="clothing: a classifier of these photographs")
    parser.add_argument("--swap", action="store_true", help="let the judging photographs calibrate")
    parser.add_argument("--images", type=int, default=100, help="photographs to calibrate on")
    arguments = parser.parse_args()
    model, calibration, held_out, labels = subject_of(
        arguments.network,
        images=arguments.images,
        epochs=arguments.epochs,
        swap=arguments.swap,
        trained=arguments.trained,
    )
    pictures = calibration.astype(np.float32), held_out.astype(np.float32)
    options = {"steps": arguments.steps, "stock": not arguments.no_stock, "qat": arguments.qat}
    table(model, *pictures, labels, arguments.threads, converter=not arguments.no_converter, **options)


def subject_of(
    network: str, *, images: int = 100, epochs: int = 8, swap: bool = False, trained: Path | None = None
) -> tuple[Any, Any, Any, Any]:
    """A network with the photographs that calibrate it, those that judge it and the classes of these."""
    if network == "clothing" and trained:
        import keras

        from keras_effnet.pictures.framing import framing_of

        model = keras.saving.load_model(trained, compile=False)
        size, framing = model.input_shape[1], framing_of(model)
        return model, clothes("train", size, images, framing)[0], *clothes("test", size, framing=framing)
    if network == "clothing":
        calibration, _ = clothes("train", 224, images)
        return (fine_tuned_b0(epochs), calibration, *clothes("test", 224))
    model = trained_b0() if network == "b0" else _published(network)
    pixels, classes = photographs(model.input_shape[1])
    count = 8 if network in ("b4", "b7") else None
    first, second = (1, 0) if swap else (0, 1)
    return model, pixels[first::2][:images], pixels[second::2][:count], classes[second::2][:count]


def _published(network: str) -> Any:
    from keras_effnet import EfficientNet

    return EfficientNet(network) if network.startswith("lite") else grown_from_b0(network)


if __name__ == "__main__":
    main()
