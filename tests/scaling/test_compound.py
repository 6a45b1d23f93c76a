"""The scaling rule: the paper's formula, the members that come of it, and wrong coefficients."""

from __future__ import annotations

import pydoc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from material import outputs, without_values

import keras_effnet
from keras_effnet import CompoundScaling, EfficientNet
from keras_effnet.baselines import BASELINES, EFFICIENTNET_B0, MOBILENET_V2, RESNET50, Baseline
from keras_effnet.costs import cost
from keras_effnet.errors import InvalidInputError
from keras_effnet.scaling import single_dimension


def test_coefficients_are_the_papers_and_grow_by_about_two() -> None:
    scaling = CompoundScaling()
    assert (scaling.alpha, scaling.beta, scaling.gamma) == (1.2, 1.1, 1.15)
    assert scaling.growth == pytest.approx(1.92, abs=0.005)
    assert scaling.predicted_growth(7) == pytest.approx(1.92027**7, rel=1e-4)


def test_member_follows_the_formula_at_any_phi() -> None:
    member = CompoundScaling(1.3, 1.2, 1.1).at(-1.5)
    assert (member.depth, member.width) == pytest.approx((1.3**-1.5, 1.2**-1.5))
    assert member.resolution == 192 == round(224 * 1.1**-1.5 / 8) * 8
    assert member.name == "b0-phi-1.5_1.3_1.2_1.1"
    assert member.dropout == pytest.approx(0.125)


def test_phi_zero_is_the_baseline() -> None:
    member = CompoundScaling().at(0)
    assert (member.depth, member.width, member.resolution, member.dropout) == (1.0, 1.0, 224, 0.2)
    assert CompoundScaling().cost(0).params == 5_288_548


@pytest.mark.parametrize(("phi", "dropout"), [(-9, 0.0), (0, 0.2), (2, 0.3), (6, 0.5), (9, 0.5)])
def test_dropout_grows_like_the_published_familys(phi: float, dropout: float) -> None:
    assert CompoundScaling().at(phi).dropout == pytest.approx(dropout)


def test_growth_counted_stays_near_the_formula() -> None:
    scaling = CompoundScaling()
    for phi in (3, 4, 5, 6, 7):  # rounding repeats up costs more the fewer they are
        assert 1 <= scaling.actual_growth(phi) / scaling.predicted_growth(phi) <= 1.25
    growths = [scaling.actual_growth(phi / 4) for phi in range(-20, 28)]
    assert growths == sorted(growths)


def test_efficientnet_builds_a_custom_member() -> None:
    scaling = CompoundScaling()
    member = scaling.at(-6)
    model = EfficientNet(member, weights=None, classes=3)
    assert model.name == "efficientnet-phi-6"
    assert model.input_shape == (None, 96, 96, 3)
    assert cost(model).macs == scaling.cost(member, classes=3).macs
    assert cost(model).params == scaling.cost(-6, classes=3).params
    same = scaling.build(-6, classes=3)
    assert [layer.name for layer in model.layers[1:]] == [layer.name for layer in same.layers[1:]]
    same.set_weights(model.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3))
    np.testing.assert_array_equal(outputs(model, pixels), outputs(same, pixels))


def test_own_table_is_scaled_without_new_code(small: Baseline) -> None:
    scaling = CompoundScaling(1.2, 1.1, 1.15, baseline=small)
    model = scaling.build(2, classes=4)
    counted = cost(model)
    assert model.input_shape == (None, 88, 88, 3)
    assert (counted.macs, counted.params) == (
        scaling.cost(2, classes=4).macs,
        scaling.cost(2, classes=4).params,
    )
    # one, two and one repeats, times 1.44 and rounded up
    assert sum(layer.name.endswith("_dwconv") for layer in model.layers) == 2 + 3


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_roughly_doubles_per_step(name: str) -> None:
    scaling = CompoundScaling(1.2, 1.1, 1.15, baseline=BASELINES[name])
    assert scaling.actual_growth(4) ** (1 / 4) == pytest.approx(1.95, abs=0.12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.9,), r"Expected alpha to be a number from 1 to 10\. Received: 0\.9\. .*negative phi"),
        ((1.2, 1e200), r"Expected beta .* Received: 1e\+200"),
        ((1.2, float("nan")), r"Expected beta .* Received: nan"),
        ((1, 1, 1), r"at least one of alpha, beta and gamma above 1"),
    ],
)
def test_useless_coefficients_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        CompoundScaling(*arguments)


def test_useless_phi_is_refused() -> None:
    for phi in (float("inf"), float("nan"), "2", 50, 1e4, -12.01):
        with pytest.raises(InvalidInputError, match="Expected phi to be a number from -12 to 12"):
            CompoundScaling(baseline=RESNET50).at(phi)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="Expected phi to be a number"):
        CompoundScaling().predicted_growth(1e4)


@pytest.mark.parametrize("baseline", [EFFICIENTNET_B0, RESNET50], ids=lambda baseline: baseline.name)
def test_more_blocks_than_can_be_built_are_refused(baseline: Baseline) -> None:
    scaling = CompoundScaling(10.0, baseline=baseline)
    with pytest.raises(InvalidInputError, match=r"at most 2,000 blocks\. Received: a depth of 1e\+12"):
        scaling.cost(12)
    if baseline is EFFICIENTNET_B0:
        with pytest.raises(InvalidInputError, match=r"at most 2,000 blocks"):
            EfficientNet(scaling.at(12), weights=None)


def test_member_of_any_baseline_is_built_from_its_own_table(small: Baseline) -> None:
    scaling = CompoundScaling(baseline=MOBILENET_V2)
    member = scaling.at(-6)
    assert member.baseline is MOBILENET_V2
    model = EfficientNet(member, weights=None, classes=3)
    assert cost(model).macs == scaling.cost(-6, classes=3).macs
    assert not [layer.name for layer in model.layers if "_se_" in layer.name]
    # which rule made a member does not matter
    assert CompoundScaling(baseline=small).cost(member, classes=3) == scaling.cost(-6, classes=3)
    changed = replace(EFFICIENTNET_B0, activation="relu6")  # still called b0
    narrow = single_dimension(CompoundScaling(baseline=changed), "width", -6)
    built = EfficientNet(narrow, weights=None, classes=3)
    assert built.get_layer("top_activation").max_value == 6.0


def test_lite_is_scaled_with_its_ends_as_they_are() -> None:
    lite = CompoundScaling(baseline=BASELINES["lite0"])
    assert lite.cost(0).params == 4_652_008
    with without_values():
        assert lite.build(2, classes=3).get_layer("top_conv").filters == 1280


def test_scaling_is_reachable_from_the_top() -> None:
    assert keras_effnet.CompoundScaling is keras_effnet.scaling.CompoundScaling


def test_scaling_rules_and_members_are_shown_without_their_whole_table() -> None:
    shown = repr(CompoundScaling())
    assert shown.endswith("gamma=1.15, baseline=<Baseline 'b0', 7 stages>)")
    assert "Stage(" not in repr(CompoundScaling().at(1)) + pydoc.render_doc(CompoundScaling)
