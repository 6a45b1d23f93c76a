"""The targets: one row for each way to store a network, with what writes it and how close it must come.

A new target is a row here and a writer beside the others of its format.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError, require_installed, unknown_name
from keras_effnet.system.files import staged

from . import onnx_model, onnx_pictures, saved_model, tflite
from .formats import ENDINGS, ONNX, SAVED_MODEL, TFLITE
from .kinds import Kind
from .model_facts import ModelFacts
from .options import Options
from .precision import plain_keras
from .quantization.runtimes import get_runtime

Writer = Callable[[ModelFacts, Path, Options, Any], None]
Prepare = Callable[[ModelFacts, Any, Options], Any]


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What each output of an artefact must reach; None where a figure does not decide.

    Attributes:
        max_abs_error: largest difference of any probability, 0–1, or of another value as a share of the largest.
        top1_agreement: share of pictures with the same best class, of sigmoids with the same yes or no, 0–1.
        sqnr_db: signal to quantization noise of the output, in dB.
        median_sqnr_db, low_sqnr_db: of each picture, its median and its 5th percentile.
        mean_cosine: between the output and the model's, −1–1.
        same_neighbour: share of pictures that keep their nearest neighbour, 0–1.
    """

    max_abs_error: float | None = None
    top1_agreement: float | None = None
    sqnr_db: float | None = None
    median_sqnr_db: float | None = None
    low_sqnr_db: float | None = None
    mean_cosine: float | None = None
    same_neighbour: float | None = None

    def at_least(self, agreement: float | None) -> Tolerance:
        """This one, and the top-1 agreement that was asked for, 0–1, if it was."""
        if agreement is None:
            return self
        return replace(self, top1_agreement=max(agreement, self.top1_agreement or 0.0))

    def of_kind(self, kind: Kind) -> Tolerance:
        """What it asks of an output of a kind: an embedding has no best class, a single sigmoid no other ones."""
        asked = self.top1_agreement
        is_integer = asked is not None and replace(self, top1_agreement=INTEGER.top1_agreement) == INTEGER
        found = _INTEGER_OF_KIND.get(kind.name, self) if is_integer else self
        return replace(found, top1_agreement=asked if kind.decides else None)


# float32: only the order of additions differs, which stays below 1e-5 on B7.
FLOAT32 = Tolerance(max_abs_error=1e-4, top1_agreement=1.0)
# float16 rounds each weight by up to 2^-11; two near-equal classes may then change places.
FLOAT16 = Tolerance(max_abs_error=5e-3)
# Integer files differ visibly in single probabilities. A good one (Lite0) shows 99 % and 24 dB on
# photographs, a destroyed one (B0 with min/max ranges) 68 % and 2 dB.
INTEGER = Tolerance(top1_agreement=0.95, sqnr_db=10.0)
# Features are judged by the picture, since a sum over all is one outlier's figure. On a really trained B0 a good file
# shows a median of 19 dB, a 5th percentile of 12 and .79 of the nearest neighbours; TensorFlow's converter 1.6, −4 and
# .06; one that damages the tail 12, 1.9 and .45. A cosine of .9 is what noise of 6 dB leaves.
FEATURES = Tolerance(median_sqnr_db=10.0, low_sqnr_db=3.0, mean_cosine=0.9, same_neighbour=0.5)
# How a file that reads photographs itself may differ from the reader here: another decoder of JPEGs, which rounds colors
# otherwise. 200 photographs differ by .005 (median) and .044 (largest) in Lite0; swapped colors by .3 and more.
READING = Tolerance(max_abs_error=0.15, top1_agreement=0.95)
# One sigmoid agrees by chance on half of the pictures, and on all where all are of one class. People move its
# threshold: what is further off than from .5 to .8 says something else. Good files differ by less than .1.
ONE_SIGMOID = Tolerance(top1_agreement=0.95, max_abs_error=0.3)
_INTEGER_OF_KIND = {"sigmoid": ONE_SIGMOID, "embedding": FEATURES, "map": FEATURES}

# what converts, runs and verifies, by the extra that brings it
_TFLITE = (("ai_edge_litert", "tflite"),)
_TFLITE_QUANTIZED = (*_TFLITE, ("litert_quantizer", "tflite"))
_TFLITE_INTEGER = (*_TFLITE_QUANTIZED, ("threadpoolctl", "tflite"), ("scipy", "tflite"))
_TFLITE_TRAINED = (*_TFLITE_INTEGER, ("tf_keras", "qat"), ("tensorflow_model_optimization", "qat"))
_ONNX = tuple((module, "onnx") for module in ("onnx", "tf2onnx", "onnxslim", "onnxruntime"))
_ONNX_INTEGER = (*_ONNX, ("threadpoolctl", "onnx"), ("scipy", "onnx"))


def target_name(format_: str, recipe: str) -> str:
    """What a target is called; a SavedModel has one recipe only."""
    return format_ if format_ == SAVED_MODEL else f"{format_}:{recipe}"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One way to store a network in one format.

    Attributes:
        format: `saved_model`, `tflite` or `onnx`.
        recipe: which numbers it computes with.
        write: what writes it: takes the facts of a model, a path that does not exist yet, the options and
            the calibration photographs.
        tolerance: how close to the model it must come.
        suffix: of the file.
        integer: whether it computes in integers, for which photographs choose the ranges.
        prepare: what makes the integer network that `write` takes as an option, for targets that can share
            one; None for a model that has none.
        options: names of the `Options` that it follows.
        modules: what must be installed to make and verify it, each with the extra that brings it.
    """

    format: str
    recipe: str
    write: Writer
    tolerance: Tolerance
    suffix: str = ""
    integer: bool = False
    prepare: Prepare | None = None
    options: frozenset[str] = frozenset()
    modules: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """What the command line calls it: `tflite:int8`."""
        return target_name(self.format, self.recipe)

    def takes_any_network(self, options: Options) -> bool:
        """Whether an integer network that is the best for most formats is the best for this one too."""
        return "runtime" not in self.options or not get_runtime(options.runtime).only_read


_LAID_OUT, _ENDS, _SHARED, _PLACED = (
    frozenset({"layout", "batching", "opset", "input", "input_name", "output_name"}),
    frozenset({"input_type", "output_type"}),
    frozenset({"min_agreement", "network"}),
    frozenset({"runtime", "first_integer"}),
)
_saved_model = partial(Target, format=SAVED_MODEL)
_tflite = partial(Target, format=TFLITE, suffix=".tflite", modules=_TFLITE, tolerance=INTEGER)
_integer_tflite = partial(_tflite, integer=True, modules=_TFLITE_INTEGER, options=_ENDS)
_trained_tflite = partial(_integer_tflite, modules=_TFLITE_TRAINED)
_onnx = partial(Target, format=ONNX, suffix=".onnx", modules=_ONNX, options=_LAID_OUT)

_ROWS = (
    # TensorFlow Serving; pixels or JPEG bytes in
    _saved_model(recipe="float32", write=saved_model.write, tolerance=FLOAT32),
    # phones: exact, the reference for the others
    _tflite(recipe="float32", write=tflite.write_float32, tolerance=FLOAT32),
    # phones with a GPU: half the size, practically exact
    _tflite(recipe="float16", write=tflite.write_float16, tolerance=FLOAT16),
    # small downloads: a quarter of the size, computes in float
    _tflite(recipe="weight_int8", write=tflite.write_weight_int8, modules=_TFLITE_QUANTIZED),
    # phones without a GPU, NPUs: a quarter of the size, integer only
    _integer_tflite(
        recipe="int8", write=tflite.write_int8, prepare=tflite.prepare_int8, options=_ENDS | _SHARED
    ),
    # NPUs with 16-bit activations; an accuracy reference, slow on CPUs
    _integer_tflite(recipe="int16x8", write=tflite.write_int16x8, options=frozenset()),
    # as int8, and trained in integers for some minutes; with zeros, or with few values, among the weights
    _integer_tflite(recipe="int8_qat", write=tflite.write_int8_qat),
    _trained_tflite(recipe="int8_pruned", write=tflite.write_int8_pruned),
    _trained_tflite(recipe="int8_clustered", write=tflite.write_int8_clustered),
    # servers: ONNX Runtime, OpenVINO, TensorRT
    _onnx(recipe="float32", write=onnx_model.write_float32, tolerance=FLOAT32),
    # half the size, as fast as float32
    _onnx(recipe="float16", write=onnx_model.write_float16, tolerance=FLOAT16),
    # GPUs: stores, computes, takes and returns float16
    _onnx(recipe="float16_gpu", write=onnx_model.write_float16_gpu, tolerance=FLOAT16),
    # a quarter of the size, integer convolutions
    _onnx(
        recipe="int8",
        write=onnx_model.write_int8,
        prepare=onnx_model.prepare_int8,
        integer=True,
        tolerance=INTEGER,
        options=_LAID_OUT | _SHARED | _PLACED,
        modules=_ONNX_INTEGER,
    ),
)
TARGETS: dict[str, Target] = {row.name: row for row in _ROWS}

# option → formats that it is about, or their integer files alone, in words; a target may still not follow it
_AT_ENDS = "with integer TFLite files ('int16x8' has int16 at both ends)"
_ABOUT = {
    **{name: ({ONNX}, False, f"{name} with ONNX files") for name in _LAID_OUT},
    **{name: ({ONNX}, True, f"{name} with recipe 'int8' of ONNX") for name in _PLACED},
    "min_agreement": ({TFLITE, ONNX}, True, "min_agreement with recipe 'int8', the one that can promise it"),
    "network": ({TFLITE, ONNX}, True, "a prepared network with recipe 'int8'"),
    "input_type": ({TFLITE}, True, f"input_type {_AT_ENDS}"),
    "output_type": ({TFLITE}, True, f"output_type {_AT_ENDS}"),
}


def get_target(format_: str, recipe: str) -> Target:
    """The target of a format with this recipe.

    Raises:
        InvalidInputError: no such recipe for this format; the message lists those there are.
    """
    rows = {row.recipe: row for row in TARGETS.values() if row.format == format_}
    if recipe not in rows:
        raise unknown_name(f"recipe for {format_}", recipe, rows)
    return rows[recipe]


def parse_target(text: str) -> Target:
    """The target that `tflite:int8`, `saved_model` or plain `onnx` (float32) means.

    Raises:
        InvalidInputError: no such target.
    """
    key = text.strip().lower()
    wanted = tuple(key.split(":")) if ":" in key else (key, "float32")
    for row in TARGETS.values():
        if (row.format, row.recipe) == wanted:
            return row
    raise unknown_name("target", text, TARGETS)


def tolerance_of(format_: str, recipe: str) -> Tolerance:
    """How close an artefact must come, also one that was not made here: an unknown recipe counts as integer."""
    alike = [row for row in TARGETS.values() if row.recipe == recipe]
    exact = [row for row in alike if row.format == format_]
    return next((row.tolerance for row in (*exact, *alike)), INTEGER)


def compares_values(recipe: str) -> bool:
    """Whether the outputs of a recipe are judged by their values, as those of floats are, not by what they decide."""
    return tolerance_of("", recipe).max_abs_error is not None


def check_options(targets: Sequence[Target], options: Options) -> None:
    """Make sure that what was asked for is followed by every target that it is about, and by one at least.

    Raises:
        InvalidInputError: an option that a target cannot follow.
        MissingExtraError: what it needs is not installed.
    """
    for name in ("min_agreement", "first_integer"):
        if {"network", name} <= set(options.asked):
            raise InvalidInputError(
                f"Expected either a prepared network or {name}. Received: both. Pass {name} to prepare()."
            )
    if options.input == "jpeg":
        require_installed(onnx_pictures.MODULE, onnx_pictures.EXTRA)
    for name in options.asked:
        formats, integer, words = _ABOUT[name]
        about = [row for row in targets if row.format in formats and row.integer >= integer] or targets
        refused = [row.name for row in about if name not in row.options]
        if refused:
            value = getattr(options, name)
            given = "one" if name == "network" else f"{name}={value!r}"
            raise InvalidInputError(
                f"Expected {words}. Received: {', '.join(refused)} with {given}. Leave one of them out."
            )


def check_path(target: Target, path: str | os.PathLike[str]) -> None:
    """Make sure that the ending of a path does not promise another format."""
    ending = Path(path).suffix.lower()
    promised = ENDINGS.get(ending, target.format)
    if promised != target.format:
        wanted = f"a path that ends in {target.suffix}" if target.suffix else "the name of a folder"
        raise InvalidInputError(
            f"Expected {wanted} for {target.name}. Received: {os.fspath(path)!r}, whose ending belongs to another "
            f"format. Rename it{f', for example {Path(path).stem}{target.suffix}' if target.suffix else ''}."
        )


def check_installed(targets: Iterable[Target]) -> None:
    """Make sure, before the first minute of work, that everything is there that these targets need.

    Raises:
        MissingExtraError: something is not; the message has the pip line.
    """
    for target in targets:
        for module, extra in target.modules:
            require_installed(module, extra)


def write_artefact(
    target: Target,
    facts: ModelFacts,
    path: Path,
    options: Options,
    calibration: Any = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write one artefact, whole or not at all; its options and path are checked already.

    Options that the target does not follow are left alone. An integer target takes photographs, or a prepared
    network among the options.

    Raises:
        InvalidInputError: an integer target without photographs, or a path that is taken.
        MissingExtraError: the converter is not installed.
        ExportError: the converter failed.
    """
    if target.integer and calibration is None and options.network is None:
        raise InvalidInputError(
            f"Expected calibration photographs for recipe {target.recipe!r}. Received: none. Pass "
            f"calibration=[N, {', '.join(map(str, facts.shape))}], or on the command line --calibration DIR."
        )
    check_installed([target])
    stored = facts.stored_as(target.recipe, options.layout if "layout" in target.options else "nhwc")
    with staged(path, overwrite=overwrite) as temporary, plain_keras():
        target.write(stored, temporary, options, calibration)
    return path
