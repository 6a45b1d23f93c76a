"""The one door to an integer network: from a float Keras model and photographs.

    network = prepare(model, photographs)                one calibration …
    to_tflite(model, path, "int8", network=network)      … for TFLite
    to_onnx(model, path, "int8", network=network)        … and for ONNX

The way there, and the module that decides each part of it:

    fold            the model's layers become steps (`known_layers`), and `simplify` joins what belongs together
    ops             what a step computes, in float, in integers and in every file: a program of operators
                    (`activations`; the steps themselves: `steps`, `maps`, `weighted`, `convolutions`)
    equalization    preprocessing goes into the stem, the channels around swishes are balanced (where asked for)
    layerwise       one walk, layer by layer: ranges by output error (`ranges`, weighed by `importance`), weights
                    and biases refitted to what the integer layers before them deliver, and rounded with
                    compensation (`reconstruction`)
    accuracy        steps lifted to float for a promised accuracy
    to_tflite       the file, with scales that its delegate takes (`xnnpack`) and the `ends` that clients open
    to_onnx         the file, for one of the `runtimes`, in integers from the place where that is fastest (`placement`)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, unknown_name, warn
from keras_effnet.network.reader import flat_layers
from keras_effnet.pictures.reading import at_most, check_batches
from keras_effnet.system.resources import one_blas_thread, release

from ..failures import converting
from ..model_facts import ModelFacts, as_facts
from ..outputs import check_decides
from . import equalization
from .accuracy import lift_until
from .fold import fold
from .graph import Graph, IntegerNetwork, map_sizes, run
from .importance import by_photograph
from .layerwise import Method, quantize
from .placement import Placement, place
from .ranges import PIXELS, Array
from .runtimes import get_runtime

# of the values that go through a swish; more takes a B0 file beyond .6 of float32's time
EQUALIZED_SHARE = 0.35

# of activations held during a walk: each map twice (float and integer), with the one it came from
WALK_BYTES = 3 << 30
FEWEST_IMAGES = 8
SAMPLED_IMAGES = 32  # for the statistics; the walk uses all it can hold
HELD_OUT = 4  # one of so many calibration photographs checks a promised accuracy
FEWEST_HELD_OUT = 8
ENOUGH_IMAGES = 16  # fewer photographs leave many channels at ranges they exceed in use
OVERSHOOT = 64.0  # bicubic resizing in float leaves 0–255 by up to a quarter


@dataclass(frozen=True, kw_only=True)
class _Suits:
    """What suits a format.

    Attributes:
        equalize: share of the values that go through a swish, 0–1, that are equalized; None: see the runtime's row.
        placed: whether a runtime's row says where the integers begin, see `runtimes`.
    """

    equalize: float | None
    placed: bool


TARGETS = {
    "tflite": _Suits(equalize=EQUALIZED_SHARE, placed=False),
    "onnx": _Suits(equalize=None, placed=True),
}


def prepare(
    model: Any,
    calibration: Any,
    *,
    target: str = "tflite",
    runtime: str = "onnxruntime",
    first_integer: str | None = None,
    min_agreement: float | None = None,
    equalize: float | None = None,
    method: Method | None = None,
    size: int | None = None,
    graph: Graph | None = None,
) -> IntegerNetwork:
    """Quantize a Keras model.

    Args:
        model: an EfficientNet, or another functional model of images; also its `ModelFacts` where they are
            known. Layers that integers are not known for stay float, with a warning that names them.
        calibration: photographs, uint8 or float32 0–255 `[N, H, W, C]`, or an iterable of batches. A
            hundred are enough; labels are not needed.
        target: the format it is made for, `"tflite"` or `"onnx"`.
        runtime: for ONNX: what opens the file, see `runtimes`.
        first_integer: for ONNX: what the name of the first step begins with that computes in integers, those
            before it in float; None for the runtime's own choice, which may be a measurement.
        min_agreement: share of photographs on which the best class (of a sigmoid: yes or no) must be the float
            model's, 0–1, of each output that decides. A quarter of them is then held out to measure it on, and
            the most sensitive steps are lifted to float until it is reached.
        equalize: share of the values that go through a swish, 0–1, that may be equalized; each costs
            one product at run time. Earlier layers come first: their errors pass through everything.
            None for what suits the target and the runtime.
        method: what the walk does; None likewise. One that is given says all that `runtime` and
            `first_integer` would.
        size: side of the input in pixels, for a model that leaves it open.
        graph: steps of the model whose weights stand in for its own; None to fold the model.

    Raises:
        UnsupportedModelError: a model that cannot be taken apart; recipe `int8` may still do.
        InvalidInputError: calibration photographs or an option that cannot be used.
        ExportError: half of the steps in float is not enough for `min_agreement`.
    """
    if target not in TARGETS:
        raise unknown_name("target", target, TARGETS)
    suits = TARGETS[target]
    row = get_runtime(runtime)
    suiting = row.equalized if suits.equalize is None else suits.equalize
    share = suiting if equalize is None else equalize
    if not 0.0 <= share <= 1.0:
        raise InvalidInputError(f"Expected equalize as a share from 0 to 1. Received: {share}.")
    if min_agreement is not None and not 0.0 < min_agreement <= 1.0:
        raise InvalidInputError(
            f"Expected min_agreement as a share between 0 and 1. Received: {min_agreement}. Pass for example 0.98."
        )
    facts = as_facts(model, size)
    kinds = [output.meaning for output in facts.outputs]
    if min_agreement is not None:
        check_decides(facts.outputs)
    # folded first: it may refuse, and a calibration that is an iterator can be read only once
    graph = fold(facts.model) if graph is None else graph
    _tell_islands(graph)
    images = calibration_images(calibration, facts)
    _check_islands(graph, images[:1], facts.info.name)
    held_out = np.zeros(len(images), bool) if min_agreement is None else _held_out(len(images))
    warn_if_untrained(facts.model)
    placement: Placement | None = None
    if method is None and suits.placed:
        placement = place(graph, images, row, first_integer)
        method = row.method(placement.first_integer)
        release()  # what the files that were measured took
    with one_blas_thread():
        network = _quantized(graph, facts, images[~held_out], share, method or Method(), placement)
    return network if min_agreement is None else lift_until(network, images[held_out], min_agreement, kinds)


def _tell_islands(graph: Graph) -> None:
    """Say what stays float."""
    if graph.islands:
        named = "; ".join(dict.fromkeys(step.what for step in graph.islands))
        warn(f"Integers are not known for {named}. Computes it in float, everything else in integers.")


def _check_islands(graph: Graph, image: Array, name: str) -> None:
    """Make sure that what stays float can be written, before the long walk."""
    if not graph.islands:
        return
    import keras

    values = run(graph, image, keep=lambda name: True)
    for island in graph.islands:
        with converting(name, "a file"):
            island.keras(keras, "island", *(keras.Input(values[each].shape[1:]) for each in island.inputs))


def _held_out(count: int) -> Array:
    """Which of so many photographs check the result."""
    if count < 2 * FEWEST_HELD_OUT:
        raise InvalidInputError(
            f"Expected at least {2 * FEWEST_HELD_OUT} calibration photographs with min_agreement, which holds "
            f"some out to check the result. Received: {count}. Pass more photographs."
        )
    held_out = np.arange(count) % HELD_OUT == 0
    return held_out if held_out.sum() >= FEWEST_HELD_OUT else np.arange(count) % 2 == 0


def _quantized(
    graph: Graph,
    facts: ModelFacts,
    images: Array,
    equalize: float,
    method: Method,
    placement: Placement | None,
) -> IntegerNetwork:
    graph = equalization.absorb_preprocessing(graph)
    sizes = map_sizes(graph, images.shape[1:])
    images = _held_in_memory(images, max(sizes.values()))
    if names := equalization.affordable(graph, sizes, equalize):
        samples = equalization.sample(graph, at_most(images, SAMPLED_IMAGES))
        weights = equalization.importance(graph, samples)
        graph = equalization.equalize_swishes(graph, samples, weights, names)
        del samples, weights  # a gigabyte that the walk can use
        release()
    importance = by_photograph(graph, images, sizes)
    release()
    quantized = quantize(graph, images, importance, method)
    return IntegerNetwork(
        reference=graph,
        quantized=quantized,
        floats=quantized.lifted,
        only_read=method.only_read,
        placement=placement,
        height=facts.height,
        width=facts.width,
        images=images,
        output_names=facts.output_names,
    )


def _held_in_memory(images: Array, largest: int) -> Array:
    """As many photographs as the walk can hold of a network whose largest map has `largest` values."""
    few = at_most(images, max(FEWEST_IMAGES, WALK_BYTES // (4 * 4 * largest)))
    if len(few) < ENOUGH_IMAGES < len(images):
        warn(
            f"Uses {len(few)} of {len(images)} calibration photographs: the maps of a network this large would "
            f"exceed {WALK_BYTES >> 30} GiB with more.",
        )
    return few


def calibration_images(calibration: Any, facts: ModelFacts) -> npt.NDArray[np.float32]:
    """Check calibration photographs and collect them.

    Args:
        calibration: `[N, H, W, C]`, or an iterable of such batches.
        facts: of the model they are for.

    Returns:
        float32 `[N, H, W, C]`, 0–255.

    Raises:
        InvalidInputError: empty, of another shape, not finite, without any contrast, or not 0–255.
    """
    if isinstance(calibration, IntegerNetwork):
        raise InvalidInputError(
            "Expected photographs as calibration. Received: an integer network. Pass it as network=."
        )
    images = check_batches(
        calibration,
        size=(facts.height, facts.width),
        channels=facts.channels,
        what="calibration photographs",
    ).astype(np.float32, copy=False)
    if float(np.ptp(images)) == 0:
        raise InvalidInputError(
            f"Expected calibration photographs. Received pictures in which every pixel is {images.flat[0]:g}. "
            "Pass real photographs like those the model will see."
        )
    if float(np.ptp(images, axis=(1, 2)).max()) == 0:
        raise InvalidInputError(
            "Expected calibration photographs. Received pictures of one colour each. "
            "Pass real photographs like those the model will see."
        )
    low, high = float(images.min()), float(images.max())
    if low < -OVERSHOOT or high > PIXELS.high + OVERSHOOT or (low < 0 and high < OVERSHOOT):
        raise InvalidInputError(
            f"Expected calibration photographs with pixels 0-255. Received values from {low:.4g} to {high:.4g}, "
            "as if they had been normalized. The preprocessing is inside the graph: pass raw pixels."
        )
    images = np.clip(images, PIXELS.low, PIXELS.high)
    if len(images) < ENOUGH_IMAGES:
        warn(
            f"Expected at least {ENOUGH_IMAGES} calibration photographs. Received {len(images)}; "
            "the integer ranges may not fit other pictures.",
        )
    return images


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
