"""The published variants, one line each.

Sources: `efficientnet_builder.efficientnet_params` and `efficientnet_lite_builder` of the reference
code. The published B1–B7 are hand-rounded and do not follow the paper's formula exactly, so this
table is data in its own right and not computed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Scaling of one member of the family.

    Attributes:
        name: short name, `b0` … `b8`, `l2`, `lite0` … `lite4`.
        title: the name as people write it, `EfficientNetB0`.
        width: multiplier of the filters.
        depth: multiplier of the repeats.
        resolution: side of the square input, in pixels.
        dropout: rate before the classifier, 0–1.
        lite: no squeeze-and-excite, ReLU6, unscaled stem and top.
        baseline: name of the table that it scales where that is not EfficientNet's own; such a
            member is built with `CompoundScaling.build`.
        preprocessing: the input convention of its usual weights.
        interpolation: how its pictures were resized for evaluation, see `load_image`.
    """

    name: str
    title: str
    width: float
    depth: float
    resolution: int
    dropout: float
    lite: bool = False
    baseline: str | None = None

    @property
    def preprocessing(self) -> str:
        return "lite" if self.lite else "imagenet"

    @property
    def interpolation(self) -> str:
        return "bilinear" if self.lite else "bicubic"


def _b(name: str, width: float, depth: float, resolution: int, dropout: float) -> Variant:
    return Variant(
        name=name,
        title=f"EfficientNet{name.upper()}",
        width=width,
        depth=depth,
        resolution=resolution,
        dropout=dropout,
    )


def _lite(name: str, width: float, depth: float, resolution: int, dropout: float) -> Variant:
    return Variant(
        name=name,
        title=f"EfficientNet{name.capitalize()}",
        width=width,
        depth=depth,
        resolution=resolution,
        dropout=dropout,
        lite=True,
    )


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        # name, width, depth, resolution, dropout
        _b("b0", 1.0, 1.0, 224, 0.2),
        _b("b1", 1.0, 1.1, 240, 0.2),
        _b("b2", 1.1, 1.2, 260, 0.3),
        _b("b3", 1.2, 1.4, 300, 0.3),
        _b("b4", 1.4, 1.8, 380, 0.4),
        _b("b5", 1.6, 2.2, 456, 0.4),
        _b("b6", 1.8, 2.6, 528, 0.5),
        _b("b7", 2.0, 3.1, 600, 0.5),
        _b("b8", 2.2, 3.6, 672, 0.5),
        _b("l2", 4.3, 5.3, 800, 0.5),
        _lite("lite0", 1.0, 1.0, 224, 0.2),
        _lite("lite1", 1.0, 1.1, 240, 0.2),
        _lite("lite2", 1.1, 1.2, 260, 0.3),
        _lite("lite3", 1.2, 1.4, 280, 0.3),
        _lite("lite4", 1.4, 1.8, 300, 0.3),
    )
}

B_SERIES: tuple[str, ...] = tuple(f"b{index}" for index in range(8))
