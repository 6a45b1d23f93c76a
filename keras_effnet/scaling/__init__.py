"""Compound scaling: from a baseline and a budget to a network."""

from __future__ import annotations

from keras_effnet.scaling.compound import CompoundScaling, round_resolution

__all__ = ["CompoundScaling", "round_resolution"]
