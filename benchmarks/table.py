"""What a benchmark found, and how it is printed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

COLUMNS = ("what", "variant", "batch", "ours", "peer", "peer's", "ratio", "target", "met")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Ours against one peer, measured in alternation.

    Attributes:
        what: `onnx`, `tflite`, `fit`, `predict`, `import`, `export time` or `export memory`.
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
        )

    def as_json(self) -> dict[str, object]:
        return {
            **vars(self),
            "ours_median": statistics.median(self.ours),
            "theirs_median": statistics.median(self.theirs),
            "result": self.result,
            "paired": self.paired,
            "met": self.met,
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
