"""EfficientNet as data: B0's seven stages, how they scale, and the blocks they unroll into.

Nothing here imports TensorFlow or Keras, so tables can be read and counted without a framework.

Sources: EfficientNet (Tan & Le 2019, arXiv:1905.11946), Table 1 and section 3.3; where the paper
and the reference code (`models/official/efficientnet` of `tensorflow/tpu`) differ, the code decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

STEM_FILTERS = 32
TOP_FILTERS = 1280
FILTER_MULTIPLE = 8
MAX_BLOCKS = 2000  # B7 has 55; counting this many takes a second, building them many minutes


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row of the paper's Table 1, before scaling.

    Attributes:
        repeats: number of blocks.
        kernel_size: side of the depthwise kernel, in pixels.
        stride: stride of the first block; the others have stride 1.
        expand_ratio: filters inside the block / filters coming in.
        filters_in: filters coming into the first block.
        filters_out: filters leaving every block.
        se_ratio: squeeze-and-excite filters / filters coming **into** the block; 0 for none.
    """

    repeats: int
    kernel_size: int
    stride: int
    expand_ratio: int
    filters_in: int
    filters_out: int
    se_ratio: float = 0.25


# fmt: off
B0_STAGES: tuple[Stage, ...] = (
    Stage(repeats=1, kernel_size=3, stride=1, expand_ratio=1, filters_in=32,  filters_out=16),
    Stage(repeats=2, kernel_size=3, stride=2, expand_ratio=6, filters_in=16,  filters_out=24),
    Stage(repeats=2, kernel_size=5, stride=2, expand_ratio=6, filters_in=24,  filters_out=40),
    Stage(repeats=3, kernel_size=3, stride=2, expand_ratio=6, filters_in=40,  filters_out=80),
    Stage(repeats=3, kernel_size=5, stride=1, expand_ratio=6, filters_in=80,  filters_out=112),
    Stage(repeats=4, kernel_size=5, stride=2, expand_ratio=6, filters_in=112, filters_out=192),
    Stage(repeats=1, kernel_size=3, stride=1, expand_ratio=6, filters_in=192, filters_out=320),
)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Block:
    """One mobile inverted bottleneck block, fully resolved.

    Attributes:
        name: prefix of its layers, as in keras.applications (`block2a`).
        drop_rate: probability of dropping the residual branch in training (drop-connect), 0–1.
        Other fields: see `Stage`; `stride` is the block's own.
    """

    name: str
    kernel_size: int
    stride: int
    expand_ratio: int
    filters_in: int
    filters_out: int
    se_ratio: float
    drop_rate: float

    @property
    def expanded_filters(self) -> int:
        """Filters between the expansion and the projection."""
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
class Architecture:
    """A scaled network: everything that decides its layers except the classifier.

    Attributes:
        stem_filters: filters of the stem convolution.
        blocks: the unrolled blocks, first to last.
        top_filters: filters of the last convolution (the feature width).
        activation: `"swish"`, or `"relu6"` in the Lite family.
    """

    stem_filters: int
    blocks: tuple[Block, ...]
    top_filters: int
    activation: str


def round_filters(filters: float, width: float, multiple: int = FILTER_MULTIPLE) -> int:
    """Scale a filter count by `width` and round it to a multiple of `multiple`.

    Never goes below 90 % of the product (reference code, `round_filters`).
    """
    scaled = filters * width
    rounded = max(multiple, int(scaled + multiple / 2) // multiple * multiple)
    if rounded < 0.9 * scaled:
        rounded += multiple
    return rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Scale a number of blocks by `depth`, rounding up (reference code, `round_repeats`)."""
    return math.ceil(depth * repeats)


def count_blocks(stages: Sequence[Stage], depth: float) -> int:
    """Blocks that the stages unroll into."""
    return sum(round_repeats(stage.repeats, depth) for stage in stages)


def scale(
    *,
    width: float,
    depth: float,
    lite: bool = False,
    stages: tuple[Stage, ...] = B0_STAGES,
    drop_connect_rate: float = 0.2,
) -> Architecture:
    """Scale a baseline in width and depth and unroll it.

    Args:
        width: multiplier of the filters, > 0.
        depth: multiplier of the repeats, > 0.
        lite: build the Lite family: no squeeze-and-excite, ReLU6, stem and top not scaled, first
            and last stage's repeats not scaled (reference code, `efficientnet_lite_builder`).
        stages: the baseline's stages.
        drop_connect_rate: drop rate of the (hypothetical) block after the last; grows linearly
            from 0 over the scaled number of blocks.

    Returns:
        The scaled `Architecture`.
    """
    if lite:
        stages = tuple(replace(stage, se_ratio=0.0) for stage in stages)
    last = len(stages) - 1
    repeats = [
        stage.repeats if lite and index in (0, last) else round_repeats(stage.repeats, depth)
        for index, stage in enumerate(stages)
    ]
    stem_filters = STEM_FILTERS if lite else round_filters(STEM_FILTERS, width)
    total = sum(repeats)
    blocks: list[Block] = []
    filters = stem_filters
    for index, (stage, count) in enumerate(zip(stages, repeats, strict=True)):
        filters_out = round_filters(stage.filters_out, width)
        for position in range(count):
            blocks.append(
                Block(
                    name=block_name(index, position),
                    kernel_size=stage.kernel_size,
                    stride=stage.stride if position == 0 else 1,
                    expand_ratio=stage.expand_ratio,
                    filters_in=filters,
                    filters_out=filters_out,
                    se_ratio=stage.se_ratio,
                    drop_rate=drop_connect_rate * len(blocks) / total,
                )
            )
            filters = filters_out
    return Architecture(
        stem_filters=stem_filters,
        blocks=tuple(blocks),
        top_filters=TOP_FILTERS if lite else round_filters(TOP_FILTERS, width),
        activation="relu6" if lite else "swish",
    )


def block_name(stage: int, position: int) -> str:
    """Name of the block at `position` of `stage`, both counted from 0: `block2a` is (1, 0)."""
    return f"block{stage + 1}{_letters(position)}"


def stage_of(block: str) -> str:
    """The stage in a name that `block_name` made: `block3` of `block3a`."""
    return block.rstrip("abcdefghijklmnopqrstuvwxyz")


def _letters(position: int) -> str:
    """0 → a, 25 → z, 26 → aa: block letters that stay letters however deep a stage is."""
    letters = ""
    position += 1
    while position:
        position, digit = divmod(position - 1, 26)
        letters = chr(ord("a") + digit) + letters
    return letters


def count_parameters(architecture: Architecture, classes: int = 1000) -> int:
    """Trainable parameters of the network with a classifier of `classes` outputs."""
    total = 3 * 9 * architecture.stem_filters + 2 * architecture.stem_filters
    for block in architecture.blocks:
        inner = block.expanded_filters
        if block.expand_ratio != 1:
            total += block.filters_in * inner + 2 * inner
        total += block.kernel_size**2 * inner + 2 * inner
        if block.se_filters:
            total += 2 * inner * block.se_filters + block.se_filters + inner
        total += inner * block.filters_out + 2 * block.filters_out
    last = architecture.blocks[-1].filters_out
    total += last * architecture.top_filters + 2 * architecture.top_filters
    return total + architecture.top_filters * classes + classes
