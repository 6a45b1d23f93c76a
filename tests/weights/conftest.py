"""What the tests of weights share: models that are built once, and pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """Two noise pictures, float32 0–255 `[2, 64, 64, 3]`."""
    return np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def built() -> Callable[..., Any]:
    """Builds a model for 64 px, or returns the one built before with the same arguments."""
    import keras_effnet

    models: dict[Any, Any] = {}

    def build(variant: str, **arguments: Any) -> Any:
        key = (variant, *sorted(arguments.items()))
        if key not in models:
            shape = arguments.pop("input_shape", (64, 64, 3))
            models[key] = keras_effnet.EfficientNet(variant, weights=None, input_shape=shape, **arguments)
        return models[key]

    return build
