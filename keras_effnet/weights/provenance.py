"""What is known about weights beside their values, and whether a model was built for them.

The values of a network say nothing of how its pixels were prepared, how its convolutions were
padded, or which epsilon its batch normalization had; wrong ones give plausible, wrong numbers. The
knowledge comes from the catalog, from a file's metadata, or from whose names a file uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.network.reader import composed, convention_of, input_constants
from keras_effnet.weights.arrays import Checkpoint
from keras_effnet.weights.assign import guess_variant
from keras_effnet.weights.catalog import WeightSet
from keras_effnet.weights.hashes import recognize

TORCHVISION_EPSILON = {f"b{index}": 1e-5 if index < 5 else 1e-3 for index in range(8)}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What weights were trained with; None where nothing says so.

    Attributes:
        variant: short name.
        weight_set: name of the published set.
        preprocessing: a key of `CONVENTIONS`.
        padding: `"same"` or `"symmetric"`.
        epsilon: of batch normalization.
        source_sha256: of the file that the weights were first read from.
    """

    variant: str | None = None
    weight_set: str | None = None
    preprocessing: str | None = None
    padding: str | None = None
    epsilon: float | None = None
    source_sha256: str | None = None

    @classmethod
    def of_set(cls, entry: WeightSet) -> Provenance:
        return cls(
            variant=entry.variant,
            weight_set=entry.name,
            preprocessing=entry.preprocessing,
            padding=entry.padding,
            epsilon=entry.epsilon,
        )

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any]) -> Provenance:
        """From what a converted file carries; unknown keys are left for later versions."""
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in metadata.items() if key in known}
        odd = [key for key, value in values.items() if not isinstance(value, str | float | int | None)]
        if odd:
            raise WeightsError(
                f"Expected text or numbers in the metadata of a weight file. Received for {odd[0]!r}: "
                f"{values[odd[0]]!r}. Convert the weights again with keras-effnet convert."
            )
        return cls(**values)


def provenance_of(path: Path, checkpoint: Checkpoint) -> Provenance:
    """What is known about an opened weight file: its metadata, its hash, its naming, in this order."""
    if checkpoint.metadata:
        return Provenance.of_metadata(checkpoint.metadata)
    published = recognize(path)
    if published:
        return Provenance.of_set(published[0])
    variant = guess_variant(checkpoint.layers)
    if checkpoint.naming == "torchvision" and variant in TORCHVISION_EPSILON:
        epsilon = TORCHVISION_EPSILON[variant]
        padding = "symmetric" if epsilon == 1e-5 else None
        return Provenance(variant=variant, padding=padding, epsilon=epsilon)
    return Provenance(variant=variant)


def check_built_for(model: Any, provenance: Provenance, source: str) -> None:
    """Make sure that a model prepares its pixels, pads and normalizes as its weights need.

    Raises:
        WeightsError: it does not; the message says which arguments to build with.
    """
    built = built_with(model)
    needed = {
        key: value
        for key, value in (
            ("preprocessing", provenance.preprocessing),
            ("padding", provenance.padding),
            ("epsilon", provenance.epsilon),
        )
        if value is not None and built[key] is not None
    }
    if any(not _equal(built[key], value) for key, value in needed.items()):
        raise WeightsError(
            f"Expected a model built with {arguments(needed)}, as the weights {source!r} were trained. "
            f"Received one with {arguments({key: built[key] for key in needed})}. "
            f"Build it with {arguments(needed)}."
        )


def _equal(left: Any, right: Any) -> bool:
    return bool(np.isclose(left, right, rtol=1e-3, atol=0)) if isinstance(right, float) else left == right


def arguments(values: Mapping[str, Any]) -> str:
    """As a caller would write them: `padding='symmetric', epsilon=1e-05`."""
    return ", ".join(f"{key}={value!r}" for key, value in values.items())


def built_with(model: Any) -> dict[str, Any]:
    """Preprocessing, padding and epsilon of a model of this package, read from its layers.

    Returns:
        `preprocessing` (None without preprocessing in the graph; `"custom"` for unknown constants),
        `padding`, `epsilon` (None without a stem).
    """
    layers = {layer.name: layer for layer in model.layers}
    stem_bn = layers.get("stem_bn")
    return {
        "preprocessing": _preprocessing_of(model),
        "padding": None if stem_bn is None else "symmetric" if "stem_conv_pad" in layers else "same",
        "epsilon": None if stem_bn is None else float(stem_bn.epsilon),
    }


def _preprocessing_of(model: Any) -> str | None:
    """The convention of the layer that is ours, else of all that scales pixels before the stem."""
    constants = input_constants(model)
    if not constants:
        return None
    known = [name for part in (*constants, composed(constants)) if (name := convention_of(part))]
    return known[-1] if known else "custom"
