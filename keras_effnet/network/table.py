"""Networks as data: rows of stages, how they scale, and the blocks they unroll into.

A network of your own needs a table, a `Baseline`, and nothing else. No framework is imported here.
Sources: EfficientNet (Tan & Le 2019, arXiv:1905.11946), Table 1 and section 3.3; where the paper and the
reference code (`models/official/efficientnet` of `tensorflow/tpu`) differ, the code decides. MobileNetV1 (1704.04861,
Table 1), MobileNetV2 (1801.04381, Table 2), ResNet-50 (1512.03385, Table 1): what they leave open, keras.applications decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from string import ascii_lowercase

from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.conventions import CONVENTIONS, Convention

FILTER_MULTIPLE = 8
RESOLUTION_MULTIPLE = 8  # sides that halve three times without a remainder
MIN_SIZE = 32  # the published networks halve their input five times
MAX_BLOCKS = 2000  # B7 has 55; counting this many takes a second, building them many minutes
BLOCKS = ("inverted", "separable", "bottleneck", "bottleneck_v1.5")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row of a table, before scaling.

    Attributes:
        repeats, stride: number of blocks, and stride of the first; the others have stride 1.
        kernel_size: side of the depthwise (bottleneck: of the inner) kernel, in pixels.
        expand_ratio: inverted: filters inside the block / filters coming in. Bottleneck: filters
            leaving the block / filters inside. Separable: 1.
        filters_in, filters_out: coming into the first block, and leaving every block.
        se_ratio: squeeze-and-excite filters / filters coming **into** the block; 0 for none. Only
            inverted blocks have squeeze-and-excite.
        block: `"inverted"` (expand, depthwise, squeeze-and-excite, project, skip; EfficientNet and
            MobileNetV2), `"separable"` (depthwise, pointwise; MobileNetV1) or `"bottleneck"` (1×1,
            k×k, 1×1, skip; ResNet), which `"bottleneck_v1.5"` strides in its k×k convolution.
    """

    repeats: int
    kernel_size: int
    stride: int
    expand_ratio: int = 1
    filters_in: int
    filters_out: int
    se_ratio: float = 0.0
    block: str = "inverted"

    def __post_init__(self) -> None:
        if self.block not in BLOCKS:
            raise unknown_name("block", self.block, BLOCKS)
        shape = self.kernel_size, self.stride, self.filters_in, self.filters_out
        if min(self.repeats, self.expand_ratio, *shape) < 1 or not 0 <= self.se_ratio <= 1:
            raise InvalidInputError(
                f"Expected whole numbers of at least 1 in a stage, and a se_ratio from 0 to 1. Received: {self}."
            )
        if self.block != "inverted" and self.se_ratio:
            raise InvalidInputError(
                f"Expected se_ratio=0 in a {self.block!r} stage. Received: {self.se_ratio}. "
                "Only inverted blocks have squeeze-and-excite."
            )


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block, fully resolved; the fields that are not named here are those of its `Stage`.

    Attributes:
        name: prefix of its layers, as in keras.applications (`block2a`).
        kind: the `block` of its stage.
        stride: its own.
        drop_rate: probability of dropping the residual branch in training (drop-connect), 0–1.
    """

    name: str
    kind: str
    kernel_size: int
    stride: int
    expand_ratio: int
    filters_in: int
    filters_out: int
    se_ratio: float
    drop_rate: float

    @property
    def expanded_filters(self) -> int:
        """Filters inside the block."""
        if self.kind.startswith("bottleneck"):
            return self.filters_out // self.expand_ratio
        return self.filters_in * self.expand_ratio

    @property
    def se_filters(self) -> int:
        """Filters of the squeeze-and-excite bottleneck; 0 when the block has none."""
        return max(1, int(self.filters_in * self.se_ratio)) if self.se_ratio else 0

    @property
    def has_skip(self) -> bool:
        """Whether the block's input is added to its output."""
        return self.stride == 1 and self.filters_in == self.filters_out


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A network to scale.

    Filters are multiples of 8 and the resolution one of `resolution_multiple`, to which scaled ones are rounded:
    at scale 1 the network is then the table itself, and it never shrinks where a factor grows.

    Attributes:
        name, title: short, and as people write it.
        stages: the rows; each takes what the one before leaves.
        stem_filters, stem_kernel: of the first convolution, which halves the picture.
        stem_pool: a 3×3 maximum that halves once more behind it.
        top_filters: filters of a last 1×1 convolution; 0 for none.
        scale_ends: False where stem, top and the repeats of the first and the last stage stay as they
            are at every scale.
        activation: `"swish"`, `"relu6"` or `"relu"`.
        resolution: side of the input at scale 1, in pixels; at least `smallest`.
        resolution_multiple: what sides are rounded to, in pixels.
        dropout, drop_connect_rate: before the classifier at scale 1, and at the last block, 0–1.
        preprocessing, padding, epsilon: see `builder.BuildOptions`.
        interpolation: how its pictures are resized, see `load_image`.
        use_bias: biases in the convolutions.
    """

    name: str
    title: str
    stages: tuple[Stage, ...]
    stem_filters: int
    stem_kernel: int = 3
    stem_pool: bool = False
    top_filters: int = 0
    scale_ends: bool = True
    activation: str = "relu6"
    resolution: int = 224
    resolution_multiple: int = RESOLUTION_MULTIPLE
    dropout: float = 0.0
    drop_connect_rate: float = 0.0
    preprocessing: Convention | None = CONVENTIONS["advprop"]
    interpolation: str = "bicubic"
    padding: str = "same"
    epsilon: float = 1e-3
    use_bias: bool = False

    def __post_init__(self) -> None:
        if not self.stages:
            raise InvalidInputError(f"Expected at least one stage. Received: none in {self.name!r}.")
        coming = self.stem_filters
        multiples: dict[str, float] = {"stem_filters": self.stem_filters, "top_filters": self.top_filters}
        for number, stage in enumerate(self.stages, start=1):
            if stage.filters_in != coming:
                raise InvalidInputError(
                    f"Expected stage {number} of {self.name!r} to take the {coming} filters that come in. "
                    f"Received: filters_in={stage.filters_in}. Correct the table."
                )
            coming = multiples[f"filters_out of stage {number}"] = stage.filters_out
            if stage.block.startswith("bottleneck"):
                multiples[f"filters_out / expand_ratio of stage {number}"] = coming / stage.expand_ratio
        for label, filters in multiples.items():
            if filters < 0 or filters % FILTER_MULTIPLE:
                raise InvalidInputError(
                    f"Expected the filters of {self.name!r} to be multiples of {FILTER_MULTIPLE}, to which scaled "
                    f"ones are rounded. Received: {label}={filters:g}. Take the nearest multiple."
                )
        if self.resolution < self.smallest or self.resolution % self.resolution_multiple:
            raise InvalidInputError(
                f"Expected the resolution of {self.name!r} to be a multiple of {self.resolution_multiple} pixels, at "
                f"least {self.smallest}. Received: {self.resolution}. Take the nearest multiple."
            )

    @property
    def smallest(self) -> int:
        """The least side of an input, in pixels: its halvings leave one."""
        return 2 * (1 + self.stem_pool) * math.prod(stage.stride for stage in self.stages)

    def __repr__(self) -> str:
        """Short: a scaling rule or a variant that shows its baseline is not to print the whole table."""
        return f"<Baseline {self.name!r}, {len(self.stages)} stages>"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A baseline, scaled and unrolled: everything that decides its layers except the classifier.

    Attributes:
        stem_filters, top_filters: of the first convolution and of the last (the feature width); 0 for none.
        blocks: the unrolled blocks, first to last.
    """

    baseline: Baseline
    stem_filters: int
    blocks: tuple[Block, ...]
    top_filters: int


def round_filters(filters: float, width: float) -> int:
    """Scale a filter count by `width` and round it, never below 90 % of the product (reference code, `round_filters`)."""
    scaled = filters * width
    rounded = max(FILTER_MULTIPLE, int(scaled + FILTER_MULTIPLE / 2) // FILTER_MULTIPLE * FILTER_MULTIPLE)
    return rounded + FILTER_MULTIPLE if rounded < 0.9 * scaled else rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Scale a number of blocks by `depth`, rounding up (reference code, `round_repeats`)."""
    return math.ceil(depth * repeats)


def round_resolution(side: float, baseline: Baseline | None = None) -> int:
    """The nearest side that a baseline may have; None for multiples of 8 pixels, at least 32."""
    multiple = baseline.resolution_multiple if baseline else RESOLUTION_MULTIPLE
    return max(baseline.smallest if baseline else MIN_SIZE, int(side / multiple + 0.5) * multiple)


def scaled(
    baseline: Baseline, *, depth: float = 1.0, width: float = 1.0, drop_connect_rate: float | None = None
) -> Architecture:
    """Scale a baseline in depth and width and unroll it.

    Args:
        depth: factor of every stage's repeats, > 0; rounded up.
        width: factor of all filters, > 0; rounded to multiples of 8.
        drop_connect_rate: drop rate of the (hypothetical) block after the last; grows linearly from 0
            over the scaled number of blocks. None for the baseline's own.

    Raises:
        InvalidInputError: a factor that is not above 0, or more blocks than can be built.
    """
    for label, factor in (("depth", depth), ("width", width)):
        if not 0 < factor < float("inf"):
            raise InvalidInputError(f"Expected {label} to be a factor above 0. Received: {factor!r}.")
    repeats = blocks_of_stages(baseline, depth)
    total = sum(repeats)
    if total > MAX_BLOCKS:
        raise InvalidInputError(
            f"Expected a network of at most {MAX_BLOCKS:,} blocks. Received: a depth of {depth:g}, which makes "
            f"{total:,}. Take a smaller depth or a smaller phi."
        )
    drop_rate = baseline.drop_connect_rate if drop_connect_rate is None else drop_connect_rate
    ends_width = width if baseline.scale_ends else 1.0
    stem_filters = filters = round_filters(baseline.stem_filters, ends_width)
    blocks: list[Block] = []
    for index, (stage, count) in enumerate(zip(baseline.stages, repeats, strict=True)):
        for position in range(count):
            block = Block(
                name=block_name(index, position),
                kind=stage.block,
                kernel_size=stage.kernel_size,
                stride=stage.stride if position == 0 else 1,
                expand_ratio=stage.expand_ratio,
                filters_in=filters,
                filters_out=_filters_out(stage, width),
                se_ratio=stage.se_ratio,
                drop_rate=drop_rate * len(blocks) / total,
            )
            blocks.append(block)
            filters = block.filters_out
    return Architecture(
        baseline=baseline,
        stem_filters=stem_filters,
        blocks=tuple(blocks),
        top_filters=round_filters(baseline.top_filters, ends_width) if baseline.top_filters else 0,
    )


def blocks_of_stages(baseline: Baseline, depth: float) -> list[int]:
    """How many blocks each stage unrolls into."""
    last = len(baseline.stages) - 1
    return [
        stage.repeats
        if index in (0, last) and not baseline.scale_ends
        else round_repeats(stage.repeats, depth)
        for index, stage in enumerate(baseline.stages)
    ]


def _filters_out(stage: Stage, width: float) -> int:
    if stage.block.startswith("bottleneck"):  # rounded inside, so that the ratio stays exact
        return round_filters(stage.filters_out // stage.expand_ratio, width) * stage.expand_ratio
    return round_filters(stage.filters_out, width)


def block_name(stage: int, position: int) -> str:
    """Name of the block at `position` of `stage`, both counted from 0: `block2a` is (1, 0)."""
    return f"block{stage + 1}{_letters(position)}"


def stage_of(block: str) -> str:
    """The stage in a name that `block_name` made: `block3` of `block3a`."""
    return block.rstrip(ascii_lowercase)


def _letters(position: int) -> str:
    """0 → a, 25 → z, 26 → aa: block letters that stay letters however deep a stage is."""
    before, digit = divmod(position, 26)
    return (_letters(before - 1) if before else "") + ascii_lowercase[digit]


# fmt: off
EFFICIENTNET_B0 = Baseline(
    name="b0",
    title="EfficientNet",
    stem_filters=32,
    stages=(
        Stage(repeats=1, kernel_size=3, stride=1, expand_ratio=1, filters_in=32,  filters_out=16,  se_ratio=0.25),
        Stage(repeats=2, kernel_size=3, stride=2, expand_ratio=6, filters_in=16,  filters_out=24,  se_ratio=0.25),
        Stage(repeats=2, kernel_size=5, stride=2, expand_ratio=6, filters_in=24,  filters_out=40,  se_ratio=0.25),
        Stage(repeats=3, kernel_size=3, stride=2, expand_ratio=6, filters_in=40,  filters_out=80,  se_ratio=0.25),
        Stage(repeats=3, kernel_size=5, stride=1, expand_ratio=6, filters_in=80,  filters_out=112, se_ratio=0.25),
        Stage(repeats=4, kernel_size=5, stride=2, expand_ratio=6, filters_in=112, filters_out=192, se_ratio=0.25),
        Stage(repeats=1, kernel_size=3, stride=1, expand_ratio=6, filters_in=192, filters_out=320, se_ratio=0.25),
    ),
    top_filters=1280,
    activation="swish",
    dropout=0.2,
    drop_connect_rate=0.2,
    preprocessing=CONVENTIONS["imagenet"],
)
# fmt: on

# no squeeze-and-excite, ReLU6, unscaled ends (reference code, `efficientnet_lite_builder`)
EFFICIENTNET_LITE0 = replace(
    EFFICIENTNET_B0,
    name="lite0",
    title="EfficientNetLite",
    stages=tuple(replace(stage, se_ratio=0.0) for stage in EFFICIENTNET_B0.stages),
    scale_ends=False,
    activation="relu6",
    preprocessing=CONVENTIONS["lite"],
    interpolation="bilinear",
)


def _rows(block: str, first: int, ratio: int, *rows: tuple[int, int, int]) -> tuple[Stage, ...]:
    """3×3 stages from (repeats, stride, filters); the first one takes `first` filters."""
    coming = (first, *(filters for _, _, filters in rows))
    row = partial(Stage, kernel_size=3, expand_ratio=ratio, block=block)
    return tuple(
        row(repeats=repeats, stride=stride, filters_in=filters_in, filters_out=filters_out)
        for filters_in, (repeats, stride, filters_out) in zip(coming, rows, strict=False)
    )


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

# what most code since 2017, and the paper by its 4.1 G, calls ResNet-50
RESNET50_V15 = replace(
    RESNET50,
    name="resnet50_v1.5",
    title="ResNet50v1.5",
    stages=_rows("bottleneck_v1.5", 64, 4, *_RESNET50_ROWS),
    preprocessing=CONVENTIONS["imagenet"],
    epsilon=1e-5,
    use_bias=False,
)

BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (EFFICIENTNET_B0, EFFICIENTNET_LITE0, MOBILENET_V1, MOBILENET_V2, RESNET50, RESNET50_V15)
}
