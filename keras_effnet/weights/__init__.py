"""Published weights: the catalog, where files come from, one reader per format, strict loading."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError
from keras_effnet.lookup import identify
from keras_effnet.weights.assign import assign
from keras_effnet.weights.readers import open_checkpoint
from keras_effnet.weights.sources import WeightPlan, plan_weights

__all__ = ["WeightPlan", "load_weights", "plan_weights"]


def load_weights(model: Any, source: str | os.PathLike[str]) -> None:
    """Load weights into a model, exactly or not at all.

    Args:
        model: an EfficientNet of this package (Keras or tf_keras).
        source: the name of a published set (`"imagenet"`) or a file: Keras `.weights.h5`, `.keras`,
            legacy `.h5`, PyTorch `.pth`.

    Raises:
        WeightsError: the file cannot be read, or does not fit; the model is unchanged.
        InvalidInputError: a set name for a model that is no published variant, or an unknown set.
    """
    variant = identify(model)
    if variant is not None:
        source = plan_weights(source, variant).source or source
    elif isinstance(source, str) and not Path(source).exists():
        raise InvalidInputError(
            f"Expected a weight file for a model that is no published variant. Received: {source!r}. "
            "Pass the path of a file."
        )
    with open_checkpoint(source) as layers:
        assign(model, layers, os.fspath(source))
