"""Training on a folder of photographs: what `keras-effnet train` does, for programs.

    folder = RunFolder.create("run", Settings(data="photographs"))
    outcome = train(folder)

The names are imported when they are first used: wrong settings are answered before Keras has started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from keras_effnet.train.folder import RunFolder as RunFolder
    from keras_effnet.train.results import Outcome as Outcome
    from keras_effnet.train.run import train as train
    from keras_effnet.train.settings import Settings as Settings

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "folder": ["RunFolder"],
        "results": ["Outcome"],
        "run": ["train"],
        "settings": ["Settings"],
    },
)
