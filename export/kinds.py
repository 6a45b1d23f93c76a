"""The kinds of output: what a number of each means, and with it what can be asked of an artefact.

Some decide something, a best class or a yes and no, on which a file agrees with its model or not. Embeddings and
maps decide nothing: a file is nearer to them or farther.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.pictures.labels import both_sides
from keras_effnet.pictures.thresholds import accepted

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of output.

    Attributes:
        name: what people call it.
        words: what a value means.
        is_map: whether it has height and width.
        has_labels: whether each column is a class with a name.
        is_probability: whether each value is one, 0–1.
        threshold: above which a column says yes; None where the largest of a row decides, or nothing does.
        decides: whether a picture gets a class, or a yes or no, by it.
        accepts: of a sigmoid, how probable a class must be to be accepted, where a file says it: one for all or one
            for each; see `pictures.thresholds`. Else `threshold` decides.
    """

    name: str
    words: str
    is_map: bool = False
    has_labels: bool = False
    is_probability: bool = False
    threshold: float | None = None
    decides: bool = True
    accepts: tuple[float, ...] = ()

    def at(self, thresholds: Sequence[float]) -> Kind:
        """The same, deciding at these thresholds, where it is a sigmoid and there are any."""
        return self if self.threshold is None else replace(self, accepts=tuple(thresholds))

    @property
    def has_one_decision(self) -> bool:
        """Whether a picture gets one answer: its best class, or a yes or no."""
        return self.decides and self.name != "sigmoids"

    def has_best_class(self, columns: int) -> bool:
        """Whether the largest of so many columns decides."""
        return self.decides and self.threshold is None and columns > 1

    def decisions(self, values: Array) -> Array:
        """What each picture gets: its best class `[N]`, or yes and no `[N, columns]`.

        Args:
            values: `[N, columns]`. A single logit says yes above 0. A single sigmoid whose sides have thresholds says 1,
                0, or -1 for neither.
        """
        if self.accepts and self.has_one_decision:
            sides = accepted(both_sides(values, 2), self.accepts)
            return np.where(sides[:, 1:], 1, np.where(sides[:, :1], 0, -1))
        if self.accepts:
            return accepted(values, self.accepts)
        if not self.has_best_class(values.shape[1]):
            return np.asarray(values > (self.threshold or 0.0))
        return np.asarray(values.argmax(axis=1))

    def agreement(self, reference: Array, values: Array, near: Array | bool = False) -> float | None:
        """The share of decisions that are the same, 0–1; None where nothing is decided.

        Of several columns with a threshold, yes and no count alike: where hardly anything is a yes, a file
        that always says no would agree.

        Args:
            reference, values: `[N, columns]`.
            near: which other decisions pass as the same, in the shape of `decisions`.
        """
        if not self.decides:
            return None
        wanted, found = self.decisions(reference), self.decisions(values)
        same = (wanted == found) | near
        if wanted.ndim == 1 or wanted.shape[1] == 1:
            return float(np.mean(same))
        return float(
            np.mean([same[wanted == side].mean() for side in (True, False) if (wanted == side).any()])
        )

    def fits(self, shape: tuple[int | None, ...]) -> bool:
        """Whether an output of this shape, of one picture, can be of this kind."""
        if self.is_map or not self.decides:
            return (len(shape) > 1) == self.is_map
        return len(shape) == 1 and (self.name != "sigmoid" or shape[0] == 1)


CLASSES = Kind(name="classes", words="probability of each class", has_labels=True, is_probability=True)
SIGMOID = Kind(
    name="sigmoid",
    words="probability of the positive class",
    has_labels=True,
    is_probability=True,
    threshold=0.5,
)
SIGMOIDS = Kind(
    name="sigmoids",
    words="probability of each label, on its own",
    has_labels=True,
    is_probability=True,
    threshold=0.5,
)
LOGITS = Kind(name="logits", words="score of each class, before the softmax", has_labels=True)
EMBEDDING = Kind(name="embedding", words="features of the picture", decides=False)
MAP = Kind(name="map", words="features of each place of the picture", is_map=True, decides=False)
KINDS: dict[str, Kind] = {kind.name: kind for kind in (CLASSES, SIGMOID, SIGMOIDS, LOGITS, EMBEDDING, MAP)}
