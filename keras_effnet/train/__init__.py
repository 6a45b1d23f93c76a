"""Training on a folder of photographs: what `keras-effnet train` does, for programs.

folder = RunFolder.create(Path("run"), Settings(data="photographs"))
outcome = train(folder)
"""

from __future__ import annotations

from keras_effnet.train.folder import RunFolder
from keras_effnet.train.run import Outcome, train
from keras_effnet.train.settings import Settings

__all__ = ["Outcome", "RunFolder", "Settings", "train"]
