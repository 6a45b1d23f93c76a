"""What one model or file did with labelled photographs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.evaluation.comparison import interval_of
from keras_effnet.evaluation.drawings import worst_mistakes
from keras_effnet.evaluation.measures import Judged
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import Listing
from keras_effnet.system.files import shown

CONFUSED = 20  # pairs of classes that are listed, the most frequent ones


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one model or file did.

    Attributes:
        name: what reports call it.
        format, recipe: of the file.
        size: side of its pictures in pixels.
        labels: names of its classes, in the order of its outputs.
        framing: how photographs were read for it.
        places: which photographs of the listing it answered for, `[N]`.
        judged: what it said of them.
        figures: of `measure`.
        seconds: how long it took, reading included.
    """

    name: str
    format: str
    recipe: str
    size: int
    labels: tuple[str, ...]
    framing: Framing = field(repr=False)
    places: npt.NDArray[np.int64] = field(repr=False)
    judged: Judged = field(repr=False)
    figures: dict[str, Any] = field(repr=False)
    seconds: float

    @property
    def top1(self) -> float:
        """The share of photographs whose best class is right, 0–1."""
        return self.judged.top(1)

    @property
    def top5(self) -> float:
        """The share of photographs whose class is among the best five, 0–1; 1 where there are no more."""
        return self.judged.top(5)

    def seen_classes(self) -> dict[str, dict[str, Any]]:
        """`precision`, `recall`, `f1` and `photographs` of the classes that photographs have."""
        return {name: row for name, row in self.figures["per_class"].items() if row["photographs"]}

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
        low, high = interval_of(self.judged)
        return {
            "file": shown(self.name),
            "format": self.format,
            "recipe": self.recipe,
            "size": self.size,
            "images": len(self.judged),
            "top1": self.top1,
            "top1_low": low,
            "top1_high": high,
            "top5": self.top5,
            **{name: self.figures[name] for name in ("mean_per_class", "loss", "calibration_error")},
            "seconds": round(self.seconds, 3),
            "per_class": self.seen_classes(),
            "confused": self.confused(),
        }


def worst(result: Result, listing: Listing) -> list[dict[str, Any]]:
    """The wrong guesses that one was surest of: `file`, `truth`, `guess`, `probability`, the worst first."""
    judged = result.judged
    return [
        {
            "file": shown(listing.files[result.places[place]]),
            "truth": result.labels[judged.labels[place]],
            "guess": result.labels[judged.guesses[place]],
            "probability": float(judged.confidences[place]),
        }
        for place in worst_mistakes(judged)
    ]
