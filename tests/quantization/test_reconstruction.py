"""Ranges by error, least squares, rounding with compensation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keras_effnet.export.quantization import reconstruction
from keras_effnet.export.quantization.ranges import Range, best_range, covering, integer_sigmoid
from keras_effnet.export.quantization.reconstruction import Regression


@pytest.fixture
def layer() -> Any:
    """Inputs whose channels are strongly correlated, and weights."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(1, 2000, 24)) @ rng.normal(size=(24, 24)) + 1.0
    return inputs.astype(np.float32), rng.normal(size=(1, 24, 6)).astype(np.float32)


def test_range_holds_zero_exactly() -> None:
    chosen = Range(low=-0.37, high=2.9)
    assert chosen.round(np.zeros(1)) == 0
    assert -128 <= chosen.zero_point <= 127


def test_range_of_pixels_is_the_pixels() -> None:
    pixels = Range(low=0.0, high=255.0)
    assert (pixels.scale, pixels.zero_point) == (1.0, -128)
    assert np.array_equal(pixels.round(np.arange(256.0)), np.arange(256.0))


def test_best_range_gives_up_what_does_not_matter() -> None:
    values = np.random.default_rng(1).normal(0, 60, size=20_000).astype(np.float32)

    def error(candidate: Range) -> float:
        return float(np.mean((integer_sigmoid(candidate.round(values)) - integer_sigmoid(values)) ** 2))

    chosen = best_range(values, error)
    assert chosen.high - chosen.low < 0.5 * np.ptp(values)
    assert error(chosen) < 0.5 * error(covering(values))


def test_integer_sigmoid_stays_below_one() -> None:
    assert integer_sigmoid(np.array([30.0], np.float32))[0] == 255 / 256


def test_refit_recovers_what_the_inputs_lost(layer: Any) -> None:
    exact, weights = layer
    seen = exact * np.linspace(0.9, 1.1, 24, dtype=np.float32)
    fit = Regression(
        inputs=seen, targets=exact @ weights, weights=weights, bias=np.zeros((1, 1, 6), np.float32)
    )
    new = reconstruction.refit(fit)
    assert fit.loss(new, reconstruction.best_bias(fit, new)) < 0.01 * fit.loss(weights, fit.bias)


def test_refit_keeps_the_weights_when_nothing_better_generalises() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(1, 40, 64)).astype(np.float32)
    weights = rng.normal(size=(1, 64, 3)).astype(np.float32)
    noise = rng.normal(size=(1, 40, 3)).astype(np.float32)
    fit = Regression(
        inputs=inputs, targets=inputs @ weights + noise, weights=weights, bias=np.zeros((1, 1, 3), np.float32)
    )
    assert np.abs(reconstruction.refit(fit) - weights).max() < 0.5


def test_bias_follows_relevant_samples_only() -> None:
    targets = np.where(np.arange(100) < 50, 2.0, -500.0).astype(np.float32).reshape(1, 100, 1)
    fit = Regression(
        inputs=np.zeros((1, 100, 2), np.float32),
        targets=targets,
        weights=np.zeros((1, 2, 1), np.float32),
        bias=np.zeros((1, 1, 1), np.float32),
        relevance=(targets > 0).astype(np.float32),
    )
    assert reconstruction.best_bias(fit, fit.weights) == pytest.approx(2.0)


def _gram(inputs: Any) -> Any:
    return reconstruction.gram_of(reconstruction.centred(inputs))


def test_compensated_rounding_changes_outputs_less_than_nearest(layer: Any) -> None:
    inputs, weights = layer
    centred = inputs - inputs.mean(axis=1, keepdims=True)

    def error(rounded: Any) -> float:
        return float(np.mean((centred @ (rounded - weights)) ** 2))

    compensated = reconstruction.round_compensated(weights, _gram(inputs), block=8)
    assert error(compensated) < 0.6 * error(reconstruction.round_nearest(weights))


@pytest.mark.parametrize("rounding", ["nearest", "compensated"])
def test_rounding_keeps_scales_that_hold_the_bias(layer: Any, rounding: str) -> None:
    inputs, weights = layer
    weights = weights.copy()
    weights[..., 0] *= 1e-9
    weights[..., 1] = 0
    bias = np.full((len(weights), 1, weights.shape[2]), 5.0)
    least = reconstruction.least_scales(bias, 0.02)
    if rounding == "nearest":
        rounded = reconstruction.round_nearest(weights, least)
    else:
        rounded = reconstruction.round_compensated(weights, _gram(inputs), least)
    scales = reconstruction.weight_scales(rounded)
    assert (bias[:, 0] / (0.02 * scales) < 2**31).all()
    assert scales[:, 2:] == pytest.approx(reconstruction.weight_scales(weights)[:, 2:], rel=1e-5)


def test_rounded_weights_give_their_own_scales_back(layer: Any) -> None:
    inputs, weights = layer
    rounded = reconstruction.round_compensated(weights, _gram(inputs))
    scales = reconstruction.weight_scales(rounded)
    assert np.allclose(scales, reconstruction.weight_scales(weights), rtol=1e-5)
    levels = rounded / scales[:, np.newaxis]
    assert np.allclose(levels, np.rint(levels), atol=1e-3)


def test_fit_follows_the_samples_that_count(layer: Any) -> None:
    inputs, weights = layer
    first = np.arange(inputs.shape[1]) < 1000
    other = weights + np.random.default_rng(2).normal(size=weights.shape).astype(np.float32)
    targets = np.where(first[:, np.newaxis], inputs @ weights, inputs @ other)
    weight = np.where(first, 1.999, 0.001).astype(np.float32)
    bias = np.zeros((1, 1, 6), np.float32)
    fit = Regression(inputs=inputs, targets=targets, weights=other, bias=bias, weight=weight)
    order = np.random.default_rng(0).permutation(inputs.shape[1])
    new = reconstruction.refit(fit.part(order))
    missed = np.square(inputs @ (new - weights)).mean()
    assert missed < 0.01 * np.square(inputs @ (other - weights)).mean()


@pytest.mark.parametrize("groups", [1, 3])
def test_compensation_goes_by_the_triangular_factor_of_the_inverse(groups: int) -> None:
    inputs = np.random.default_rng(0).normal(size=(groups, 90, 20)).astype(np.float32)
    gram = _gram(inputs)
    upper = reconstruction._inverse_factor(gram).astype(np.float64)
    mean = np.einsum("gii->g", gram)[:, np.newaxis, np.newaxis] / 20
    damped = gram + reconstruction.DAMPING * mean * np.eye(20)
    assert np.allclose(upper, np.triu(upper))
    assert np.allclose(np.swapaxes(upper, 1, 2) @ upper @ damped, np.eye(20), atol=1e-4)


@pytest.mark.parametrize("least", [0.5, -0.5], ids=["positive", "indefinite"])
def test_inverse_is_that_of_symmetric_matrices(least: float) -> None:
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    matrix = (vectors * np.linspace(least, 3.0, 12)) @ vectors.T
    assert np.allclose(reconstruction._inverse(matrix[np.newaxis])[0] @ matrix, np.eye(12))
