"""Any readable weights to Keras' `.weights.h5` or to `.safetensors`, with what is known about them.

The metadata (variant, set, preprocessing, padding, epsilon, hash of the source) travels in the file,
so a later load needs no flags.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError, WeightsError
from keras_effnet.network.builder import BuildOptions, build_model
from keras_effnet.network.conventions import Preprocessing, get_convention
from keras_effnet.network.variants import STEM_LAYER, Variant, architecture_of, get_variant
from keras_effnet.pictures.labels import IMAGENET_CLASSES
from keras_effnet.system.files import check_new, check_writable, staged
from keras_effnet.system.quiet import import_keras
from keras_effnet.weights.catalog import SET_NAMES
from keras_effnet.weights.checkpoint import (
    METADATA_KEY,
    TOP_LAYER,
    Array,
    Checkpoint,
    LayerArrays,
    WeightFacts,
)
from keras_effnet.weights.facts import content_hash, facts_of_file, guess_variant, in_doubt
from keras_effnet.weights.loading import RGB, assign, short_name
from keras_effnet.weights.readers import open_checkpoint
from keras_effnet.weights.sources import WeightPlan, check_asked, check_source, plan_weights

WEIGHTS_H5, SAFETENSORS = ENDINGS = (".weights.h5", ".safetensors")
_TRAINED_WITH = ("preprocessing", "padding", "epsilon")


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    variant: str | Variant | None = None,
    ema: bool = True,
    preprocessing: Preprocessing | None = None,
    padding: str | None = None,
    epsilon: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Convert weights between formats.

    Args:
        src: a weight file, a TensorFlow checkpoint's directory or prefix, or, with `variant`, the
            name of a published set.
        dst: a file that ends in `.weights.h5` (Keras' own format, which `model.load_weights` reads
            too) or `.safetensors`. It appears whole or not at all.
        variant: of the weights; None to recognize it by the shapes.
        ema: take the moving averages of a training checkpoint that holds them.
        preprocessing: what the weights were trained with, where the file does not say so; as in
            `EfficientNet`.
        padding: likewise, `"same"` or `"symmetric"`.
        epsilon: likewise, of batch normalization.
        overwrite: replace `dst` if it exists.

    Returns:
        `dst`.

    Raises:
        InvalidInputError: another ending, a `dst` that exists, or an argument that contradicts what is
            known of `src`.
        ExportError: the disk is full or failed while writing.
        WeightsError: `src` cannot be read, is no complete EfficientNet, or leaves open how its pixels
            were prepared.
    """
    check_conversion(src, dst, variant=variant, preprocessing=preprocessing, overwrite=overwrite)
    convention = None if preprocessing is None else get_convention(preprocessing)
    asked = {"preprocessing": convention, "padding": padding, "epsilon": epsilon}
    chosen = None if variant is None else get_variant(variant)
    plan = WeightPlan(Path(src)) if chosen is None else plan_weights(src, chosen, include_preprocessing=False)
    path = plan.source or Path(src)
    with open_checkpoint(path, ema=ema) as checkpoint:
        chosen = chosen or _recognized(checkpoint, path)
        known = plan.facts if plan.facts.weight_set else facts_of_file(path, checkpoint)
        check_asked(asked, known, str(path), chosen)
        if known.doubt and not known.usual and convention is None:
            raise WeightsError(in_doubt(known, str(path)))
        given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
        facts = replace(
            known, variant=chosen.name, source_sha256=known.source_sha256 or content_hash(path), **given
        )
        model = _model_for(chosen, checkpoint, facts)
        assign(model, checkpoint, str(path))
    _write(model, Path(dst), facts, overwrite)
    return Path(dst)


def check_conversion(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    variant: str | Variant | None = None,
    preprocessing: Preprocessing | None = None,
    overwrite: bool = False,
) -> None:
    """Tell what is wrong with a conversion before anything is opened; needs neither Keras nor TensorFlow."""
    chosen = None if variant is None else get_variant(variant)
    if preprocessing is not None:
        get_convention(preprocessing)
    target = Path(dst)
    if not target.name.endswith(ENDINGS):
        better = [f"{target.stem.removesuffix('.weights') or 'weights'}{ending}" for ending in ENDINGS]
        raise InvalidInputError(
            f"Expected a target that ends in {' or '.join(ENDINGS)}. Received: {str(target)!r}. Rename it, for example "
            f"to {' or '.join(better)}."
        )
    if chosen is None and str(src) in SET_NAMES:
        raise InvalidInputError(
            f"Expected a variant together with the published set {str(src)!r}. Received: none. Pass for example "
            "--model b0 (in Python variant='b0')."
        )
    check_source(src, chosen)
    check_new(target, overwrite=overwrite)
    check_writable(target)


def _recognized(checkpoint: Checkpoint, path: Path) -> Variant:
    name = guess_variant(checkpoint.layers)
    if name is None:
        raise WeightsError(
            f"Expected the weights of a published variant. Received: {str(path)!r}, whose blocks are of "
            "none. Pass the variant, or another file."
        )
    return get_variant(name)


def _model_for(variant: Variant, checkpoint: Checkpoint, facts: WeightFacts) -> Any:
    """A model with the file's own classifier and input channels."""
    import_keras()
    import keras

    head = checkpoint.layers.get(TOP_LAYER, {})
    stem = checkpoint.layers.get(STEM_LAYER, {})
    channels = stem["kernel"].shape[2] if "kernel" in stem and len(stem["kernel"].shape) == 4 else RGB
    known = {key: value for key in _TRAINED_WITH if (value := getattr(facts, key)) is not None}
    bias = head.get("bias")
    classes = bias.shape[-1] if bias is not None and bias.shape else IMAGENET_CLASSES
    options = BuildOptions.of(variant, include_top=bool(head), classes=classes, **known)
    inputs = keras.Input((None, None, channels))
    return build_model(architecture_of(variant), options, inputs, inputs, keras=keras)


def _write(model: Any, target: Path, facts: WeightFacts, overwrite: bool) -> None:
    is_h5 = target.name.endswith(WEIGHTS_H5)
    ending, write = (WEIGHTS_H5, _write_h5) if is_h5 else (SAFETENSORS, _write_safetensors)
    with staged(target, overwrite=overwrite, ending=ending.removeprefix(".")) as temporary:
        write(model, temporary, json.dumps(facts.to_metadata()))
        _verify(model, temporary)


def _write_h5(model: Any, path: Path, metadata: str) -> None:
    import h5py

    model.save_weights(str(path))
    with h5py.File(path, "r+") as file:
        file.attrs[METADATA_KEY] = metadata


def _write_safetensors(model: Any, path: Path, metadata: str) -> None:
    from safetensors.numpy import save_file

    tensors = {
        f"{layer.name}.{short_name(variable)}": _value(variable)
        for layer in model.layers
        for variable in layer.weights
    }
    path.touch()
    usual = path.stat().st_mode  # the library makes its files private
    save_file(tensors, str(path), {METADATA_KEY: metadata})
    path.chmod(usual)


def _verify(model: Any, path: Path) -> None:
    """Read the new file back and compare every number."""
    variables = [(layer.name, variable) for layer in model.layers for variable in layer.weights]
    with open_checkpoint(path) as checkpoint:
        for layer, variable in variables:
            if not _same(checkpoint.layers, layer, variable):
                raise WeightsError(
                    f"Expected {str(path)!r} to read back as written. Received another {layer!r}. "
                    "Check the disk."
                )


def _same(layers: LayerArrays, layer: str, variable: Any) -> bool:
    array = layers.get(layer, {}).get(short_name(variable))
    return array is not None and np.array_equal(array.read(), _value(variable))


def _value(variable: Any) -> Array:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(variable))
