"""Compound scaling: from a baseline and a budget to a network.

scaling = keras_effnet.CompoundScaling()                  # the paper's 1.2, 1.1, 1.15 on B0
keras_effnet.EfficientNet(scaling.at(1.5), weights=None)  # between B2 and B3
scaling.fit(max_macs=800e6).member                        # the largest network within a budget
"""

from __future__ import annotations

from keras_effnet.scaling.budget import Fit, fit, single_dimension
from keras_effnet.scaling.compound import CompoundScaling, round_resolution

__all__ = ["CompoundScaling", "Fit", "fit", "round_resolution", "single_dimension"]
