"""New weights for one layer: what fits the float network best, given integer inputs and 8-bit weights.

Two steps, both in closed form. **Least squares**: the layer's inputs already carry the rounding of
every layer before it, so the weights that reproduce the float layer's outputs from them are not the
float weights. **Rounding with compensation** (GPTQ, Frantar et al. 2022, arXiv:2210.17323; the
quadratic form of AdaRound's loss): weights are rounded one after the other, and those still to come
absorb the error, so the sum over the inputs stays right where single weights do not.

A layer is `groups` independent regressions of `[fan_in] → [outputs]`: a convolution is one group, a
depthwise convolution one group per channel.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from keras_effnet.system.resources import cores

from .ops import LARGEST
from .ranges import Array

RIDGES = (1e-3, 3e-2, 1.0)  # relative to the diagonal; the held-out half of the samples chooses
ITERATIONS = 6
TRIAL_ITERATIONS = 2
DAMPING = 1e-2  # of the rounding's quadratic form, relative to the mean diagonal (GPTQ's own default)
BIAS_LIMIT = 1 << 29  # a fourth of int32: the walk may still make a bias larger
# of one output: beyond, as behind a Flatten of large maps, there are more weights than photographs can tell apart, and
# the square of their number is too much to compute with; such a layer is only rounded, and its bias corrected
MOST_INPUTS = 5000
MANY = 1 << 30  # multiply-adds from which on all cores are worth it


@dataclass(frozen=True, kw_only=True)
class Regression:
    """What a layer should do.

    Attributes:
        inputs: what the integer network feeds it, `[groups, samples, fan_in]`.
        targets: what the float network's layer returns there, `[groups, samples, outputs]`.
        weights: the float layer's, `[groups, fan_in, outputs]`.
        bias: the float layer's, `[groups, 1, outputs]`.
        least: the smallest scale that each output's weights may have, `[groups, outputs]`.
        relevance: how much an error of each target matters, 0–1, like `targets`; None for 1. Without
            it, values far below a swish, which it sends to 0 anyway, would decide the fit.
        weight: how much each sample counts, `[samples]`, mean 1; None for all the same.
    """

    inputs: Array
    targets: Array
    weights: Array
    bias: Array
    least: Array | float = 0.0
    relevance: Array | None = None
    weight: Array | None = None

    def part(self, samples: slice) -> Regression:
        """The same layer on some of the samples."""
        relevance = None if self.relevance is None else self.relevance[:, samples]
        weight = None if self.weight is None else self.weight[samples]
        taken = {"inputs": self.inputs[:, samples], "targets": self.targets[:, samples]}
        return replace(self, **taken, relevance=relevance, weight=weight)

    @cached_property
    def centred(self) -> Array:
        """Inputs minus their means, times the roots of their weights, like `inputs`."""
        return centred(self.inputs, self.weight)

    @cached_property
    def gram(self) -> Array:
        """Products of the centred inputs with each other, float64 `[groups, fan_in, fan_in]`."""
        return gram_of(self.centred)

    def error(self, weights: Array, bias: Array) -> Array:
        """Targets minus outputs."""
        return self.targets - self.inputs @ weights - bias

    def weighted(self, error: Array) -> Array:
        """Errors times their relevance and their sample's weight."""
        relevant = error if self.relevance is None else error * self.relevance
        return relevant if self.weight is None else relevant * self.weight[:, np.newaxis]

    def loss(self, weights: Array, bias: Array) -> float:
        """Mean squared error, weighted by relevance."""
        error = self.error(weights, bias)
        return float(np.mean(self.weighted(error) * error, dtype=np.float64))


def best_bias(fit: Regression, weights: Array) -> Array:
    """The bias with which given weights come closest to the targets."""
    return _offset(fit, fit.error(weights, np.zeros(1, np.float32)))


def _offset(fit: Regression, error: Array) -> Array:
    """The summand that brings an error's weighted mean to 0."""
    total = fit.weighted(np.ones_like(error)).sum(axis=1, keepdims=True)
    mean = fit.weighted(error).sum(axis=1, keepdims=True) / np.maximum(total, 1e-12)
    # a channel that nowhere matters has nothing to be fitted to
    return np.where(total > 1e-6 * error.shape[1], mean, fit.bias).astype(np.float32)


def refit(fit: Regression) -> Array:
    """Weights that reproduce the targets from the inputs, drawn towards the given ones.

    The strength of the pull is the one that does best on the second half of the samples when fitted to
    the first; when none beats the given weights there, those are returned.
    """
    half = fit.inputs.shape[1] // 2
    train, test = fit.part(slice(None, half)), fit.part(slice(half, None))

    def score(ridge: float) -> float:
        weights = _minimise(train, ridge, TRIAL_ITERATIONS)
        return test.loss(weights, best_bias(train, weights))

    _ = train.gram  # which all of them need
    ridges = (*RIDGES, np.inf)
    threads = min(len(ridges), cores())  # NumPy itself is kept to one
    with ThreadPoolExecutor(threads) as pool:
        scores = list(pool.map(score, ridges))
    return _minimise(fit, ridges[scores.index(min(scores))], ITERATIONS)


def _minimise(fit: Regression, ridge: float, iterations: int) -> Array:
    """Weighted least squares with a pull of strength `ridge` towards the given weights.

    Every output has weights of its own, and so would have a matrix of its own. As no relevance exceeds
    1, the unweighted matrix bounds them all: each iteration solves with it and cannot overshoot.
    """
    if np.isinf(ridge):
        return fit.weights
    diagonal = np.einsum("gii->gi", fit.gram)
    pull = ridge * diagonal + 1e-7 * diagonal.mean(axis=1, keepdims=True) + 1e-12
    inverse = _inverse(_with_diagonal(fit.gram, pull)).astype(np.float32)
    weights, drawn = fit.weights, pull[:, :, np.newaxis].astype(np.float32)
    for _ in range(1 if fit.relevance is None else iterations):
        error = fit.error(weights, np.zeros(1, np.float32))
        error = fit.weighted(error - _offset(fit, error))
        if fit.weight is not None:  # of which the centred inputs have the other root
            error = error / np.sqrt(np.maximum(fit.weight, 1e-12))[:, np.newaxis]
        weights = weights + inverse @ (_crossed(fit.centred, error) - drawn * (weights - fit.weights))
    return weights


def least_scales(bias: Array, input_scale: float) -> Array:
    """The scales of weights with which a bias fits into the int32 it is stored in.

    Its unit is the product of the scales of inputs and weights. A trained network has channels whose
    weights have gone to 0 and that only say a constant; with a scale as small as these weights, that
    constant would be billions of units, and files would hold something else.

    Args:
        bias: `[groups, 1, outputs]`.
        input_scale: of the layer's input tensor.

    Returns:
        `[groups, outputs]`. A weight of 127 times this, and no smaller one can be needed, moves the
        output by less than a ten-thousandth of the bias.
    """
    return np.abs(bias[:, 0]) / (input_scale * BIAS_LIMIT)


def weight_scales(weights: Array, least: Array | float = 0.0) -> Array:
    """One scale per group and output: the largest weight becomes ±127; `[groups, outputs]`."""
    return np.maximum(np.maximum(np.abs(weights).max(axis=1), 1e-12) / LARGEST, least)


def round_nearest(weights: Array, least: Array | float = 0.0) -> Array:
    """Each weight to the nearest multiple of its output's scale, the largest one to ±127 times it."""
    scales = weight_scales(weights, least)[:, np.newaxis]
    levels = np.rint(weights / scales)
    largest = np.abs(weights).argmax(axis=1)[:, np.newaxis]
    np.put_along_axis(levels, largest, _signs(weights, largest) * LARGEST, axis=1)
    return (levels * scales).astype(np.float32)


def _signs(weights: Array, places: Array) -> Array:
    """1 or -1 for the weights at `places`, also where they are 0."""
    return np.where(np.take_along_axis(weights, places, axis=1) < 0, -1, 1)


def centred(inputs: Array, weight: Array | None = None) -> Array:
    """Inputs `[groups, samples, fan_in]` minus their means.

    With weights, `[samples]`, minus their weighted means and times the weights' roots.
    """
    if weight is None:
        return np.asarray(inputs - inputs.mean(axis=1, keepdims=True))
    shares = weight[:, np.newaxis]
    result = inputs - (inputs * shares).sum(axis=1, keepdims=True) / shares.sum()
    result *= np.sqrt(shares)
    return np.asarray(result)


def gram_of(centred: Array) -> Array:
    """Products of centred inputs with each other, float64 `[groups, fan_in, fan_in]`."""
    return _crossed(centred, centred).astype(np.float64)


def _crossed(left: Array, right: Array) -> Array:
    """Sums over samples, `[groups, samples, k]` and `[groups, samples, m]` to `[groups, k, m]`.

    Large ones on TensorFlow's threads, as NumPy is kept to one (see `one_blas_thread`).
    """
    if len(left) > 1 or left.size * right.shape[-1] < MANY:
        return np.swapaxes(left, 1, 2) @ right
    import tensorflow as tf

    return np.asarray(tf.linalg.matmul(left, right, transpose_a=True))


def round_compensated(weights: Array, gram: Array, least: Array | float = 0.0, *, block: int = 64) -> Array:
    """Round so that the layer's outputs change least.

    Args:
        weights: `[groups, fan_in, outputs]`.
        gram: `Regression.gram` of the layer's inputs.
        least: see `Regression`.
        block: inputs handled before the error is passed on to all later ones.

    Returns:
        Weights on the 8-bit grid of `weight_scales(weights, least)`. Each output's largest weight stays
        ±127, so that anyone who derives the scale from the weights derives the same one.
    """
    groups, fan_in, _ = weights.shape
    upper = _inverse_factor(gram)
    scales = weight_scales(weights, least)
    largest = np.abs(weights).argmax(axis=1)
    signs = _signs(weights, largest[:, np.newaxis])[:, 0]
    left = weights.astype(np.float32)
    rounded = np.zeros_like(left)
    for start in range(0, fan_in, block):
        stop = min(start + block, fan_in)
        errors = np.zeros((groups, stop - start, weights.shape[2]), np.float32)
        for index in range(start, stop):
            levels = np.clip(np.rint(left[:, index] / scales), -LARGEST, LARGEST)
            levels = np.where(largest == index, signs * LARGEST, levels)
            rounded[:, index] = levels * scales
            error = (left[:, index] - rounded[:, index]) / upper[:, index, index, np.newaxis]
            left[:, index:stop] -= upper[:, index, index:stop, np.newaxis] * error[:, np.newaxis]
            errors[:, index - start] = error
        left[:, stop:] -= np.swapaxes(upper[:, start:stop, stop:], 1, 2) @ errors
    return rounded.astype(np.float32)


def _inverse_factor(gram: Array) -> Array:
    """Upper triangular `U` with `UᵀU` the inverse of the inputs' covariance, damped; `[groups, k, k]`.

    The covariance is `R·Rᵀ` with `R` upper triangular, its Cholesky factor from the last input to the first, and
    `U` is the inverse of that: nothing has to be inverted but a triangle.
    """
    mean = np.einsum("gii->g", gram)[:, np.newaxis] / gram.shape[1]
    damped = _with_diagonal(gram, DAMPING * mean + 1e-12)
    upper = np.linalg.cholesky(damped[:, ::-1, ::-1])[:, ::-1, ::-1]
    if len(gram) > 1:
        return np.linalg.inv(upper).astype(np.float32)
    from scipy.linalg import lapack

    return np.ascontiguousarray(lapack.dtrtri(upper[0])[0][np.newaxis], np.float32)


def _inverse(matrices: Array) -> Array:
    """Of symmetric matrices `[groups, k, k]`; a single one, which may be large, as positive definite if it is."""
    if len(matrices) == 1:
        from scipy.linalg import lapack

        factor, failed = lapack.dpotrf(matrices[0], clean=False)
        if not failed:
            upper = np.triu(lapack.dpotri(factor, overwrite_c=True)[0])
            return (upper + np.triu(upper, 1).T)[np.newaxis]
    return np.linalg.inv(matrices)


def _with_diagonal(matrices: Array, more: Array) -> Array:
    """With `more`, `[groups, k]` or `[groups, 1]`, on the diagonals."""
    result = matrices.copy()
    places = np.arange(matrices.shape[1])
    result[:, places, places] += more
    return result
