"""The results file of a search: complete after every candidate, refused by another search."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError
from keras_effnet.scaling.identity import changes
from keras_effnet.system.files import staged


@dataclass(frozen=True, kw_only=True, order=True)
class Candidate:
    """One point of the grid.

    Attributes:
        alpha, beta, gamma: factors of depth, width and resolution.
    """

    alpha: float
    beta: float
    gamma: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """A candidate that was evaluated.

    Attributes:
        candidate: the coefficients.
        depth, width: factors that the candidate was evaluated with.
        resolution: side of its input, in pixels.
        network: key of the network that it builds; candidates with the same key were evaluated
            once and share score and seconds.
        macs: multiply-adds of that network, with the classes of the search.
        growth: these over the baseline's; α·β²·γ² before filters, repeats and pixels are rounded.
        score: what `evaluate` returned; higher is better.
        seconds: how long it took.
    """

    candidate: Candidate
    depth: float
    width: float
    resolution: int
    network: str
    macs: int
    growth: float
    score: float
    seconds: float


class ResultsFile:
    """Rows of one search in a JSON file.

    The file is replaced as a whole after every evaluation, so a killed search leaves a valid one.

    Args:
        path: of the file; created with the first row.
        settings: what makes scores comparable; a file with others is refused.

    Raises:
        InvalidInputError: the file is another search's, or not a results file.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._settings = json.loads(json.dumps(dict(settings)))
        self.rows: dict[Candidate, Row] = {}
        if self.path.exists():
            self._read()

    def add(self, rows: Iterable[Row]) -> None:
        """Keep rows, on the disk too, all at once."""
        self.rows |= {row.candidate: row for row in rows}
        self._write()

    def _read(self) -> None:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            settings = content["settings"]
            rows = [
                Row(**{**entry, "candidate": Candidate(**entry["candidate"])}) for entry in content["results"]
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"Expected a results file of a search. Received: {str(self.path)!r}, which cannot be read "
                f"({error}). Choose another name or remove it."
            ) from error
        if settings != self._settings:
            raise InvalidInputError(
                f"Expected {str(self.path)!r} to be of this search. Received: one with other "
                f"{changes(settings, self._settings)}. Its scores do not compare; choose another file."
            )
        self.rows = {row.candidate: row for row in rows}

    def _write(self) -> None:
        rows = [asdict(self.rows[candidate]) for candidate in sorted(self.rows)]
        text = json.dumps({"settings": self._settings, "results": rows}, indent=2) + "\n"
        with staged(self.path, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a second search from the same results file; the lock dies with the process.

    Raises:
        InvalidInputError: another process has it, or its folder cannot be written to.
    """
    try:
        import fcntl
    except ImportError:  # not on this system
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.with_name(f".{path.name}.lock").open("w", encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(
            f"Expected a results file in a folder that can be written to. Received: {str(path)!r} "
            f"({error.strerror}). Choose another folder."
        ) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InvalidInputError(
                f"Expected {str(path)!r} to be nobody else's. Received: a file that another search writes to. "
                "Wait for it, choose another file, or share a search with storage=."
            ) from error
        yield


def best_first(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows by falling score; the smaller coefficients first where scores are equal."""
    return tuple(sorted(rows, key=lambda row: (-row.score, row.candidate)))
