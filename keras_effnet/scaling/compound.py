"""The paper's scaling method: one coefficient scales depth, width and resolution together.

Source: EfficientNet (arXiv:1905.11946), section 3.3, equation 3: depth α^φ, width β^φ, resolution
γ^φ with α·β²·γ² ≈ 2, so that multiply-adds grow by about 2^φ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from keras_effnet.baselines import EFFICIENTNET_B0, Baseline, build, cost_of
from keras_effnet.baselines.table import RESOLUTION_MULTIPLE
from keras_effnet.costs import Cost
from keras_effnet.errors import InvalidInputError
from keras_effnet.network.builder import MIN_SIZE
from keras_effnet.network.variants import Variant

if TYPE_CHECKING:
    import keras

    from keras_effnet.scaling.budget import Fit

ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
MAX_COEFFICIENT = 10.0  # more than ten times as deep per step is a slip
PHI_RANGE = (-12.0, 12.0)  # from a four-thousandth to four thousand times the baseline
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
        """The member at `phi`, to be passed to `EfficientNet` when B0 is the baseline.

        Args:
            phi: any real number from −12 to 12: 0 is the baseline, 1 costs about twice as much, −1
                about half.

        Returns:
            A `Variant`, which names its baseline where that is not EfficientNet's: its width and depth are exact, its resolution is the nearest multiple of 8
            (at least 32), and its dropout grows by 0.05 per step, between 0 and 0.5, as the
            published family's does.

        Raises:
            InvalidInputError: phi is not such a number.
        """
        _check_phi(phi)
        return self.member(
            depth=self.alpha**phi,
            width=self.beta**phi,
            resolution=round_resolution(self.baseline.resolution * self.gamma**phi) if phi else None,
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
            baseline=None if self._scales_efficientnet() else self.baseline.name,
        )

    def build(self, phi: float | Variant, **options: Any) -> keras.Model:
        """The Keras model at `phi` (or of a member), for any baseline.

        Args:
            phi: the coefficient, or a member of this scaling.
            options: as for `keras_effnet.baselines.build`: `classes`, `include_top`, ….
        """
        member = self._member(phi)
        return build(
            self.baseline,
            depth=member.depth,
            width=member.width,
            resolution=member.resolution,
            **{"dropout_rate": member.dropout, "name": member.title.lower(), **options},
        )

    def cost(self, phi: float | Variant, *, classes: int = 1000, batch: int = 1) -> Cost:
        """What `build(phi)` would cost, in milliseconds and without Keras."""
        member = self._member(phi)
        return cost_of(
            self.baseline,
            depth=member.depth,
            width=member.width,
            resolution=member.resolution,
            classes=classes,
            batch=batch,
        )

    def predicted_growth(self, phi: float) -> float:
        """Multiply-adds at `phi` over those of the baseline, by the formula (α·β²·γ²)^φ."""
        _check_phi(phi)
        return float(self.growth**phi)

    def actual_growth(self, phi: float) -> float:
        """The same, counted: filters, repeats and resolution are rounded."""
        return self.cost(phi).macs / self.cost(0).macs

    def fit(self, **limits: Any) -> Fit:
        """The largest member within a budget; see `keras_effnet.scaling.fit` for the limits."""
        from keras_effnet.scaling.budget import fit

        return fit(self, **limits)

    def _member(self, phi: float | Variant) -> Variant:
        if not isinstance(phi, Variant):
            return self.at(phi)
        own = None if self._scales_efficientnet() else self.baseline.name
        if phi.baseline not in (own, None):
            raise InvalidInputError(
                f"Expected a member of this scaling, of {self.baseline.name!r}. Received: {phi.name!r}, which scales "
                f"the table {phi.baseline!r}. Use the scaling that made it."
            )
        return phi

    def _scales_efficientnet(self) -> bool:
        """Whether `EfficientNet(member)` builds what `build` does: names, sides and dropout aside."""
        b0 = EFFICIENTNET_B0
        return b0 == replace(
            self.baseline, name=b0.name, title=b0.title, resolution=b0.resolution, dropout=b0.dropout
        )


def _check_phi(phi: float) -> None:
    low, high = PHI_RANGE
    if not (isinstance(phi, int | float) and low <= phi <= high):
        raise InvalidInputError(f"Expected phi to be a number from {low:g} to {high:g}. Received: {phi!r}.")


def round_resolution(side: float) -> int:
    """The nearest multiple of 8 pixels, at least 32."""
    return max(MIN_SIZE, int(side / RESOLUTION_MULTIPLE + 0.5) * RESOLUTION_MULTIPLE)
