"""From what people type or hold to a row of the variant table."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.reader import flat_layers
from keras_effnet.network.table import B0_STAGES, MAX_BLOCKS, Architecture, Stage, count_blocks, scale
from keras_effnet.network.variants import VARIANTS, Variant


def get_variant(variant: str | Variant) -> Variant:
    """The variant called `variant`; accepts `b0`, `B0`, `EfficientNetB0`, `efficientnet-lite0` ….

    Raises:
        InvalidInputError: no such variant, the message holds the nearest names; or a member of
            another network, which EfficientNet's builder would turn into something else.
    """
    if isinstance(variant, Variant):
        if variant.baseline is not None:
            raise InvalidInputError(
                f"Expected a variant of EfficientNet. Received: {variant.name!r}, which scales the table "
                f"{variant.baseline!r}. Build it with the build() of the CompoundScaling that made it."
            )
        return variant
    key = re.sub(r"^(tf_)?efficientnet|[-_\s]", "", str(variant).strip().lower())
    if key not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)
    return VARIANTS[key]


def check_blocks(stages: Sequence[Stage], depth: float) -> None:
    """Refuse a depth that would be unrolled for minutes and could not be built.

    Raises:
        InvalidInputError: more than `MAX_BLOCKS` blocks.
    """
    blocks = count_blocks(stages, depth)
    if blocks > MAX_BLOCKS:
        raise InvalidInputError(
            f"Expected a network of at most {MAX_BLOCKS:,} blocks. Received: a depth of {depth:g}, which makes "
            f"{blocks:,}. Take a smaller depth or a smaller phi."
        )


@functools.cache
def architecture_of(variant: Variant, drop_connect_rate: float = 0.2) -> Architecture:
    """The scaled architecture of a variant.

    Raises:
        InvalidInputError: more blocks than anything can be done with.
    """
    check_blocks(B0_STAGES, variant.depth)
    return scale(
        width=variant.width,
        depth=variant.depth,
        lite=variant.lite,
        drop_connect_rate=drop_connect_rate,
    )


def identify(model: Any) -> Variant | None:
    """The published variant whose layers `model` has, or None.

    Reads the layers themselves, so it also knows a model that was saved and loaded again, and one that
    is called as a layer inside `model`.
    """
    projections = {
        layer.name.removesuffix("_project_conv"): int(layer.filters)
        for layer in flat_layers(model)
        if layer.name.endswith("_project_conv")
    }
    has_se = any(layer.name.endswith("_se_reduce") for layer in flat_layers(model))
    return variant_of_blocks(projections, has_se=has_se)


def variant_of_blocks(projections: Mapping[str, int], *, has_se: bool) -> Variant | None:
    """The published variant with these blocks, or None.

    Args:
        projections: block name → filters that leave it.
        has_se: whether the blocks have squeeze-and-excite.
    """
    for variant in VARIANTS.values():
        blocks = {block.name: block.filters_out for block in architecture_of(variant).blocks}
        if blocks == projections and has_se != variant.lite:
            return variant
    return None
