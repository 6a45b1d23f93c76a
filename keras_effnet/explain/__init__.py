"""Where a prediction came from: class activation maps and Grad-CAM, and pictures of them.

The paper supports compound scaling with such maps: a network scaled in all three dimensions attends
to more relevant regions with more detail (arXiv:1905.11946, Figure 7).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.explain.score_path import FloatArray, ScorePath
from keras_effnet.pictures.reading import check_pixels

__all__ = [
    "METHODS",
    "Explanation",
    "class_activation_map",
    "colorize",
    "explain",
    "grad_cam",
    "overlay",
]


def __dir__() -> list[str]:
    return __all__


METHODS = ("cam", "grad-cam")
_LITTLE, _SOME, _MUCH = "#10104a", "#d8402a", "#fff3a0"  # evidence


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One class in one picture.

    Attributes:
        heat: float32 `[H, W]`, 0–1: positive evidence at the picture's size, its maximum scaled to 1
            (all zero when nothing speaks for the class).
        evidence: float32 `[h, w]`, unscaled, at the size of the feature map. For `"cam"` its mean plus
            `bias` is the class's score, exactly.
        class_index: the class.
        score: the classifier's value before its activation (a logit).
        bias: what the classifier adds whatever the picture shows; None for `"grad-cam"`.
        output: what the model itself says for the class; a probability after a softmax.
    """

    heat: FloatArray = field(repr=False)
    evidence: FloatArray = field(repr=False)
    class_index: int
    score: float
    bias: float | None
    output: float


def explain(
    model: Any,
    image: Any,
    class_index: int | None = None,
    *,
    method: str = "cam",
    layer: str | None = None,
    output: str | int | None = None,
) -> Explanation:
    """Find out which positions of a picture speak for a class.

    Only what the explained output depends on is looked at: other outputs, whatever they share with it,
    play no part.

    Args:
        model: a Keras classifier, ours or any other that ends in a dense layer; a loaded `.keras` too.
        image: uint8 or float RGB pixels 0–255, `[H, W, 3]` or `[1, H, W, 3]`, of the model's size.
        class_index: the class; None for the most probable one. A single sigmoid has two: 0 is the
            negative class, 1 the positive one.
        method: `"cam"`, exact and for global average pooling with a dense layer only, or `"grad-cam"`
            for any head and any layer.
        layer: for `"grad-cam"`: name of the layer to look at; None for the last feature map.
        output: name or number of the output to explain; None for the only one that a classifier makes.

    Raises:
        InvalidInputError: a picture, class, layer, output or head that does not fit, or several that
            could be meant.

    Sources: Zhou et al. 2016 (arXiv:1512.04150), Selvaraju et al. 2017 (arXiv:1610.02391).
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if layer is not None and method == "cam":
        raise InvalidInputError(
            f"Expected no layer for 'cam', which reads the last one. Received: {layer!r}. Use 'grad-cam'."
        )
    path = ScorePath(model, output=output, layer=layer)
    pixels = _one_picture(image, path)
    reading = None
    if class_index is None:
        reading = path.read(pixels)
        class_index = int(np.argmax(reading.scores))
    elif isinstance(class_index, bool) or not 0 <= class_index < path.classes:
        raise InvalidInputError(
            f"Expected class_index between 0 and {path.classes - 1}. Received: {class_index!r}."
        )
    bias: float | None = None
    if method == "cam":
        weights, biases = path.evidence_weights()
        reading = reading or path.read(pixels)
        evidence = reading.features @ weights[:, class_index]
        bias = float(biases[class_index])
    else:
        reading = path.read(pixels, gradient_of=class_index)
        assert reading.gradient is not None  # asked for in the line above
        evidence = reading.features @ reading.gradient.mean(axis=(0, 1))
    return Explanation(
        heat=_heat(evidence, (pixels.shape[0], pixels.shape[1])),
        evidence=evidence,
        class_index=class_index,
        score=float(reading.scores[class_index]),
        bias=bias,
        output=float(reading.outputs[class_index]),
    )


def class_activation_map(
    model: Any, image: Any, class_index: int | None = None, *, output: str | int | None = None
) -> FloatArray:
    """The class activation map of a picture.

    Args:
        model: a Keras classifier with global average pooling and a dense layer on top; between them
            dropout and batch normalization may stand.
        image: uint8 or float RGB pixels 0–255, `[H, W, 3]` or `[1, H, W, 3]`.
        class_index: the class; None for the most probable one.
        output: as in `explain`.

    Returns:
        float32 `[H, W]`, 0–1: what speaks for the class, its maximum scaled to 1. What speaks against
        it is 0; `explain(...)` has the signed values.

    Raises:
        InvalidInputError: as in `explain`.

    Source: Zhou et al. 2016, arXiv:1512.04150.
    """
    return explain(model, image, class_index, output=output).heat


def grad_cam(
    model: Any,
    image: Any,
    class_index: int | None = None,
    layer: str | None = None,
    *,
    output: str | int | None = None,
) -> FloatArray:
    """The Grad-CAM of a picture, for any head and any layer; Keras on TensorFlow or JAX.

    Args:
        model: a Keras classifier that ends in a dense layer.
        image: uint8 or float RGB pixels 0–255, `[H, W, 3]` or `[1, H, W, 3]`.
        class_index: the class; None for the most probable one.
        layer: name of a layer with a feature map; None for the last one, `top_activation` in ours.
        output: as in `explain`.

    Returns:
        float32 `[H, W]`, 0–1.

    Raises:
        InvalidInputError: as in `explain`; another backend.

    Source: Selvaraju et al. 2017, arXiv:1610.02391; of the score before its activation.
    """
    return explain(model, image, class_index, method="grad-cam", layer=layer, output=output).heat


def colorize(heat: Any) -> npt.NDArray[np.uint8]:
    """A map `[H, W]`, 0–1, as a picture uint8 `[H, W, 3]`: blue for little, red, yellow for much."""
    from PIL import Image, ImageOps

    values = np.asarray(heat, np.float32)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise InvalidInputError(
            f"Expected a map of finite values 0-1, [H, W]. Received shape {list(values.shape)}. "
            "Pass what class_activation_map returns."
        )
    gray = Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8), mode="L")
    return np.asarray(ImageOps.colorize(gray, _LITTLE, _MUCH, mid=_SOME), dtype=np.uint8)


def overlay(image: Any, heat: Any, strength: float = 0.5) -> npt.NDArray[np.uint8]:
    """The map laid over its picture.

    Args:
        image: uint8 or float pixels 0–255, `[H, W, 3]` or gray `[H, W, 1]`.
        heat: float `[H, W]`, 0–1.
        strength: share of the map in the mixture, 0–1.

    Returns:
        uint8 `[H, W, 3]`.

    Raises:
        InvalidInputError: shapes that do not belong together, or `strength` out of range.
    """
    pixels = np.asarray(image, np.float32)
    pixels = pixels[0] if pixels.ndim == 4 and pixels.shape[0] == 1 else pixels
    colours = colorize(heat)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.shape[:2] != colours.shape[:2]:
        raise InvalidInputError(
            f"Expected a picture [H, W, 3] of the map's size {list(colours.shape[:2])}. "
            f"Received shape {list(pixels.shape)}."
        )
    if not 0 <= strength <= 1:
        raise InvalidInputError(f"Expected strength between 0 and 1. Received: {strength!r}.")
    mixed = (1 - strength) * pixels + strength * colours
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _one_picture(image: Any, path: ScorePath) -> FloatArray:
    """float32 `[H, W, C]` of the size that the model takes."""
    array = np.asarray(image)
    batch = array[None] if array.ndim == 3 else array
    pixels = check_pixels(batch, size=path.size, channels=path.channels, what="image")
    if len(pixels) != 1:
        raise InvalidInputError(
            f"Expected one picture [H, W, {path.channels}]. Received {len(pixels)} of them. "
            "Call once for each picture."
        )
    return pixels[0].astype(np.float32)


def _heat(evidence: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Positive evidence, resized to (height, width) and scaled to a maximum of 1."""
    from PIL import Image

    positive = Image.fromarray(np.maximum(evidence, 0).astype(np.float32))
    resized = np.asarray(positive.resize((size[1], size[0]), Image.Resampling.BILINEAR), np.float32)
    peak = float(resized.max())
    return np.clip(resized / peak, 0, 1) if peak > 0 else np.zeros(size, np.float32)
