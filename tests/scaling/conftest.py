"""A baseline small enough to build and train in a moment."""

from __future__ import annotations

import pytest

from keras_effnet.baselines import Baseline, Stage


@pytest.fixture(scope="session")
def small() -> Baseline:
    """Three stages at 64 px: a user's own table."""
    return Baseline(
        name="small",
        title="Small",
        stem_filters=16,
        stages=(
            Stage(repeats=1, kernel_size=3, stride=1, filters_in=16, filters_out=16, block="separable"),
            Stage(
                repeats=2,
                kernel_size=5,
                stride=2,
                expand_ratio=4,
                filters_in=16,
                filters_out=24,
                se_ratio=0.25,
            ),
            Stage(
                repeats=1,
                kernel_size=3,
                stride=2,
                expand_ratio=2,
                filters_in=24,
                filters_out=64,
                block="bottleneck",
            ),
        ),
        top_filters=96,
        activation="swish",
        resolution=64,
        dropout=0.1,
    )
