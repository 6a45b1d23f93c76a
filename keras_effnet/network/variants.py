"""The published variants, one line each; from what people type or hold to one of them.

Sources: `efficientnet_builder.efficientnet_params` and `efficientnet_lite_builder` of the reference
code. The published B1–B7 are hand-rounded and do not follow the paper's formula exactly, so this
table is data in its own right and not computed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keras_effnet.errors import unknown_name
from keras_effnet.network.conventions import CUSTOM
from keras_effnet.network.reader import flat_layers
from keras_effnet.network.table import (
    EFFICIENTNET_B0,
    EFFICIENTNET_LITE0,
    Architecture,
    Baseline,
    scaled,
)

STEM_LAYER = "stem_conv"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A baseline at one scale.

    Attributes:
        name: short name, `b0` … `b8`, `l2`, `lite0` … `lite4`.
        title: the name as people write it, `EfficientNetB0`.
        width: multiplier of the filters.
        depth: multiplier of the repeats.
        resolution: side of the square input, in pixels.
        dropout: rate before the classifier, 0–1.
        baseline: the table that it scales.
    """

    name: str
    title: str
    width: float
    depth: float
    resolution: int
    dropout: float
    baseline: Baseline = EFFICIENTNET_B0

    @property
    def preprocessing(self) -> str:
        """The name of the input convention of its usual weights; `"custom"` for constants without a name."""
        own = self.baseline.preprocessing
        return CUSTOM if own is None else own.name

    @property
    def lite(self) -> bool:
        """Whether it is of the Lite family."""
        return self.baseline == EFFICIENTNET_LITE0

    @property
    def interpolation(self) -> str:
        """How its pictures were resized for evaluation, see `load_image`."""
        return self.baseline.interpolation


def _row(name: str, width: float, depth: float, resolution: int, dropout: float, **family: Any) -> Variant:
    return Variant(
        name=name,
        title=f"EfficientNet{name.capitalize()}",
        width=width,
        depth=depth,
        resolution=resolution,
        dropout=dropout,
        **family,
    )


_lite = functools.partial(_row, baseline=EFFICIENTNET_LITE0)


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        # name, width, depth, resolution, dropout
        _row("b0", 1.0, 1.0, 224, 0.2),
        _row("b1", 1.0, 1.1, 240, 0.2),
        _row("b2", 1.1, 1.2, 260, 0.3),
        _row("b3", 1.2, 1.4, 300, 0.3),
        _row("b4", 1.4, 1.8, 380, 0.4),
        _row("b5", 1.6, 2.2, 456, 0.4),
        _row("b6", 1.8, 2.6, 528, 0.5),
        _row("b7", 2.0, 3.1, 600, 0.5),
        _row("b8", 2.2, 3.6, 672, 0.5),
        _row("l2", 4.3, 5.3, 800, 0.5),
        _lite("lite0", 1.0, 1.0, 224, 0.2),
        _lite("lite1", 1.0, 1.1, 240, 0.2),
        _lite("lite2", 1.1, 1.2, 260, 0.3),
        _lite("lite3", 1.2, 1.4, 280, 0.3),
        _lite("lite4", 1.4, 1.8, 300, 0.3),
    )
}

B_SERIES: tuple[str, ...] = tuple(f"b{index}" for index in range(8))


def get_variant(variant: str | Variant) -> Variant:
    """The variant called `variant`; accepts `b0`, `B0`, `EfficientNetB0`, `efficientnet-lite0` ….

    Raises:
        InvalidInputError: no such variant; the message holds the nearest names.
    """
    if isinstance(variant, Variant):
        return variant
    key = re.sub(r"^(tf_)?efficientnet|[-_\s]", "", str(variant).strip().lower())
    if key not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)
    return VARIANTS[key]


@functools.cache
def architecture_of(variant: Variant, drop_connect_rate: float | None = None) -> Architecture:
    """The scaled architecture of a variant; see `scaled` for the rate.

    Raises:
        InvalidInputError: more blocks than anything can be done with.
    """
    return scaled(
        variant.baseline, depth=variant.depth, width=variant.width, drop_connect_rate=drop_connect_rate
    )


def identify(model: Any) -> Variant | None:
    """The published variant whose layers `model` has, or None.

    Reads the layers themselves, so it also knows a model that was saved and loaded again, one that was
    built with a prefix, and one that is called as a layer inside `model`. One of feature maps (`endpoints`) has only
    the blocks up to its last map; where these are the first of several variants, it is none of them.
    """
    layers = list(flat_layers(model))
    prefix = prefix_of(layers)
    projections = {
        layer.name.removeprefix(prefix).removesuffix("_project_conv"): int(layer.filters)
        for layer in layers
        if layer.name.endswith("_project_conv")
    }
    has_se = any(layer.name.endswith("_se_reduce") for layer in layers)
    whole = variant_of_blocks(projections, has_se=has_se)
    if whole is not None or not projections or any(len(tensor.shape) != 4 for tensor in model.outputs):
        return whole
    begun = [variant for variant in VARIANTS.values() if _begins_with(variant, projections, has_se=has_se)]
    return begun[0] if len(begun) == 1 else None


def _begins_with(variant: Variant, projections: Mapping[str, int], *, has_se: bool) -> bool:
    """Whether a variant begins with these blocks, and the next one halves the map."""
    blocks = architecture_of(variant).blocks
    first, behind = blocks[: len(projections)], blocks[len(projections) :]
    return (
        bool(behind)
        and behind[0].stride == 2
        and {block.name: block.filters_out for block in first} == projections
        and has_se == any(block.se_filters for block in first)
    )


def prefix_of(layers: Iterable[Any]) -> str:
    """What the names of an EfficientNet's layers begin with: the `prefix` that it was built with.

    Empty where there is no stem among the layers, or stems with several prefixes.
    """
    stems = {layer.name for layer in layers if layer.name.endswith(STEM_LAYER)}
    return str(stems.pop().removesuffix(STEM_LAYER)) if len(stems) == 1 else ""


def variant_of_blocks(projections: Mapping[str, int], *, has_se: bool) -> Variant | None:
    """The published variant with these blocks, or None.

    Args:
        projections: block name → filters that leave it.
        has_se: whether the blocks have squeeze-and-excite.
    """
    for variant in VARIANTS.values():
        blocks = architecture_of(variant).blocks
        filters = {block.name: block.filters_out for block in blocks}
        if filters == projections and has_se == any(block.se_filters for block in blocks):
            return variant
    return None
