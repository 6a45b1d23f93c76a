"""What a Keras file says of its network in front of the stem: what happened to a pixel, and the padding.

Whole models carry a description of their layers, which is read as data: nothing in it is ever built. From
weights alone only the names and the kinds of the layers are known; keras.applications' are recognized.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError
from keras_effnet.network.conventions import (
    CONVENTIONS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    composed,
    convention_with,
    standardizing,
)
from keras_effnet.network.variants import STEM_LAYER
from keras_effnet.weights.checkpoint import WeightFacts

RESCALING, NORMALIZATION = "rescaling", "normalization"  # as Keras counts layers of these classes
STEM_PADDING = "stem_conv_pad"
STEM_NORMALIZATION = "stem_bn"
MAX_DEPTH = 8  # of models inside models
_LOST = "it keeps weights only, not the constants of the layers that scale its pixels"
_OURS_LOST = "it keeps weights only, not the constants of its Rescaling"
# what these do is no arithmetic on a pixel's value at inference
NEUTRAL = re.compile(
    r"InputLayer|Identity|Dropout|Gaussian\w+|Random\w+|Resizing|CenterCrop|Cropping2D|ZeroPadding2D|Pipeline"
)


Statistics = Mapping[str, tuple[Any, Any]]
"""Name of a `Normalization` layer → its mean and variance, as the file's arrays have them."""


def facts_of_config(config: Mapping[str, Any], statistics: Statistics, prefix: str = "") -> WeightFacts:
    """From the description of a whole model, as Keras 3 or tf_keras writes it; `prefix` begins its layers' names."""
    path = _way_to(prefix + STEM_LAYER, config, 0)
    if path is None:
        return WeightFacts(doubt=f"its description does not show how pixels come to {STEM_LAYER!r}")
    layers = _all_layers(config, 0)
    normalization = layers.get(prefix + STEM_NORMALIZATION, {})
    padding = layers.get(prefix + STEM_PADDING, {}).get("padding")
    known: dict[str, Any] = {
        "padding": "symmetric" if padding in (1, [1, 1], [[1, 1], [1, 1]]) else "same",
        "epsilon": normalization.get("epsilon"),
    }
    scalings = []
    for kind, inner in path:
        if NEUTRAL.fullmatch(kind) or (kind == "Activation" and inner.get("activation") == "linear"):
            continue
        if kind not in ("Rescaling", "Normalization"):
            return WeightFacts(
                doubt=f"it has a layer of the class {kind!r} in front of {STEM_LAYER!r}", **known
            )
        constants = _constants(kind, inner, statistics)
        if constants is None:
            return WeightFacts(doubt=f"the constants of its layer {inner.get('name')!r} are missing", **known)
        scalings.append(constants)
    if not scalings:
        return WeightFacts(
            doubt="nothing in its network scales pixels (nor in yours, with include_preprocessing=False)",
            **known,
        )
    return _facts_of_constants(scalings, known)


def facts_of_names(
    scaling: Sequence[tuple[str, str]], statistics: Statistics, outside: bool = False
) -> WeightFacts | None:
    """From the names of the layers that scale, in a file of weights alone.

    Args:
        scaling: class (`RESCALING`, `NORMALIZATION`) and name of each that lies beside the stem.
        statistics: of the adapted `Normalization` layers.
        outside: whether more of them lie around the model that the stem is in.
    """
    rescalings = [name for kind, name in scaling if kind == RESCALING]
    normalizations = [name for kind, name in scaling if kind == NORMALIZATION]
    if not scaling and not outside:
        return None
    if outside or len(normalizations) > 1 or len(rescalings) not in (1, 2):
        return WeightFacts(doubt=_LOST)
    if not normalizations:
        return _facts_of_ours(rescalings)
    # keras.applications: x / 255, Normalization, and behind ImageNet's weights / sqrt(std)
    given = statistics.get(normalizations[0])
    facts = _facts_of_constants([(1 / 255, 0.0), given and standardizing(*given)], {})
    root = np.sqrt(IMAGENET_STD)
    trap = convention_with(1 / (255 * root), -np.asarray(IMAGENET_MEAN) / root)
    seen = facts.preprocessing
    is_trap = seen is not None and seen.same_as(trap)
    if len(rescalings) == 2:
        # with other statistics the second one is not theirs: somebody put a Rescaling in front of the network
        return WeightFacts(preprocessing=CONVENTIONS["imagenet"]) if is_trap else WeightFacts(doubt=_LOST)
    if seen is None or not is_trap:
        return facts
    return WeightFacts(
        doubt="its Normalization holds ImageNet's standard deviation where a variance belongs: either the values "
        "are those that keras.applications published, or TensorFlow 2.9 or older trained with them as they stand",
        choices=(CONVENTIONS["imagenet"], seen),
    )


def _facts_of_ours(names: Sequence[str]) -> WeightFacts:
    """Of a network of this package, whose `Rescaling` is called as `rescaling_name` says."""
    name = names[0].removeprefix("rescaling").removeprefix("_") if len(names) == 1 else "several"
    if name in CONVENTIONS:
        return WeightFacts(preprocessing=CONVENTIONS[name])
    return WeightFacts(
        doubt=_OURS_LOST, usual=not name
    )  # with a number behind it, it is one that Keras named


def _facts_of_constants(scalings: Sequence[tuple[Any, Any] | None], known: Mapping[str, Any]) -> WeightFacts:
    """Of layers that scale one after the other; None for one whose constants are not there."""
    try:
        numbers = [tuple(np.asarray(part, np.float64).ravel() for part in given or ()) for given in scalings]
        scale, offset = composed([(factor, summand) for factor, summand in numbers])
        return WeightFacts(preprocessing=convention_with(scale, offset), **known)
    except (InvalidInputError, TypeError, ValueError):
        return WeightFacts(doubt="the constants in front of its stem cannot be used", **known)


def _constants(kind: str, config: Mapping[str, Any], statistics: Statistics) -> tuple[Any, Any] | None:
    """Scale and offset of a layer; None where the file does not keep them."""
    if kind == "Rescaling":
        return _plain(config.get("scale")), _plain(config.get("offset", 0.0))
    given = (_plain(config.get("mean")), _plain(config.get("variance")))
    if given[0] is None:  # adapted; files that keep no names have it under another one
        own = statistics.get(str(config.get("name")))
        given = own or (next(iter(statistics.values())) if len(statistics) == 1 else given)
    if given[0] is None or given[1] is None or config.get("invert"):
        return None
    return standardizing(*given)


def _plain(value: Any) -> Any:
    """A number or list out of the description; Keras 3 wraps NumPy's arrays."""
    if isinstance(value, dict) and value.get("class_name") == "__numpy__":
        inner = value.get("config")
        return inner.get("value") if isinstance(inner, dict) else None
    return value


Layer = tuple[str, Mapping[str, Any]]
"""A layer's class and its configuration."""


def _entries(config: Mapping[str, Any], depth: int) -> list[Any]:
    inner = config.get("config")
    layers = inner if isinstance(inner, list) else inner.get("layers") if isinstance(inner, dict) else None
    if not isinstance(layers, list) or depth > MAX_DEPTH:
        return []
    return [entry for entry in layers if isinstance(entry, dict) and isinstance(entry.get("config"), dict)]


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry["config"].get("name") or entry.get("name"))


def _all_layers(config: Mapping[str, Any], depth: int) -> dict[str, Mapping[str, Any]]:
    """Every layer's configuration by name, those of models inside included."""
    found: dict[str, Mapping[str, Any]] = {}
    for entry in _entries(config, depth):
        found[_name(entry)] = entry["config"]
        found.update(_all_layers(entry, depth + 1))
    return found


def _way_to(stem: str, config: Mapping[str, Any], depth: int) -> list[Layer] | None:
    """The layers that lead from the input to the stem, which is excluded; None where there is no single way."""
    entries = _entries(config, depth)
    for position, entry in enumerate(entries):
        inside = [] if _name(entry) == stem else _way_to(stem, entry, depth + 1)
        if inside is None:
            continue
        sequential = not any("inbound_nodes" in other for other in entries)
        before = entries[:position] if sequential else _ancestors(entry, entries)
        if before is None:
            return None
        return [layer for other in before for layer in _unpacked(other, depth + 1)] + inside
    return None


def _unpacked(entry: Mapping[str, Any], depth: int) -> list[Layer]:
    """A layer; for a model of augmentations, say, the layers that it consists of."""
    inner = _entries(entry, depth)
    if not inner:
        return [(str(entry.get("class_name")).rpartition(">")[2], entry["config"])]
    return [layer for other in inner for layer in _unpacked(other, depth + 1)]


def _ancestors(entry: Mapping[str, Any], entries: Sequence[Any]) -> list[Any] | None:
    """The chain of layers that an entry of a functional model reads from, first to last."""
    by_name = {_name(other): other for other in entries}
    chain: list[Any] = []
    while sources := _sources(entry.get("inbound_nodes")):
        if len(sources) > 1 or len(chain) > len(entries):
            return None
        source = by_name.get(sources.pop())
        if source is None:
            return None
        chain.append(source)
        entry = source
    return chain[::-1]


def _sources(nodes: Any) -> set[str]:
    """The layers that inbound nodes name, in the writing of Keras 3 or of tf_keras."""
    if isinstance(nodes, dict):
        history = nodes["config"].get("keras_history") if isinstance(nodes.get("config"), dict) else None
        return {str(history[0])} if history else set().union(*map(_sources, nodes.values()))
    if isinstance(nodes, list):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
            return {nodes[0]}
        return set().union(*map(_sources, nodes))
    return set()
