"""What one model or file did with labelled photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.evaluation.comparison import interval_of
from keras_effnet.evaluation.drawings import MISTAKES, worst_mistakes
from keras_effnet.evaluation.measures import Judged
from keras_effnet.evaluation.several import Marked
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import SEVERAL, Listing
from keras_effnet.system.files import shown

CONFUSED = 20  # pairs of classes that are listed, the most frequent ones
NOTHING = "nothing"  # what a photograph without a label is said to show


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model or file did: one class for each photograph (`Result`) or several (`SeveralResult`).

    Attributes:
        name: what reports call it.
        format, recipe: of the file.
        size: side of its pictures in pixels.
        labels: names of its classes, in the order of its outputs.
        framing: how photographs were read for it.
        places: which photographs of the listing it answered for, `[N]`.
        figures: of `measure`, or `measure_several`; with thresholds `accepted`, of `worth_of`.
        thresholds: how probable a class must be to be accepted: one for all or one for each; none accept all.
        seconds: how long it took, reading included.
    """

    name: str
    format: str
    recipe: str
    size: int
    labels: tuple[str, ...]
    framing: Framing = field(repr=False)
    places: npt.NDArray[np.int64] = field(repr=False)
    figures: dict[str, Any] = field(repr=False)
    thresholds: tuple[float, ...] = ()
    seconds: float

    def seen_classes(self) -> dict[str, dict[str, Any]]:
        """What `figures` say of the classes that photographs have."""
        return {name: row for name, row in self.figures["per_class"].items() if row["photographs"]}

    def _row(self, share: str, judged: Judged | Marked, *names: str) -> dict[str, Any]:
        """The figures as JSON takes them; `share` is what the share of photographs that are right is called."""
        low, high = interval_of(judged)
        return {
            "file": shown(self.name),
            "format": self.format,
            "recipe": self.recipe,
            "size": self.size,
            "images": len(judged),
            share: float(judged.right.mean()),
            f"{share}_low": low,
            f"{share}_high": high,
            **{name: self.figures[name] for name in names},
            "thresholds": list(self.thresholds),
            "accepted": self.figures["accepted"],
            "seconds": round(self.seconds, 3),
            "per_class": self.seen_classes(),
        }


@dataclass(frozen=True, kw_only=True)
class Result(Answers):
    """What one did that gives each photograph one class.

    Attributes:
        judged: what it said of them.
    """

    judged: Judged = field(repr=False)

    @property
    def top1(self) -> float:
        """The share of photographs whose best class is right, 0–1."""
        return self.judged.top(1)

    @property
    def top5(self) -> float:
        """The share of photographs whose class is among the best five, 0–1; 1 where there are no more."""
        return self.judged.top(5)

    @property
    def decisions(self) -> Judged:
        """The guesses that have a probability."""
        return self.judged

    def confused(self) -> list[dict[str, Any]]:
        """The pairs of classes that were confused most: `truth`, `guess`, `count`."""
        wrong = ~self.judged.right
        pairs, counts = np.unique(
            np.stack([self.judged.labels[wrong], self.judged.guesses[wrong]]), axis=1, return_counts=True
        )
        return [
            {
                "truth": self.labels[pairs[0, place]],
                "guess": self.labels[pairs[1, place]],
                "count": int(counts[place]),
            }
            for place in np.argsort(-counts, kind="stable")[:CONFUSED]
        ]

    def row(self) -> dict[str, Any]:
        """The figures as JSON takes them."""
        row = self._row("top1", self.judged, "mean_per_class", "loss", "calibration_error")
        return row | {"top5": self.top5, "confused": self.confused()}

    def mistakes(self) -> npt.NDArray[np.int64]:
        """The wrong guesses that it was surest of: their places in `places`, the worst first."""
        return worst_mistakes(self.judged)

    def worst(self, listing: Listing) -> list[dict[str, Any]]:
        """Of `mistakes` the `file`, `truth`, `guess` and `probability`."""
        judged = self.judged
        return [
            {
                "file": shown(listing.files[self.places[place]]),
                "truth": self.labels[judged.labels[place]],
                "guess": self.labels[judged.guesses[place]],
                "probability": float(judged.confidences[place]),
            }
            for place in self.mistakes()
        ]


@dataclass(frozen=True, kw_only=True)
class SeveralResult(Answers):
    """What one did that may give each photograph several labels.

    Attributes:
        judged: what it said of them.
    """

    judged: Marked = field(repr=False)

    @property
    def exact(self) -> float:
        """The share of photographs of which all labels are told and no others, 0–1."""
        return float(self.judged.right.mean())

    @property
    def mean_average_precision(self) -> float | None:
        """Over the classes with photographs, 0–1; None without any."""
        found: float | None = self.figures["mean_average_precision"]
        return found

    @property
    def decisions(self) -> Judged:
        """Each yes or no as a guess between two."""
        return self.judged.decisions()

    def row(self) -> dict[str, Any]:
        """The figures as JSON takes them."""
        names = ("mean_average_precision", "accuracy", "loss", "calibration_error")
        return self._row("exact", self.judged, *names)

    def mistakes(self) -> npt.NDArray[np.int64]:
        """The photographs with the wrong yes or no that it was surest of: their places in `places`, the worst first."""
        return self._worst_labels()[0]

    def worst(self, listing: Listing) -> list[dict[str, Any]]:
        """Of `mistakes` the `file`, what it shows (`truth`), the wrong `guess`, `cat` or `not cat`, and its `probability`."""
        judged = self.judged
        return [
            {
                "file": shown(listing.files[self.places[place]]),
                "truth": _told(self.labels, judged.labels[place]),
                "guess": f"{'' if judged.guesses[place, label] else 'not '}{self.labels[label]}",
                "probability": float(self._sureness()[place, label]),
            }
            for place, label in zip(*self._worst_labels(), strict=True)
        ]

    def _sureness(self) -> npt.NDArray[np.float32]:
        """The probability of each yes or no, `[N, classes]`."""
        said = self.judged
        return np.where(said.guesses, said.probabilities, 1 - said.probabilities)

    def _worst_labels(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of each photograph the wrong yes or no that it was surest of, at most `MISTAKES`: places and classes."""
        wrong = np.where(self.judged.guesses != self.judged.labels, self._sureness(), -1.0)
        places = np.flatnonzero(~self.judged.right)
        places = places[np.argsort(-wrong[places].max(axis=1), kind="stable")][:MISTAKES]
        return places, wrong[places].argmax(axis=1)


def _told(labels: Sequence[str], marks: npt.NDArray[np.bool_]) -> str:
    return SEVERAL.join(labels[label] for label in np.flatnonzero(marks).tolist()) or NOTHING
