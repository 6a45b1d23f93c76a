"""Networks as stage tables: the ones that the paper scaled, EfficientNet's own, and yours.

A `Baseline` is data. `scaled` multiplies its depth and width and unrolls it into blocks; the builder
turns these into Keras layers. A network of your own needs a table and nothing else.

Sources: MobileNetV1 (arXiv:1704.04861, Table 1), MobileNetV2 (arXiv:1801.04381, Table 2), ResNet-50
(arXiv:1512.03385, Table 1); where they leave something open, keras.applications decides.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network import table as architecture
from keras_effnet.network.builder import MIN_SIZE
from keras_effnet.network.conventions import CONVENTIONS, Convention
from keras_effnet.network.lookup import check_blocks
from keras_effnet.network.table import (
    B0_STAGES,
    FILTER_MULTIPLE,
    STEM_FILTERS,
    TOP_FILTERS,
    block_name,
    round_filters,
    round_repeats,
)

RESOLUTION_MULTIPLE = 8  # sides that halve three times without a remainder
BLOCKS = ("inverted", "separable", "bottleneck", "bottleneck_v1.5")


@dataclass(frozen=True, kw_only=True)
class Stage(architecture.Stage):
    """One row of a table, before scaling; the fields of `architecture.Stage`, and which block it is.

    Attributes:
        block: `"inverted"` (expand, depthwise, squeeze-and-excite, project, skip; EfficientNet and
            MobileNetV2), `"separable"` (depthwise, pointwise; MobileNetV1) or `"bottleneck"` (1×1,
            k×k, 1×1, skip; ResNet), which `"bottleneck_v1.5"` strides in its k×k convolution.
        expand_ratio: inverted: filters inside the block / filters coming in. Bottleneck: filters
            leaving the block / filters inside. Separable: 1.
        se_ratio: only inverted blocks have squeeze-and-excite.
    """

    expand_ratio: int = 1
    se_ratio: float = 0.0
    block: str = "inverted"

    def __post_init__(self) -> None:
        if self.block not in BLOCKS:
            raise unknown_name("block", self.block, BLOCKS)
        numbers = (
            self.repeats,
            self.kernel_size,
            self.stride,
            self.expand_ratio,
            self.filters_in,
            self.filters_out,
        )
        if min(numbers) < 1 or not 0 <= self.se_ratio <= 1:
            raise InvalidInputError(
                f"Expected whole numbers of at least 1 in a stage, and a se_ratio from 0 to 1. Received: {self}."
            )
        if self.block != "inverted" and self.se_ratio:
            raise InvalidInputError(
                f"Expected se_ratio=0 in a {self.block!r} stage. Received: {self.se_ratio}. "
                "Only inverted blocks have squeeze-and-excite."
            )


@dataclass(frozen=True, kw_only=True)
class Block(architecture.Block):
    """One block, fully resolved; `kind` is the stage's `block`."""

    kind: str

    @property
    def expanded_filters(self) -> int:
        """Filters inside the block."""
        if self.kind.startswith("bottleneck"):
            return self.filters_out // self.expand_ratio
        return super().expanded_filters


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A network to scale.

    Filters and the resolution are multiples of 8, to which scaled ones are rounded: at scale 1 the
    network is then the table itself, and it never shrinks where a factor grows.

    Attributes:
        name: short name.
        title: the name as people write it.
        stages: the rows; each takes what the one before leaves.
        stem_filters: filters of the first convolution, which halves the picture.
        stem_kernel: side of its kernel.
        stem_pool: a 3×3 maximum that halves once more behind it.
        top_filters: filters of a last 1×1 convolution; 0 for none.
        activation: `"swish"`, `"relu6"` or `"relu"`.
        resolution: side of the input at scale 1, in pixels.
        dropout: before the classifier at scale 1, 0–1.
        drop_connect_rate: rate that drop-connect reaches at the last block, 0–1.
        preprocessing: what happens to pixels 0–255 inside the graph; None for nothing.
        padding: `"same"` as TensorFlow pads, or `"symmetric"`.
        epsilon: of batch normalization.
        use_bias: biases in the convolutions.
    """

    name: str
    title: str
    stages: tuple[Stage, ...]
    stem_filters: int
    stem_kernel: int = 3
    stem_pool: bool = False
    top_filters: int = 0
    activation: str = "relu6"
    resolution: int = 224
    dropout: float = 0.0
    drop_connect_rate: float = 0.0
    preprocessing: Convention | None = CONVENTIONS["advprop"]
    padding: str = "same"
    epsilon: float = 1e-3
    use_bias: bool = False

    def __post_init__(self) -> None:
        if not self.stages:
            raise InvalidInputError(
                f"Expected a table of at least one stage. Received: none in {self.name!r}."
            )
        coming = self.stem_filters
        for number, stage in enumerate(self.stages, start=1):
            if stage.filters_in != coming:
                raise InvalidInputError(
                    f"Expected stage {number} of {self.name!r} to take the {coming} filters that come in. "
                    f"Received: filters_in={stage.filters_in}. Correct the table."
                )
            coming = stage.filters_out
        self._check_multiples()

    def _check_multiples(self) -> None:
        rows: dict[str, float] = {"stem_filters": self.stem_filters, "top_filters": self.top_filters}
        for number, stage in enumerate(self.stages, start=1):
            rows[f"filters_out of stage {number}"] = stage.filters_out
            if stage.block.startswith("bottleneck"):
                rows[f"filters_out / expand_ratio of stage {number}"] = stage.filters_out / stage.expand_ratio
        for label, filters in rows.items():
            if filters < 0 or filters % FILTER_MULTIPLE:
                raise InvalidInputError(
                    f"Expected the filters of {self.name!r} to be multiples of {FILTER_MULTIPLE}, to which scaled "
                    f"ones are rounded. Received: {label}={filters:g}. Take the nearest multiple."
                )
        if self.resolution < MIN_SIZE or self.resolution % RESOLUTION_MULTIPLE:
            raise InvalidInputError(
                f"Expected the resolution of {self.name!r} to be a multiple of {RESOLUTION_MULTIPLE} pixels, at "
                f"least {MIN_SIZE}. Received: {self.resolution}. Take the nearest multiple."
            )


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A baseline, scaled and unrolled.

    Attributes:
        baseline: what does not change with the scale.
        stem_filters: filters of the stem.
        blocks: first to last.
        top_filters: filters of the last convolution; 0 for none.
    """

    baseline: Baseline
    stem_filters: int
    blocks: tuple[Block, ...]
    top_filters: int


def scaled(baseline: Baseline, *, depth: float = 1.0, width: float = 1.0) -> Scaled:
    """Scale a baseline in depth and width, with EfficientNet's rounding, and unroll it.

    Args:
        baseline: the table.
        depth: factor of every stage's repeats, > 0; rounded up.
        width: factor of all filters, > 0; rounded to multiples of 8.

    Raises:
        InvalidInputError: a factor that is not above 0, or more blocks than can be built.
    """
    for label, factor in (("depth", depth), ("width", width)):
        if not 0 < factor < float("inf"):
            raise InvalidInputError(f"Expected {label} to be a factor above 0. Received: {factor!r}.")
    check_blocks(baseline.stages, depth)
    repeats = [round_repeats(stage.repeats, depth) for stage in baseline.stages]
    stem_filters = round_filters(baseline.stem_filters, width)
    blocks: list[Block] = []
    filters = stem_filters
    for index, (stage, count) in enumerate(zip(baseline.stages, repeats, strict=True)):
        filters_out = _filters_out(stage, width)
        for position in range(count):
            blocks.append(
                Block(
                    name=block_name(index, position),
                    kind=stage.block,
                    kernel_size=stage.kernel_size,
                    stride=stage.stride if position == 0 else 1,
                    expand_ratio=stage.expand_ratio,
                    filters_in=filters,
                    filters_out=filters_out,
                    se_ratio=stage.se_ratio,
                    drop_rate=baseline.drop_connect_rate * len(blocks) / sum(repeats),
                )
            )
            filters = filters_out
    top_filters = round_filters(baseline.top_filters, width) if baseline.top_filters else 0
    return Scaled(baseline=baseline, stem_filters=stem_filters, blocks=tuple(blocks), top_filters=top_filters)


def _filters_out(stage: Stage, width: float) -> int:
    if stage.block.startswith("bottleneck"):  # rounded inside, so that the ratio stays exact
        return round_filters(stage.filters_out // stage.expand_ratio, width) * stage.expand_ratio
    return round_filters(stage.filters_out, width)


def _rows(block: str, first: int, ratio: int, *rows: tuple[int, int, int]) -> tuple[Stage, ...]:
    """3×3 stages from (repeats, stride, filters); the first one takes `first` filters."""
    stages = []
    for repeats, stride, filters in rows:
        stages.append(
            Stage(
                repeats=repeats,
                kernel_size=3,
                stride=stride,
                expand_ratio=ratio,
                filters_in=first,
                filters_out=filters,
                block=block,
            )
        )
        first = filters
    return tuple(stages)


MOBILENET_V1 = Baseline(
    name="mobilenet_v1",
    title="MobileNetV1",
    stem_filters=32,
    stages=_rows("separable", 32, 1, (1, 1, 64), (2, 2, 128), (2, 2, 256), (6, 2, 512), (2, 2, 1024)),
    dropout=1e-3,
)

MOBILENET_V2 = Baseline(
    name="mobilenet_v2",
    title="MobileNetV2",
    stem_filters=32,
    stages=(
        *_rows("inverted", 32, 1, (1, 1, 16)),
        *_rows("inverted", 16, 6, (2, 2, 24), (3, 2, 32), (4, 2, 64), (3, 1, 96), (3, 2, 160), (1, 1, 320)),
    ),
    top_filters=1280,
)

# keras.applications feeds BGR; ours takes RGB like everything here, with the stem's kernel turned round
_CAFFE = Convention(
    scale=(1.0, 1.0, 1.0), offset=(-123.68, -116.779, -103.939), formula="x - [123.68 116.779 103.939]"
)

_RESNET50_ROWS = ((3, 1, 256), (4, 2, 512), (6, 2, 1024), (3, 2, 2048))

RESNET50 = Baseline(
    name="resnet50",
    title="ResNet50",
    stem_filters=64,
    stem_kernel=7,
    stem_pool=True,
    stages=_rows("bottleneck", 64, 4, *_RESNET50_ROWS),
    activation="relu",
    preprocessing=_CAFFE,
    padding="symmetric",
    epsilon=1.001e-5,
    use_bias=True,
)

# what most code since 2017, and the EfficientNet paper by its 4.1 G, calls ResNet-50
RESNET50_V15 = replace(
    RESNET50,
    name="resnet50_v1.5",
    title="ResNet50v1.5",
    stages=_rows("bottleneck_v1.5", 64, 4, *_RESNET50_ROWS),
    preprocessing=CONVENTIONS["imagenet"],
    epsilon=1e-5,
    use_bias=False,
)

EFFICIENTNET_B0 = Baseline(
    name="b0",
    title="EfficientNet",
    stem_filters=STEM_FILTERS,
    stages=tuple(
        Stage(**{field.name: getattr(row, field.name) for field in fields(row)}, block="inverted")
        for row in B0_STAGES
    ),
    top_filters=TOP_FILTERS,
    activation="swish",
    dropout=0.2,
    drop_connect_rate=0.2,
    preprocessing=CONVENTIONS["imagenet"],
)

BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (EFFICIENTNET_B0, MOBILENET_V1, MOBILENET_V2, RESNET50, RESNET50_V15)
}
