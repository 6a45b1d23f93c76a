"""Published weights: the catalog, where files come from, one reader per format, strict loading."""

from __future__ import annotations

from keras_effnet.weights.loading import load_planned, load_weights
from keras_effnet.weights.sources import WeightPlan, plan_weights

__all__ = ["WeightPlan", "load_planned", "load_weights", "plan_weights"]
