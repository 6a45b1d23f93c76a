"""The paper's scaling method: one coefficient scales depth, width and resolution together.

Source: EfficientNet (arXiv:1905.11946), section 3.3, equation 3: depth α^φ, width β^φ, resolution
γ^φ with α·β²·γ² ≈ 2, so that multiply-adds grow by about 2^φ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_effnet.baselines import EFFICIENTNET_B0, Baseline, build_variant
from keras_effnet.costs import Cost, cost_of_variant
from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.table import round_resolution
from keras_effnet.network.variants import Variant
from keras_effnet.scaling.budget import Fit, Limits, Measure, call_latency_ms, largest_within

if TYPE_CHECKING:
    import keras

ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
DIMENSIONS = ("compound", "depth", "width", "resolution")
MAX_COEFFICIENT = 10.0  # more than ten times as deep per step is a slip
PHI_RANGE = (-12.0, 12.0)  # from a four-thousandth to four thousand times the baseline
STEP, MEASURED_STEP = 0.01, 0.1  # of phi; a measurement takes seconds and repeats to some percent
DROPOUT_PER_PHI, MAX_DROPOUT = 0.05, 0.5  # the published family's, from 0.2 at B0 to 0.5 at B6


@dataclass(frozen=True)
class CompoundScaling:
    """A scaling rule for a baseline.

    Attributes:
        alpha: factor of the depth for each step of phi, from 1 to 10.
        beta: factor of the width for each step, from 1 to 10.
        gamma: factor of the resolution for each step, from 1 to 10.
        baseline: what is scaled; EfficientNet-B0, one of `keras_effnet.baselines` or your own table.

    The defaults are the paper's coefficients, found by its grid search for B0.
    """

    alpha: float = ALPHA
    beta: float = BETA
    gamma: float = GAMMA
    baseline: Baseline = EFFICIENTNET_B0

    def __post_init__(self) -> None:
        for label in ("alpha", "beta", "gamma"):
            value = getattr(self, label)
            if not (isinstance(value, int | float) and 1 <= value <= MAX_COEFFICIENT):
                raise InvalidInputError(
                    f"Expected {label} to be a number from 1 to {MAX_COEFFICIENT:g}. Received: {value!r}. "
                    "For smaller networks pass a negative phi to at()."
                )
        if self.growth <= 1:
            raise InvalidInputError(
                "Expected at least one of alpha, beta and gamma above 1. Received: all are 1."
            )

    @property
    def growth(self) -> float:
        """Factor by which multiply-adds should grow for each step of phi: α·β²·γ²."""
        return self.alpha * self.beta**2 * self.gamma**2

    def at(self, phi: float) -> Variant:
        """The member at `phi`, to be passed to `build` or `EfficientNet`.

        Args:
            phi: any real number from −12 to 12: 0 is the baseline, 1 costs about twice as much, −1
                about half.

        Returns:
            A `Variant` of the baseline: its width and depth are exact, its resolution is the nearest
            multiple of 8 (or what its table says), and its dropout grows by 0.05 per step, between 0 and 0.5, as
            the published family's does.

        Raises:
            InvalidInputError: phi is not such a number.
        """
        _check_phi(phi)
        return self.member(
            depth=self.alpha**phi,
            width=self.beta**phi,
            resolution=round_resolution(self.baseline.resolution * self.gamma**phi, self.baseline)
            if phi
            else None,
            phi=phi,
        )

    def member(
        self, *, depth: float, width: float, resolution: int | None = None, phi: float = 0.0, label: str = ""
    ) -> Variant:
        """A member with given factors, named and regularized as one at `phi`."""
        coefficients = (self.alpha, self.beta, self.gamma)
        suffix = (
            "" if coefficients == (ALPHA, BETA, GAMMA) else "_" + "_".join(f"{c:g}" for c in coefficients)
        )
        tag = label or f"phi{phi:.4g}{suffix}"
        dropout = min(MAX_DROPOUT, max(0.0, self.baseline.dropout + DROPOUT_PER_PHI * phi))
        return Variant(
            name=f"{self.baseline.name}-{tag}",
            title=f"{self.baseline.title}-{tag}",
            width=width,
            depth=depth,
            resolution=self.baseline.resolution if resolution is None else resolution,
            dropout=round(dropout, 3),
            baseline=self.baseline,
        )

    def build(self, phi: float | Variant, **options: Any) -> keras.Model:
        """The Keras model at `phi` (or of a member), for any baseline.

        Args:
            phi: the coefficient, or a member.
            options: as for `keras_effnet.baselines.build`: `classes`, `include_top`, ….
        """
        return build_variant(phi if isinstance(phi, Variant) else self.at(phi), **options)

    def cost(self, phi: float | Variant, *, classes: int = 1000, batch: int = 1) -> Cost:
        """What `build(phi)` would cost, in milliseconds and without Keras."""
        member = phi if isinstance(phi, Variant) else self.at(phi)
        return cost_of_variant(member, classes=classes, batch=batch)

    def predicted_growth(self, phi: float) -> float:
        """Multiply-adds at `phi` over those of the baseline, by the formula (α·β²·γ²)^φ."""
        _check_phi(phi)
        return float(self.growth**phi)

    def actual_growth(self, phi: float) -> float:
        """The same, counted: filters, repeats and resolution are rounded."""
        return self.cost(phi).macs / self.cost(0).macs

    def fit(
        self,
        *,
        max_macs: float | None = None,
        max_params: float | None = None,
        max_memory: float | None = None,
        max_latency_ms: float | None = None,
        dimension: str = "compound",
        step: float | None = None,
        classes: int = 1000,
        batch: int = 1,
        measure: Measure | None = None,
    ) -> Fit:
        """Find the largest phi whose built network meets every limit.

        Args:
            max_macs: multiply-adds for the batch.
            max_params: trained weights.
            max_memory: bytes of activations alive at once, for the batch, as `Cost.peak_activation_bytes`.
            max_latency_ms: time of one call of `measure`, in milliseconds.
            dimension: `"compound"`, or `"depth"`, `"width"`, `"resolution"` to scale one alone.
            step: resolution of phi; None for 0.01, or 0.1 when the latency is measured.
            classes: outputs of the classifier.
            batch: pictures per call, for multiply-adds and memory.
            measure: from a Keras model to milliseconds; None calls the model itself, one picture at a
                time. `keras_effnet.export.latency("tflite:float32")` measures an exported artefact.

        Returns:
            The `Fit`; the network one step further breaks a limit.

        Raises:
            InvalidInputError: no limit, one that is not positive, one that the smallest network breaks,
                or limits that even the largest meets.
        """
        limits = Limits(
            max_macs=max_macs, max_params=max_params, max_memory=max_memory, max_latency_ms=max_latency_ms
        )
        if dimension not in DIMENSIONS:
            raise unknown_name("dimension", dimension, DIMENSIONS)
        usual = STEP if max_latency_ms is None else MEASURED_STEP
        return largest_within(
            limits,
            lambda phi: single_dimension(self, dimension, phi),
            ends=PHI_RANGE,
            step=usual if step is None else step,
            dimension=dimension,
            classes=classes,
            batch=batch,
            measure=measure or call_latency_ms,
        )


def fit(scaling: CompoundScaling | None = None, **limits: Any) -> Fit:
    """`CompoundScaling.fit` of a rule; None for the paper's on B0."""
    return (scaling or CompoundScaling()).fit(**limits)


def single_dimension(scaling: CompoundScaling, dimension: str, phi: float) -> Variant:
    """The member whose one dimension alone takes all of the growth that compound scaling spreads.

    Multiply-adds grow with depth, width² and resolution², so each factor is the root that should
    cost (α·β²·γ²)^phi.
    """
    if dimension == "compound":
        return scaling.at(phi)
    growth = scaling.predicted_growth(phi)
    label = f"{dimension}-phi{phi:.4g}"
    if dimension == "depth":
        return scaling.member(depth=growth, width=1.0, phi=phi, label=label)
    if dimension == "width":
        return scaling.member(depth=1.0, width=math.sqrt(growth), phi=phi, label=label)
    side = (
        round_resolution(scaling.baseline.resolution * math.sqrt(growth), scaling.baseline) if phi else None
    )
    return scaling.member(depth=1.0, width=1.0, resolution=side, phi=phi, label=label)


def _check_phi(phi: float) -> None:
    low, high = PHI_RANGE
    if not (isinstance(phi, int | float) and low <= phi <= high):
        raise InvalidInputError(f"Expected phi to be a number from {low:g} to {high:g}. Received: {phi!r}.")
