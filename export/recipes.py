"""The recipes: which numbers an artefact computes with, and what it is for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keras_effnet.errors import require_installed, unknown_name

# what converts, runs and verifies, by the extra that brings it
_TFLITE = (("ai_edge_litert", "tflite"),)
_TFLITE_QUANTIZED = (*_TFLITE, ("litert_quantizer", "tflite"))
_TFLITE_INTEGER = (*_TFLITE_QUANTIZED, ("threadpoolctl", "tflite"))
_TFLITE_TRAINED = (*_TFLITE_INTEGER, ("tf_keras", "qat"), ("tensorflow_model_optimization", "qat"))
_ONNX = tuple((module, "onnx") for module in ("onnx", "tf2onnx", "onnxslim", "onnxruntime"))
_ONNX_INTEGER = (*_ONNX, ("threadpoolctl", "onnx"))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to store a network in one format.

    Attributes:
        format: `saved_model`, `tflite` or `onnx`.
        name: name of the recipe.
        purpose: what it is for, in a few words.
        integer: whether it computes in integers, for which photographs choose the ranges.
        suffix: of the file.
        modules: what must be installed to make and verify it, each with the extra that brings it.
    """

    format: str
    name: str
    purpose: str
    integer: bool = False
    suffix: str = ""
    modules: tuple[tuple[str, str], ...] = ()

    @property
    def target(self) -> str:
        """What the command line calls it: `tflite:int8`."""
        return self.format if self.format == "saved_model" else f"{self.format}:{self.name}"


def _tflite(
    name: str, purpose: str, modules: tuple[tuple[str, str], ...], *, integer: bool = False
) -> Recipe:
    return Recipe(
        format="tflite", name=name, purpose=purpose, integer=integer, suffix=".tflite", modules=modules
    )


def _onnx(name: str, purpose: str, *, integer: bool = False) -> Recipe:
    modules = _ONNX_INTEGER if integer else _ONNX
    return Recipe(format="onnx", name=name, purpose=purpose, integer=integer, suffix=".onnx", modules=modules)


RECIPES: dict[str, Recipe] = {
    recipe.target: recipe
    for recipe in (
        Recipe(format="saved_model", name="float32", purpose="TensorFlow Serving; pixels or JPEG bytes in"),
        _tflite("float32", "phones: exact, the reference for the others", _TFLITE),
        _tflite("float16", "phones with a GPU: half the size, practically exact", _TFLITE),
        _tflite(
            "weight_int8", "small downloads: a quarter of the size, computes in float", _TFLITE_QUANTIZED
        ),
        _tflite(
            "int8",
            "phones without a GPU, NPUs: a quarter of the size, integer only",
            _TFLITE_INTEGER,
            integer=True,
        ),
        _tflite(
            "int16x8",
            "NPUs with 16-bit activations; an accuracy reference, slow on CPUs",
            _TFLITE_INTEGER,
            integer=True,
        ),
        _tflite(
            "int8_qat", "as int8, and trained in integers for some minutes", _TFLITE_TRAINED, integer=True
        ),
        _tflite(
            "int8_pruned",
            "as int8, with zeros among the weights: compresses further",
            _TFLITE_TRAINED,
            integer=True,
        ),
        _tflite(
            "int8_clustered",
            "as int8, with few different weights: compresses further",
            _TFLITE_TRAINED,
            integer=True,
        ),
        _onnx("float32", "servers: ONNX Runtime, OpenVINO, TensorRT"),
        _onnx("float16", "servers: half the size, as fast as float32"),
        _onnx("int8", "servers: a quarter of the size, integer convolutions", integer=True),
    )
}


def get_recipe(format_: str, name: str) -> Recipe:
    """The recipe `name` of a format.

    Raises:
        InvalidInputError: no such recipe for this format; the message lists those there are.
    """
    for recipe in RECIPES.values():
        if (recipe.format, recipe.name) == (format_, name):
            return recipe
    names = [recipe.name for recipe in RECIPES.values() if recipe.format == format_]
    raise unknown_name(f"recipe for {format_}", name, names)


def parse_target(target: str) -> Recipe:
    """The recipe that `tflite:int8`, `saved_model` or plain `onnx` (float32) means.

    Raises:
        InvalidInputError: no such target.
    """
    key = target.strip().lower()
    key = key if ":" in key or key == "saved_model" else f"{key}:float32"
    key = "saved_model" if key == "saved_model:float32" else key
    if key not in RECIPES:
        raise unknown_name("target", target, RECIPES)
    return RECIPES[key]


def check_installed(recipes: Iterable[Recipe]) -> None:
    """Make sure, before the first minute of work, that everything is there that these recipes need.

    Raises:
        MissingExtraError: something is not; the message has the pip line.
    """
    for recipe in recipes:
        for module, extra in recipe.modules:
            require_installed(module, extra)
