"""Post-training integer quantization: from a float Keras model and photographs to integer files.

    network = prepare(model, photographs)     one calibration …
    to_tflite(network)                         … for TFLite
    onnx_file.to_onnx(network)                 … and for ONNX

The way there: fold → preprocessing into the stem → equalize (where asked for) → one sequential walk
that chooses ranges by output error, refits weights and biases to what the integer layers before them
deliver, and rounds weights with compensation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError, unknown_name, warn
from keras_effnet.export.quantization import equalization, litert, rebuild, simulate, statistics, tflite_ends
from keras_effnet.export.quantization.folding import UnsupportedModelError, fold
from keras_effnet.export.quantization.graph import Array, Graph
from keras_effnet.export.quantization.sequential import Method, Quantized, quantize
from keras_effnet.export.quantization.tflite_file import write
from keras_effnet.export.subject import Subject, describe
from keras_effnet.network.reader import flat_layers
from keras_effnet.system.memory import release
from keras_effnet.system.threads import one_blas_thread

INPUT_TYPES = ("uint8", "int8")
OUTPUT_TYPES = ("int8", "float32")
EQUALIZED_SHARE = 0.25  # of the values that go through a swish: gives most of the accuracy (docs/int8.md)
# of activations held during a walk: each map twice (float and integer), with the one it came from
WALK_BYTES = 3 << 30
DEFAULT_METHOD = Method()
# ONNX Runtime's CPU kernels have no cheap form of an equalized swish, compute a plain one in two passes where
# the float one is one, and a squeeze-and-excite product on one thread. So the large maps of the first stages,
# which have few weights, are faster in float (benchmarks/int8_onnx.py --first-integer).
ONNX_FIRST_INTEGER = "block5"
SAMPLED_IMAGES = 32  # for the statistics; the walk uses all it can hold


@dataclass(frozen=True, kw_only=True)
class IntegerNetwork:
    """A quantized network, ready to be written in any format.

    Attributes:
        reference: the float network, preprocessing absorbed, equalized.
        quantized: the integer network.
        height, width: of the input, in pixels.
        images: the calibration photographs.
        floats: names of steps that compute in float because that is faster, see `network`.
        agreement: top-1 agreement with the float network on held-out photographs, or None.
    """

    reference: Graph
    quantized: Quantized
    height: int
    width: int
    images: Array = field(repr=False)
    floats: frozenset[str] = frozenset()
    agreement: float | None = None

    @property
    def serves_all(self) -> bool:
        """Whether it is the best for every format: one with swishes is made for one of them, see `network`."""
        return not self.quantized.graph.has_swish

    @property
    def lifted(self) -> tuple[str, ...]:
        """Steps that were left in float to meet an accuracy (see `accuracy`)."""
        return tuple(sorted(self.quantized.lifted - self.floats))

    def logits(self, images: Array, *, integer: bool = True) -> Array:
        """Outputs in front of the last activation, `[N, classes]`, simulated."""
        graph = self.quantized.graph if integer else self.reference
        last = replace(graph[graph.output], activation="linear")
        ranges = self.quantized.ranges if integer else None
        return simulate.run(graph.updated(last), images, ranges)[graph.output]


def prepare(
    model: Any,
    calibration: Any,
    *,
    equalize: float = EQUALIZED_SHARE,
    method: Method = DEFAULT_METHOD,
    size: int | None = None,
) -> IntegerNetwork:
    """Quantize a Keras model.

    Args:
        model: an EfficientNet, or another functional model of the same kinds of layers.
        calibration: photographs, uint8 or float32 0–255 `[N, H, W, C]`, or an iterable of batches. A
            hundred are enough; labels are not needed.
        equalize: share of the values that go through a swish, 0–1, that may be equalized; each costs
            one product at run time. Earlier layers come first: their errors pass through everything.
        method: what the walk does.
        size: side of the input in pixels, for a model that leaves it open.

    Raises:
        UnsupportedModelError: a model with other layers; `plain_int8_tflite` may still do.
        InvalidInputError: calibration photographs that cannot be used.
    """
    if not 0.0 <= equalize <= 1.0:
        raise InvalidInputError(f"Expected equalize as a share from 0 to 1. Received: {equalize}.")
    graph = fold(model)  # first, as it may refuse and a calibration that is an iterator can be read only once
    images = checked_images(model, calibration, size=size)
    return prepare_graph(graph, model, images, equalize=equalize, method=method, size=size)


def prepare_graph(
    graph: Graph, model: Any, images: Array, *, equalize: float, method: Method, size: int | None = None
) -> IntegerNetwork:
    """Quantize a folded graph of a model, whose weights may be other ones; see `prepare`."""
    warn_if_untrained(model)
    with one_blas_thread():
        return _prepare(graph, describe(model, "int8", size=size), images, equalize, method)


def checked_images(model: Any, calibration: Any, *, size: int | None = None) -> Array:
    """Calibration photographs that fit a model, float32 `[N, H, W, C]`; see `prepare` for errors."""
    return litert.calibration_images(calibration, describe(model, "int8", size=size))


def _prepare(
    graph: Graph, subject: Subject, images: Array, equalize: float, method: Method
) -> IntegerNetwork:
    graph = equalization.absorb_preprocessing(graph)
    sizes = simulate.map_sizes(graph, images.shape[1:])
    images = _affordable(images, max(sizes.values()))
    samples = statistics.sample(graph, _some(images, SAMPLED_IMAGES))
    weights = statistics.importance(graph, samples)
    if names := equalization.affordable(graph, sizes, equalize):
        graph = equalization.equalize_swishes(graph, samples, weights, names)
        few = _some(images, SAMPLED_IMAGES // 2)
        weights = statistics.importance(graph, statistics.sample(graph, few, per_channel=500))
    del samples  # a gigabyte that the walk can use
    release()
    quantized = quantize(graph, images, weights, method)
    return IntegerNetwork(
        reference=graph,
        quantized=quantized,
        floats=quantized.lifted,
        height=subject.height,
        width=subject.width,
        images=images,
    )


def _affordable(images: Array, largest: int) -> Array:
    """As many photographs as the walk can hold of a network whose largest map has `largest` values."""
    few = _some(images, WALK_BYTES // (4 * 4 * largest))
    if len(few) < litert.ENOUGH_IMAGES < len(images):
        warn(
            f"Uses {len(few)} of {len(images)} calibration photographs: the maps of a network this large would "
            f"exceed {WALK_BYTES >> 30} GiB with more.",
        )
    return few


def _some(images: Array, count: int) -> Array:
    """At most `count` photographs, but eight, from all over the set."""
    count = max(8, int(count))
    return images if count >= len(images) else images[np.linspace(0, len(images) - 1, count).astype(int)]


def warn_if_untrained(model: Any) -> None:
    """Warn about a model whose batch normalizations have never seen a picture."""
    means = [
        layer.moving_mean for layer in flat_layers(model) if type(layer).__name__ == "BatchNormalization"
    ]
    if means and all(not np.any(np.asarray(mean)) for mean in means):
        warn(
            "Expected a trained model. Received one whose batch normalizations are as they were "
            "initialized: random weights quantize, but what that gives says nothing. Load weights first.",
        )


def to_tflite(network: IntegerNetwork, *, input_type: str = "uint8", output_type: str = "int8") -> bytes:
    """The TFLite file of a quantized network.

    Args:
        network: from `prepare`.
        input_type: `"uint8"` (scale 1, zero point 0: pixels as they are) or `"int8"` (pixel - 128).
        output_type: `"int8"` (probabilities in steps of 1/256) or `"float32"` (the last softmax runs on
            dequantized logits).

    Returns:
        The file, signature `serving_default`.
    """
    from keras_effnet.export.tflite import convert_float

    check_types(input_type, output_type)
    quantized = network.quantized
    rebuilt = rebuild.to_keras(quantized.graph, height=network.height, width=network.width)
    content = convert_float(describe(rebuilt, "int8"))
    content = write(content, quantized.graph, quantized.ranges, quantized.lifted)
    return with_ends(content, input_type, output_type)


def with_ends(content: bytes, input_type: str, output_type: str) -> bytes:
    """An int8-to-int8 file with the ends that were asked for."""
    if output_type == "float32":
        content = tflite_ends.float_output(content)
    return tflite_ends.uint8_input(content) if input_type == "uint8" else content


def check_types(input_type: str, output_type: str) -> None:
    """Raise InvalidInputError unless both are known."""
    if input_type not in INPUT_TYPES:
        raise unknown_name("input_type", input_type, INPUT_TYPES)
    if output_type not in OUTPUT_TYPES:
        raise unknown_name("output_type", output_type, OUTPUT_TYPES)


def int8_tflite(
    model: Any,
    calibration: Any,
    *,
    input_type: str = "uint8",
    output_type: str = "int8",
    min_agreement: float | None = None,
    size: int | None = None,
) -> bytes:
    """A fully integer TFLite file.

    A model that is not built like an EfficientNet goes the plain way (ranges from minimum and maximum),
    with a warning.

    Args:
        model: a float Keras model.
        calibration: photographs, see `prepare`.
        input_type, output_type: see `to_tflite`.
        min_agreement: top-1 agreement with the float model, 0–1, that held-out calibration photographs
            must show; tensors are lifted to float until they do. See `accuracy.prepare`.
        size: side of the input in pixels, for a model that leaves it open.

    Raises:
        InvalidInputError: calibration or an option that cannot be used.
        ExportError: conversion failed, or `min_agreement` cannot be met.
    """
    check_types(input_type, output_type)
    try:
        quantized = network(model, calibration, min_agreement=min_agreement, size=size)
    except UnsupportedModelError as error:
        if min_agreement is not None:
            raise InvalidInputError(
                f"min_agreement needs a model that can be taken apart. {error}"
            ) from error
        warn(f"{error} Taking the plain path: ranges from minimum and maximum.")
        return plain_int8_tflite(
            model, calibration, input_type=input_type, output_type=output_type, size=size
        )
    return to_tflite(quantized, input_type=input_type, output_type=output_type)


def network(
    model: Any,
    calibration: Any,
    *,
    min_agreement: float | None = None,
    target: str = "tflite",
    size: int | None = None,
) -> IntegerNetwork:
    """Quantize a model for a format, to a given agreement where one is asked for.

    Args:
        model, calibration, size: see `prepare`.
        min_agreement: see `accuracy.prepare`.
        target: `"tflite"`, or `"onnx"`: there a network with swishes has none of them equalized, and its
            stages before `ONNX_FIRST_INTEGER` in float.
    """
    equalize, method = EQUALIZED_SHARE, DEFAULT_METHOD
    if target == "onnx":
        equalize, method = 0.0, Method(first_integer=ONNX_FIRST_INTEGER)
    if min_agreement is None:
        return prepare(model, calibration, equalize=equalize, method=method, size=size)
    from keras_effnet.export.quantization import accuracy

    return accuracy.prepare(model, calibration, min_agreement, equalize=equalize, method=method, size=size)


def plain_int8_tflite(
    model: Any,
    calibration: Any,
    *,
    input_type: str = "uint8",
    output_type: str = "int8",
    size: int | None = None,
) -> bytes:
    """An integer file of any convertible model, ranges from minimum and maximum."""
    from keras_effnet.export.tflite import convert_float

    images = checked_images(model, calibration, size=size)
    warn_if_untrained(model)
    content = litert.int8(convert_float(describe(model, "int8", size=size)), images)
    return with_ends(content, input_type, output_type)


def int16x8_tflite(model: Any, calibration: Any, *, size: int | None = None) -> bytes:
    """A TFLite file with int8 weights and int16 activations: for NPUs, and as an accuracy reference.

    65,536 levels hold any channel, so minimum and maximum are good ranges and nothing is corrected. CPUs
    run it through TFLite's own kernels, not XNNPACK, and about fifty times slower than int8.

    Args:
        model: a float Keras model.
        calibration: photographs, see `prepare`.
        size: side of the input in pixels, for a model that leaves it open.

    Returns:
        The file; input and output are int16 with the scales that it states.
    """
    from keras_effnet.export.tflite import convert_float

    images = checked_images(model, calibration, size=size)
    warn_if_untrained(model)
    return litert.int16x8(convert_float(describe(model, "int16x8", size=size)), images)
