"""What a benchmark found, and how it is printed."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

COLUMNS = ("what", "variant", "batch", "ours", "peer", "peer's", "ratio", "target", "met", "standing")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Ours against one peer, measured in alternation.

    Attributes:
        what: `onnx`, `tflite`, either with ` int8`, `fit`, `predict`, `import`, `export time` or `export memory`.
        variant: short name, empty where it does not matter.
        batch: pictures per run, 0 where it does not matter.
        peer: what ours is compared with.
        unit: of the values, `ms`, `s` or `MB`.
        ours: one value for each round.
        theirs: the same of the peer.
        target: largest value that is good enough; None where none was set.
        difference: the target is about ours - theirs, not about ours / theirs.
    """

    what: str
    variant: str
    batch: int
    peer: str
    unit: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    target: float | None = None
    difference: bool = False

    @property
    def result(self) -> float:
        """Ours in relation to the peer's, of the medians; lower is better."""
        return self._relate(statistics.median(self.ours), statistics.median(self.theirs))

    @property
    def paired(self) -> float:
        """The median of the rounds' own results; differs from `result` where the machine was busy."""
        return statistics.median(map(self._relate, self.ours, self.theirs))

    @property
    def interval(self) -> tuple[float, float]:
        """Of `paired`, 95 %, from the order of the rounds' results; without bounds where they are few."""
        results = list(map(self._relate, self.ours, self.theirs))
        found = stats.quantile_test(results, q=0, p=0.5).confidence_interval(0.95)
        return float(found.low), float(found.high)

    @property
    def standing(self) -> str:
        """`ahead`, `behind`, or `level` where the interval does not say."""
        low, high = self.interval
        even = 0.0 if self.difference else 1.0
        return "ahead" if high < even else "behind" if low > even else "level"

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.result <= self.target

    def cells(self) -> tuple[str, ...]:
        return (
            self.what,
            self.variant or "-",
            str(self.batch or "-"),
            f"{_number(statistics.median(self.ours))} {self.unit}",
            self.peer,
            f"{_number(statistics.median(self.theirs))} {self.unit}",
            self._verdict(self.result),
            "-" if self.target is None else f"<= {self._verdict(self.target)}",
            {True: "yes", False: "NO", None: "-"}[self.met],
            self.standing,
        )

    def as_json(self) -> dict[str, object]:
        return {
            **vars(self),
            "ours_median": statistics.median(self.ours),
            "theirs_median": statistics.median(self.theirs),
            "result": self.result,
            "paired": self.paired,
            "met": self.met,
            "interval": self.interval,
            "standing": self.standing,
        }

    def _relate(self, ours: float, theirs: float) -> float:
        return ours - theirs if self.difference else ours / theirs

    def _verdict(self, value: float) -> str:
        return f"{value:+.2f} {self.unit}" if self.difference else f"{value:.3f}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def render(rows: list[Row]) -> str:
    """The rows as text, in columns."""
    lines = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def standings(rows: Sequence[Row]) -> str:
    """What is ahead of all its peers, level with one, or behind one: a line each."""
    worst: dict[str, str] = {}
    order = ("ahead", "level", "behind")
    for row in rows:
        name = " ".join([row.what, row.variant, *([f"batch {row.batch}"] if row.batch else [])])
        worst[name] = max(worst.get(name, "ahead"), row.standing, key=order.index)
    by_standing: dict[str, list[str]] = defaultdict(list)
    for name, standing in worst.items():
        by_standing[standing].append(name)
    return "\n".join(f"{standing}: {'; '.join(by_standing[standing]) or 'nothing'}" for standing in order)
