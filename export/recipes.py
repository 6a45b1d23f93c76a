"""The recipes: which numbers an artefact computes with, and what it is for."""

from __future__ import annotations

from dataclasses import dataclass

from keras_effnet.errors import unknown_name


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to store a network in one format.

    Attributes:
        format: `saved_model`, `tflite` or `onnx`.
        name: name of the recipe.
        purpose: what it is for, in a few words.
        integer: whether it computes in integers, for which photographs choose the ranges.
        suffix: of the file.
    """

    format: str
    name: str
    purpose: str
    integer: bool = False
    suffix: str = ""

    @property
    def target(self) -> str:
        """What the command line calls it: `tflite:int8`."""
        return self.format if self.format == "saved_model" else f"{self.format}:{self.name}"


def _tflite(name: str, purpose: str, *, integer: bool = False) -> Recipe:
    return Recipe(format="tflite", name=name, purpose=purpose, integer=integer, suffix=".tflite")


def _onnx(name: str, purpose: str, *, integer: bool = False) -> Recipe:
    return Recipe(format="onnx", name=name, purpose=purpose, integer=integer, suffix=".onnx")


RECIPES: dict[str, Recipe] = {
    recipe.target: recipe
    for recipe in (
        Recipe(format="saved_model", name="float32", purpose="TensorFlow Serving; pixels or JPEG bytes in"),
        _tflite("float32", "phones: exact, the reference for the others"),
        _tflite("float16", "phones with a GPU: half the size, practically exact"),
        _tflite("weight_int8", "small downloads: a quarter of the size, computes in float"),
        _tflite("int8", "phones without a GPU, NPUs: a quarter of the size, integer only", integer=True),
        _tflite("int16x8", "NPUs with 16-bit activations; an accuracy reference, slow on CPUs", integer=True),
        _tflite("int8_qat", "as int8, and trained in integers for some minutes", integer=True),
        _tflite("int8_pruned", "as int8, with zeros among the weights: compresses further", integer=True),
        _tflite("int8_clustered", "as int8, with few different weights: compresses further", integer=True),
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
