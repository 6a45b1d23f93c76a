"""The folder of a run: what it was told, which photographs it uses, and what it made.

run.json      the settings                  model.keras   the classifier
data.csv      file,label,split              labels.txt    class names, one per line
data.json     where these files lie, and    metrics.json  accuracy, precision, recall, confusion
              the order of the classes
skipped.csv   what was left out, and why
unlabelled.csv  the photographs without labels, if there are any
student_1.csv   those that the first student learned from, and as what
remarks.csv   what is used although something is wrong with it, if there is any
logs/         for TensorBoard               report.html   the same for people
work/         features and checkpoints,     export/       artefacts with their report
              gone when the run is done
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.listing import SEVERAL, SPLITS, Listing, rarest
from keras_effnet.system.files import (
    check_writable,
    reachable,
    remove,
    remove_empty,
    remove_leftovers,
    staged,
    write_text,
)
from keras_effnet.train.settings import DECIDED_LAST, Settings

MODEL, LABELS, SKIPPED, REMARKS = "model.keras", "labels.txt", "skipped.csv", "remarks.csv"
CERTAINTY = "certainty.json"  # in `work`: what `DECIDED_LAST` led to
UNLABELLED = "unlabelled.csv"
SETTINGS, RECIPE = (
    "run.json",
    "recipe.json",
)  # what `train` and `pretrain` were told; either shows a run's folder
_ADVICE = "Choose another --out, or pass --resume to go on with it."


def trained_model(folder: str | os.PathLike[str]) -> tuple[Path, Path] | None:
    """The `.keras` file that a run of `train` or `pretrain` has left in a folder, and its class names, one a line.

    None if `folder` holds no run.

    Raises:
        InvalidInputError: a run that has no model yet.
    """
    place = Path(folder)
    with reachable(place, "a folder that can be read"):
        if not any((place / name).is_file() for name in (SETTINGS, RECIPE)):
            return None
        if not (place / MODEL).is_file():
            raise InvalidInputError(
                f"Expected a finished run in {str(place)!r}. Received: one that has no {MODEL} yet. "
                "Let it finish: give its command again, with --resume."
            )
    return place / MODEL, place / LABELS


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run's folder and its settings."""

    path: Path
    settings: Settings

    @classmethod
    def create(cls, path: str | os.PathLike[str], settings: Settings) -> RunFolder:
        """Begin a run.

        Raises:
            InvalidInputError: there is something at `path` already, or it cannot be written to.
        """
        folder = cls(path=Path(path), settings=settings)
        cls.check_free(folder.path)
        write_text(folder.path / SETTINGS, json.dumps(settings.to_dict(), indent=1) + "\n", overwrite=False)
        return folder

    @classmethod
    def check_free(cls, path: Path) -> None:
        """Make sure that a run can begin in a folder.

        Raises:
            InvalidInputError: there is something at `path` already, or it cannot be written to.
        """
        # skipped.csv alone is what a try that could not begin has left
        if path.exists() and (not path.is_dir() or any(item.name != SKIPPED for item in path.iterdir())):
            what = "a run" if (path / SETTINGS).is_file() else "something else"
            raise InvalidInputError(
                f"Expected a folder that does not exist yet. Received: {str(path)!r}, which holds {what}. "
                + (_ADVICE if what == "a run" else "Choose another --out.")
            )
        check_writable(path / SETTINGS)

    @property
    def begun(self) -> bool:
        """Whether there is something that the next try would have to compute again."""
        return self.work.exists() or self.model.exists()

    def abandon(self) -> None:
        """Give the folder back after a try that could not begin: with other settings it can be used again.

        A list of photographs that could not be read stays, for people to look at.
        """
        for name in (SETTINGS, "data.csv", "data.json", REMARKS, UNLABELLED):
            remove(self.path / name)
        skipped = self.path / SKIPPED
        if skipped.is_file() and len(skipped.read_bytes().splitlines()) < 2:
            remove(skipped)
        remove_empty([self.path])

    @classmethod
    def resume(cls, path: str | os.PathLike[str], given: dict[str, Any] | None = None) -> RunFolder:
        """Go on with a run, with the settings of the run. What a process that was killed had half written is removed.

        Args:
            path: the folder.
            given: settings that the run must have, by name; None for any.

        Raises:
            InvalidInputError: no run there, or one with other settings than those given now.
        """
        path, given = Path(path), given or {}
        file = path / SETTINGS
        if not file.is_file():
            raise InvalidInputError(
                f"Expected a run to resume in {str(path)!r}. Received a folder without {SETTINGS}. "
                "Leave --resume out to begin one."
            )
        try:
            settings = Settings.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InvalidInputError(f"Expected the settings of a run in {str(file)!r}. {error}") from error
        stored = settings.to_dict()
        changed = {name: value for name, value in given.items() if stored[name] != value}
        still_open = () if (path / MODEL).is_file() else DECIDED_LAST
        other = sorted(set(changed) - set(still_open))
        if other:
            told = ", ".join(f"{name} {given[name]!r} instead of {stored[name]!r}" for name in other)
            raise InvalidInputError(
                f"Expected the settings of the run in {str(path)!r}. Received: {told}. "
                "Give what it was begun with, or begin another run with another --out."
            )
        remove_leftovers(path)
        folder = cls(path=path, settings=replace(settings, **changed))
        if changed:
            remove(folder.work / CERTAINTY)
            folder.write_json(SETTINGS, folder.settings.to_dict())
        return folder

    @property
    def work(self) -> Path:
        """Where features and checkpoints lie while the run lasts."""
        return self.path / "work"

    @property
    def model(self) -> Path:
        """The trained classifier."""
        return self.path / MODEL

    def clean(self) -> None:
        """Remove what only an unfinished run needs."""
        remove(self.work)

    def write_json(self, name: str, content: Any) -> None:
        """Write a file of the run whole or not at all."""
        write_text(self.path / name, json.dumps(content, indent=1, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:
        """What `write_json` wrote, or None."""
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def write_skipped(self, skipped: Sequence[tuple[str, str]]) -> Path:
        """Keep (file, reason) of what is left out; returns the place."""
        path = self.path / SKIPPED
        _write_csv(path, ("file", "reason"), skipped)
        return path

    def add_skipped(self, more: Sequence[tuple[str, str]]) -> Path:
        """Keep (file, reason) beside those that are kept already; returns the place."""
        return self.write_skipped(list(dict.fromkeys([*self.skipped(), *more])))

    def write_unlabelled(self, files: Sequence[str]) -> None:
        """Keep the photographs without labels for good."""
        _write_csv(self.path / UNLABELLED, ("file",), ([file] for file in files))

    def read_unlabelled(self) -> list[str] | None:
        """What `write_unlabelled` kept, or None."""
        path = self.path / UNLABELLED
        return [row[0] for row in _read_csv(path)] if path.is_file() else None

    def write_lessons(self, name: str, rows: Iterable[tuple[str, str, float, int]]) -> None:
        """Keep (file, class, probability, times) of photographs without labels that a student learned from."""
        _write_csv(self.path / f"{name}.csv", ("file", "label", "probability", "times"), rows)

    def write_remarks(self, faulty: Sequence[tuple[str, str]]) -> None:
        """Keep (file, remark) of photographs that are used although something is wrong with them."""
        if faulty:
            _write_csv(self.path / REMARKS, ("file", "remark"), faulty)

    def write_listing(self, listing: Listing) -> None:
        """Keep the photographs and their splits for good: whoever resumes or adds exports uses the same."""
        rows = (
            (file, listing.told(index), SPLITS[split])
            for index, (file, split) in enumerate(zip(listing.files, listing.splits, strict=True))
        )
        _write_csv(self.path / "data.csv", ("file", "label", "split"), rows)
        # last: where it lies, the two others are whole
        told: dict[str, Any] = {
            "root": str(listing.root),
            "classes": list(listing.classes),
            "packed": listing.packed,
            "several": listing.marks is not None,
        }
        self.write_json("data.json", told)

    def read_listing(self) -> tuple[Listing, list[tuple[str, str]]] | None:
        """What `write_listing` and `write_skipped` kept; None while they are not both whole.

        Raises:
            InvalidInputError: the files are damaged, or missing from a run that has a model already.
        """
        try:
            known = self.read_json("data.json")
            if known is not None:
                return self._stored(known), self.skipped()
        except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
            raise self._damaged(f"{type(error).__name__}: {error}") from error
        if self.model.is_file():
            raise self._damaged("no data.json")
        return None

    def _stored(self, known: dict[str, Any]) -> Listing:
        classes = tuple(known["classes"])
        several = known.get("several", False)
        number = {name: index for index, name in enumerate(classes)}
        files: list[str] = []
        labels: list[list[int]] = []
        splits: list[int] = []
        for row in _read_csv(self.path / "data.csv"):
            files.append(row[0])
            labels.append([number[name] for name in (row[1].split(SEVERAL) if several else [row[1]])])
            splits.append(SPLITS.index(row[2]))
        marks = np.zeros((len(files) if several else 0, len(classes)), bool)
        for place in range(len(marks)):
            marks[place, labels[place]] = True
        return Listing(
            root=Path(known["root"]),
            files=files,
            labels=rarest(marks) if several else np.array([first for first, *_ in labels], np.int32),
            splits=np.array(splits, np.int8),
            classes=classes,
            packed=known.get("packed", False),  # runs of earlier versions do not say
            marks=marks if several else None,
        )

    def skipped(self) -> list[tuple[str, str]]:
        """What `write_skipped` kept.

        Raises:
            OSError: it is not there.
        """
        return [(row[0], row[1]) for row in _read_csv(self.path / SKIPPED)]

    def _damaged(self, received: str) -> InvalidInputError:
        return InvalidInputError(
            f"Expected data.json, data.csv and skipped.csv in {str(self.path)!r} as the run wrote them. "
            f"Received: {received}. Put them back, or begin another run with another --out."
        )


def _write_csv(path: Path, header: tuple[str, ...], rows: Any) -> None:
    with (
        staged(path, overwrite=True) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def _read_csv(path: Path) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = csv.reader(stream)
        if next(rows, None) is None:
            raise ValueError(f"{path.name} is empty")
        yield from rows
