"""Compound scaling: from a baseline and a budget to a network.

scaling = keras_effnet.CompoundScaling()                  # the paper's 1.2, 1.1, 1.15 on B0
keras_effnet.EfficientNet(scaling.at(1.5), weights=None)  # between B2 and B3
scaling.fit(max_macs=800e6).member                        # the largest network within a budget
"""

from __future__ import annotations

from keras_effnet.network.table import round_resolution
from keras_effnet.scaling.architecture_search import search_architecture, search_objective
from keras_effnet.scaling.budget import Fit
from keras_effnet.scaling.compound import CompoundScaling, fit, single_dimension
from keras_effnet.scaling.grid import candidates
from keras_effnet.scaling.published import deviations, table2, table3, table7
from keras_effnet.scaling.search import SearchResult, search
from keras_effnet.scaling.training import SEARCH_BASELINE, TrainOnFolder

__all__ = [
    "SEARCH_BASELINE",
    "CompoundScaling",
    "Fit",
    "SearchResult",
    "TrainOnFolder",
    "candidates",
    "deviations",
    "fit",
    "round_resolution",
    "search",
    "search_architecture",
    "search_objective",
    "single_dimension",
    "table2",
    "table3",
    "table7",
]


def __dir__() -> list[str]:
    return __all__
