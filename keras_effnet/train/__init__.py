"""Training on a folder of photographs: what `keras-effnet train` does, for programs.

    folder = RunFolder.create(Path("run"), Settings(data="photographs"))
    outcome = train(folder)

The names are imported when they are first used: wrong settings are answered before Keras has started.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_effnet.train.folder import RunFolder
    from keras_effnet.train.results import Outcome
    from keras_effnet.train.run import train
    from keras_effnet.train.settings import Settings

__all__ = ["Outcome", "RunFolder", "Settings", "train"]

_HOMES = {"Outcome": "results", "RunFolder": "folder", "Settings": "settings", "train": "run"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
