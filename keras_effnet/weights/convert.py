"""Any readable weights to Keras' `.weights.h5` or to `.safetensors`, with what is known about them.

The metadata (variant, set, preprocessing, padding, epsilon, hash of the source) travels in the file,
so a later load needs no flags.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError, WeightsError
from keras_effnet.network.variants import Variant, get_variant
from keras_effnet.weights.arrays import TOP_LAYER, Array, Checkpoint, LayerArrays
from keras_effnet.weights.assign import assign, guess_variant, short_name
from keras_effnet.weights.fitting import RGB, STEM_LAYER
from keras_effnet.weights.hashes import content_hash
from keras_effnet.weights.provenance import Provenance, provenance_of
from keras_effnet.weights.readers import open_checkpoint
from keras_effnet.weights.readers.metadata import KEY
from keras_effnet.weights.sources import WeightPlan, check_asked, plan_weights

TARGETS = (".weights.h5", ".safetensors")


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    variant: str | Variant | None = None,
    ema: bool = True,
    preprocessing: str | None = None,
    padding: str | None = None,
    epsilon: float | None = None,
) -> Path:
    """Convert weights between formats.

    Args:
        src: a weight file, a TensorFlow checkpoint's directory or prefix, or, with `variant`, the
            name of a published set.
        dst: a file that ends in `.weights.h5` (Keras' own format, which `model.load_weights` reads
            too) or `.safetensors`. It appears whole or not at all.
        variant: of the weights; None to recognize it by the shapes.
        ema: take the moving averages of a training checkpoint that holds them.
        preprocessing: what the weights were trained with, where the file does not say so.
        padding: likewise, `"same"` or `"symmetric"`.
        epsilon: likewise, of batch normalization.

    Returns:
        `dst`.

    Raises:
        InvalidInputError: another ending, or an argument that contradicts what is known of `src`.
        WeightsError: `src` cannot be read or is no complete EfficientNet.
    """
    target = Path(dst)
    ending = next((ending for ending in TARGETS if target.name.endswith(ending)), None)
    if ending is None:
        raise InvalidInputError(
            f"Expected a target that ends in {' or '.join(TARGETS)}. Received: {str(target)!r}. Rename it."
        )
    asked = {"preprocessing": preprocessing, "padding": padding, "epsilon": epsilon}
    chosen = None if variant is None else get_variant(variant)
    plan = WeightPlan(Path(src)) if chosen is None else plan_weights(src, chosen)
    path = plan.source or Path(src)
    with open_checkpoint(path, ema=ema) as checkpoint:
        chosen = chosen or _recognized(checkpoint, path)
        known = plan.provenance if plan.provenance.weight_set else provenance_of(path, checkpoint)
        check_asked(asked, known, str(path), chosen)
        given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
        provenance = replace(
            known, variant=chosen.name, source_sha256=known.source_sha256 or content_hash(path), **given
        )
        model = _model_for(chosen, checkpoint, provenance)
        assign(model, checkpoint.layers, str(path))
    _write(model, target, ending, provenance)
    return target


def _recognized(checkpoint: Checkpoint, path: Path) -> Variant:
    name = guess_variant(checkpoint.layers)
    if name is None:
        raise WeightsError(
            f"Expected the weights of a published variant. Received: {str(path)!r}, whose blocks are of "
            "none. Pass the variant, or another file."
        )
    return get_variant(name)


def _model_for(variant: Variant, checkpoint: Checkpoint, provenance: Provenance) -> Any:
    """A model with the file's own classifier and input channels."""
    from keras_effnet.applications import EfficientNet

    head = checkpoint.layers.get(TOP_LAYER, {})
    stem = checkpoint.layers.get(STEM_LAYER, {})
    channels = stem["kernel"].shape[2] if "kernel" in stem and len(stem["kernel"].shape) == 4 else RGB
    return EfficientNet(
        variant,
        weights=None,
        include_top=bool(head),
        classes=head["bias"].shape[-1] if "bias" in head else 1000,
        input_shape=(None, None, channels),
        preprocessing=provenance.preprocessing,
        padding=provenance.padding or "same",
        epsilon=provenance.epsilon or 1e-3,
    )


def _write(model: Any, target: Path, ending: str, provenance: Provenance) -> None:
    known = {key: value for key, value in asdict(provenance).items() if value is not None}
    metadata = json.dumps(known)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".keras-effnet-") as folder:
            temporary = Path(folder) / f"converted{ending}"
            writer = _write_h5 if ending == ".weights.h5" else _write_safetensors
            writer(model, temporary, metadata)
            _verify(model, temporary)
            temporary.replace(target)
    except OSError as error:
        raise WeightsError(
            f"Expected to write {str(target)!r}. Received: {error}. Free some space, or choose another "
            "folder."
        ) from error


def _write_h5(model: Any, path: Path, metadata: str) -> None:
    import h5py

    model.save_weights(str(path))
    with h5py.File(path, "r+") as file:
        file.attrs[KEY] = metadata


def _write_safetensors(model: Any, path: Path, metadata: str) -> None:
    from safetensors.numpy import save_file

    tensors = {
        f"{layer.name}.{short_name(variable)}": _value(variable)
        for layer in model.layers
        for variable in layer.weights
    }
    save_file(tensors, str(path), {KEY: metadata})


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
