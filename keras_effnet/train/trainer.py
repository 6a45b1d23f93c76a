"""What the methods of training may ask of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import Listing
from keras_effnet.system.progress import Progress
from keras_effnet.train.batches import Course
from keras_effnet.train.folder import RunFolder
from keras_effnet.train.head import FloatArray
from keras_effnet.train.settings import Settings


class Trainer(Protocol):
    """What trains a network; `train.run` has it."""

    folder: RunFolder
    progress: Progress
    settings: Settings
    size: int
    answers: str
    framing: Framing

    def use(self, settings: Settings) -> None:
        """Train with other settings from now on."""

    def network(self, course: Course, phase: str) -> Any:
        """A new network, trained."""

    def course(self, listing: Listing) -> Course:
        """What labelled photographs teach."""

    def class_weights(self, listing: Listing) -> FloatArray | None:
        """Of the labelled photographs."""

    def accuracies(self, model: Any, listing: Listing) -> dict[str, float]:
        """On validation and test photographs."""

    def batches(self, listing: Listing) -> Callable[[npt.NDArray[np.int64]], Any]:
        """From indices to batches of these photographs, as the network sees them in the end."""

    def callbacks(self, phase: str) -> list[Any]:
        """Of `fit`: what is shown and logged."""
