"""The published facts about the family, as literals."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keras_effnet.costs import cost_of_variant
from keras_effnet.network.table import EFFICIENTNET_B0, round_filters, round_repeats, scaled
from keras_effnet.network.variants import VARIANTS, architecture_of, get_variant

# trainable parameters, blocks, top filters
FACTS = {
    "b0": (5_288_548, 16, 1280),
    "b1": (7_794_184, 23, 1280),
    "b2": (9_109_994, 23, 1408),
    "b3": (12_233_232, 26, 1536),
    "b4": (19_341_616, 32, 1792),
    "b5": (30_389_784, 39, 2048),
    "b6": (43_040_704, 45, 2304),
    "b7": (66_347_960, 55, 2560),
    "lite0": (4_652_008, 16, 1280),
    "lite1": (5_416_680, 21, 1280),
    "lite2": (6_092_072, 21, 1280),
    "lite3": (8_197_096, 24, 1280),
    "lite4": (13_006_568, 30, 1280),
}
# width, depth, resolution, dropout
TABLE = {
    "b0": (1.0, 1.0, 224, 0.2),
    "b1": (1.0, 1.1, 240, 0.2),
    "b2": (1.1, 1.2, 260, 0.3),
    "b3": (1.2, 1.4, 300, 0.3),
    "b4": (1.4, 1.8, 380, 0.4),
    "b5": (1.6, 2.2, 456, 0.4),
    "b6": (1.8, 2.6, 528, 0.5),
    "b7": (2.0, 3.1, 600, 0.5),
    "b8": (2.2, 3.6, 672, 0.5),
    "l2": (4.3, 5.3, 800, 0.5),
    "lite0": (1.0, 1.0, 224, 0.2),
    "lite1": (1.0, 1.1, 240, 0.2),
    "lite2": (1.1, 1.2, 260, 0.3),
    "lite3": (1.2, 1.4, 280, 0.3),
    "lite4": (1.4, 1.8, 300, 0.3),
}


@pytest.mark.parametrize("name", FACTS)
def test_architecture_has_the_published_parameters_blocks_and_top_filters(name: str) -> None:
    architecture = architecture_of(VARIANTS[name])
    found = (cost_of_variant(name).params, len(architecture.blocks), architecture.top_filters)
    assert found == FACTS[name]


@pytest.mark.parametrize("name", TABLE)
def test_variant_has_the_published_row(name: str) -> None:
    variant = VARIANTS[name]
    assert (variant.width, variant.depth, variant.resolution, variant.dropout) == TABLE[name]


def test_variant_table_holds_nothing_else() -> None:
    assert list(VARIANTS) == list(TABLE)


def test_b0_stages_are_those_of_the_reference() -> None:
    rows = [
        (s.repeats, s.kernel_size, s.stride, s.expand_ratio, s.filters_in, s.filters_out, s.se_ratio)
        for s in EFFICIENTNET_B0.stages
    ]
    assert rows == [
        (1, 3, 1, 1, 32, 16, 0.25),
        (2, 3, 2, 6, 16, 24, 0.25),
        (2, 5, 2, 6, 24, 40, 0.25),
        (3, 3, 2, 6, 40, 80, 0.25),
        (3, 5, 1, 6, 80, 112, 0.25),
        (4, 5, 2, 6, 112, 192, 0.25),
        (1, 3, 1, 6, 192, 320, 0.25),
    ]


@pytest.mark.parametrize(
    ("filters", "width", "expected"),
    [
        (32, 1.1, 32),
        (320, 1.1, 352),
        (1280, 1.1, 1408),
        (24, 1.2, 32),
        (40, 1.4, 56),
        (16, 0.3, 8),
        (112, 4.3, 480),
    ],
)
def test_round_filters_keeps_to_multiples_of_eight_and_ninety_percent(
    filters: int, width: float, expected: int
) -> None:
    assert round_filters(filters, width) == expected


@pytest.mark.parametrize(
    ("repeats", "depth", "expected"), [(1, 1.1, 2), (4, 3.1, 13), (3, 1.0, 3), (2, 2.2, 5)]
)
def test_round_repeats_rounds_up(repeats: int, depth: float, expected: int) -> None:
    assert round_repeats(repeats, depth) == expected


def test_drop_rate_grows_linearly_over_the_scaled_blocks() -> None:
    rates = [block.drop_rate for block in architecture_of(VARIANTS["b1"]).blocks]
    assert rates == pytest.approx([0.2 * index / 23 for index in range(23)])


def test_se_filters_are_a_quarter_of_the_filters_coming_in() -> None:
    blocks = architecture_of(VARIANTS["b0"]).blocks
    assert [block.se_filters for block in blocks[:4]] == [8, 4, 6, 6]


def test_block_names_stay_letters_when_a_stage_is_deeper_than_the_alphabet() -> None:
    names = [block.name for block in scaled(EFFICIENTNET_B0, depth=8.0).blocks]
    assert "block6z" in names and "block6aa" in names and names[-1] == "block7h"
    deeper = [block.name for block in scaled(EFFICIENTNET_B0, depth=100.0).blocks]
    assert "block7cv" in deeper and len(deeper) == len(set(deeper)) == 1600


@pytest.mark.parametrize(
    ("given", "expected"),
    [("B3", "b3"), ("EfficientNetB3", "b3"), ("efficientnet-lite0", "lite0"), ("tf_efficientnet_b7", "b7")],
)
def test_get_variant_understands_the_usual_spellings(given: str, expected: str) -> None:
    assert get_variant(given).name == expected


@pytest.mark.parametrize("module", ["keras_effnet.network.table", "keras_effnet.network.variants"])
def test_tables_import_neither_tensorflow_nor_keras(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
