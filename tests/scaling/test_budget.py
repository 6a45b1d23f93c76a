"""Budgets: what is returned meets every limit, the next step does not, and small members are usable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from material import without_values

from keras_effnet import CompoundScaling, EfficientNet, export
from keras_effnet.baselines import Baseline, build
from keras_effnet.costs import cost
from keras_effnet.errors import InvalidInputError
from keras_effnet.scaling import fit, single_dimension

LIMITS = {"max_macs": "macs", "max_params": "params", "max_memory": "peak_activation_bytes"}


def _check(found: Any, scaling: CompoundScaling, limits: dict[str, float], classes: int) -> None:
    """On Keras models that are built here, without values: the found one is within, the next is not."""
    nearby = single_dimension(scaling, found.dimension, found.next_phi)
    costs = []
    for member in (found.member, nearby):
        with without_values():
            built = build(
                scaling.baseline,
                depth=member.depth,
                width=member.width,
                resolution=member.resolution,
                classes=classes,
            )
        costs.append(cost(built))
    within, beyond = (
        [name for name, field in LIMITS.items() if name in limits and getattr(c, field) > limits[name]]
        for c in costs
    )
    assert within == []
    assert beyond and set(beyond) == set(found.exceeded)
    assert found.cost.macs == costs[0].macs


@settings(max_examples=12, deadline=None)
@given(
    macs=st.none() | st.floats(0.05, 30),
    params=st.none() | st.floats(0.3, 10),
    memory=st.none() | st.floats(0.2, 8),
    dimension=st.sampled_from(["compound", "compound", "width"]),
    coefficients=st.tuples(st.floats(1.05, 1.5), st.floats(1.05, 1.4), st.floats(1.05, 1.4)),
)
def test_fit_meets_every_limit_and_the_next_step_does_not(
    small: Baseline,
    macs: float | None,
    params: float | None,
    memory: float | None,
    dimension: str,
    coefficients: tuple[float, float, float],
) -> None:
    scaling = CompoundScaling(*coefficients, baseline=small)
    base = scaling.cost(0, classes=5)
    given_limits = {
        "max_macs": (macs, base.macs),
        "max_params": (params, base.params),
        "max_memory": (memory, base.peak_activation_bytes),
    }
    limits = {name: factor * unit for name, (factor, unit) in given_limits.items() if factor is not None}
    if not limits:
        limits = {"max_macs": 2.0 * base.macs}
    try:
        found = fit(scaling, **limits, dimension=dimension, classes=5, step=0.05)
    except InvalidInputError as error:
        edge = single_dimension(scaling, dimension, -12.0 if "smallest" in str(error) else 12.0)
        at_edge = scaling.cost(edge, classes=5)
        broken = [
            name
            for name, field in LIMITS.items()
            if name in limits and getattr(at_edge, field) > limits[name]
        ]
        assert bool(broken) == ("smallest" in str(error))
        return
    _check(found, scaling, limits, 5)


@settings(max_examples=8, deadline=None)
@given(factor=st.floats(0.1, 8), dimension=st.sampled_from(["compound", "depth", "width", "resolution"]))
def test_fit_search_agrees_with_trying_every_step(factor: float, dimension: str) -> None:
    from keras_effnet.scaling.budget import Span, last_within

    scaling = CompoundScaling()
    limit = factor * 385_814_752

    def within(index: int) -> bool:
        return scaling.cost(single_dimension(scaling, dimension, index / 4)).macs <= limit

    steps = [within(index) for index in range(-16, 13)]
    assert steps == sorted(steps, reverse=True)  # never within again: bisection is right
    last = -16 + sum(steps) - 1
    assert last_within(Span(-16, 12, 4), within) == (last, min(last + 1, 12))


def test_twice_b0_is_found() -> None:
    scaling = CompoundScaling()
    found = scaling.fit(max_macs=2 * scaling.cost(0).macs)
    _check(found, scaling, {"max_macs": 2 * 385_814_752}, 1000)
    assert 0.4 < found.phi < 1
    model = EfficientNet(found.member, weights=None)
    assert cost(model).macs == found.cost.macs <= 771_629_504


def test_latency_limit_measures_models_and_stops_at_the_limit(small: Baseline) -> None:
    calls: list[Any] = []

    def measure(model: Any) -> float:
        calls.append(model.name)
        return cost(model).macs / 1e6  # a machine of a gigahertz, without noise

    scaling = CompoundScaling(baseline=small)
    limit = 3.0 * scaling.cost(0).macs / 1e6
    found = scaling.fit(max_latency_ms=limit, max_params=1e9, measure=measure, step=0.25)
    assert found.latency_ms is not None and found.latency_ms <= limit
    assert scaling.cost(found.next_phi).macs / 1e6 > limit
    assert found.exceeded == ("max_latency_ms",)
    assert len(calls) == len(set(calls)) <= 10  # nothing is measured twice


def test_latency_of_an_exported_file_is_measured(small: Baseline) -> None:
    model = build(small, classes=3)
    milliseconds = export.latency("tflite:float32", rounds=5)(model)
    assert 0.01 < milliseconds < 1000
    with pytest.raises(InvalidInputError, match=r"needs no calibration\. Received: 'tflite:int8'"):
        export.latency("tflite:int8")


def test_smaller_members_train_one_step_and_export(small: Baseline, tmp_path: Path) -> None:
    import keras

    scaling = CompoundScaling(baseline=small)
    assert scaling.cost(-3.0).macs < scaling.cost(0).macs
    model = scaling.build(-3.0, classes=3)
    _train_and_export(model, keras, tmp_path / "small.tflite")


def test_smaller_efficientnet_trains_one_step_and_exports(tmp_path: Path) -> None:
    import keras

    model = EfficientNet(CompoundScaling().at(-8), weights=None, classes=3)
    assert cost(model).macs < 0.1 * 385_814_752
    _train_and_export(model, keras, tmp_path / "phi.tflite")


def _train_and_export(model: Any, keras: Any, path: Path) -> None:
    side = model.input_shape[1]
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (8, side, side, 3), dtype=np.uint8)
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)  # tracing would take longer
    before = model.get_layer("predictions").kernel.numpy().copy()
    history = model.fit(pixels, generator.integers(0, 3, 8), batch_size=8, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert not np.array_equal(before, model.get_layer("predictions").kernel.numpy())
    report = export.verify(model, export.to_tflite(model, path, labels=["a", "b", "c"]), pixels)
    assert report.ok


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "Expected at least one of max_macs"),
        ({"max_macs": -1}, r"Expected max_macs to be a number above 0\. Received: -1\.0"),
        (
            {"max_params": 10},
            r"smallest network, phi -12, meets\. Received: max_params=10; it needs params \d+",
        ),
        (
            {"max_params": 6e6, "dimension": "resolution"},
            r"largest network, phi 12, breaks.*Received: max_params=6e\+06",
        ),
        # at phi 12 depth alone would be tens of thousands of blocks; the search ends where they can be built
        (
            {"max_memory": 1e12, "dimension": "depth"},
            r"largest network, phi 7\.\d+, breaks.*Lower the limits, or limit what depth scaling changes",
        ),
        ({"max_macs": 1e9, "dimension": "height"}, "Expected dimension to be one of compound"),
        ({"max_macs": 1e9, "step": 0}, "Expected step to lie above 0"),
    ],
)
def test_impossible_budget_is_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        CompoundScaling().fit(**limits)
