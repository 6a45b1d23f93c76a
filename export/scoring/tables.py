"""From answers to rows: for programs, and in files that other tools read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import require
from keras_effnet.pictures.thresholds import accepted
from keras_effnet.system.files import shown

GUESS = ("class_index", "label", "probability")
GROUP = 1024  # rows that a Parquet file keeps together, and are in memory at once

Writer = Callable[[Iterable["Row"], Path, "Shape"], None]
Row = dict[str, Any]  # "file", and "predictions", values by the name of what they are, or "error"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the rows hold.

    Attributes:
        values: what the values of all columns are called, `probabilities`; None where the best are listed.
        labels: names of the columns.
        thresholds: how probable a class must be to be accepted; where there are any, each row says which of the
            best are, and whether the picture shows `none_of_these`.
    """

    values: str | None
    labels: Sequence[str]
    thresholds: tuple[float, ...] = ()

    @property
    def decides(self) -> bool:
        """Whether guesses are accepted or not."""
        return self.values is None and bool(self.thresholds)

    @property
    def guess(self) -> tuple[str, ...]:
        """What is said of each guess."""
        return (*GUESS, "accepted") if self.decides else GUESS


def row_of(file: str, error: str | None, values: Any, classes: Any, shape: Shape) -> Row:
    """One photograph's row."""
    name = shown(file)
    if error is not None:
        return {"file": name, "error": shown(error)}
    if shape.values is not None:
        return {"file": name, shape.values: values.tolist()}
    guesses = [
        {"class_index": int(index), "label": shape.labels[index], "probability": float(value)}
        for index, value in zip(classes, values, strict=True)
    ]
    if not shape.decides:
        return {"file": name, "predictions": guesses}
    thresholds = np.broadcast_to(shape.thresholds, len(shape.labels))
    fits = accepted(values, tuple(thresholds[classes]))
    told = [guess | {"accepted": bool(fit)} for guess, fit in zip(guesses, fits, strict=True)]
    return {"file": name, "predictions": told, "none_of_these": not fits.any()}


def write_csv(rows: Iterable[Row], path: Path, shape: Shape) -> None:
    """A row for each guess, or a column for each class; errors in a column of their own."""
    with path.open("w", encoding="utf-8", newline="") as file:
        if shape.values is not None:
            writer = csv.writer(file)
            writer.writerow(["file", *shape.labels, "error"])
            for row in rows:
                values = row.get(shape.values, [""] * len(shape.labels))
                writer.writerow([row["file"], *values, row.get("error", "")])
            return
        guesses = csv.DictWriter(file, ("file", "rank", *shape.guess, "error"))
        guesses.writeheader()
        for row in rows:
            if "error" in row:
                guesses.writerow(row)
            for rank, guess in enumerate(row.get("predictions", ()), start=1):
                guesses.writerow({"file": row["file"], "rank": rank} | guess)


def write_jsonl(rows: Iterable[Row], path: Path, shape: Shape) -> None:
    """A line for each photograph."""
    del shape
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_parquet(rows: Iterable[Row], path: Path, shape: Shape) -> None:
    """A row for each photograph, with lists of what was found."""
    parquet = require("pyarrow.parquet", "score")
    with parquet.ParquetWriter(path, schema_of(shape), compression="zstd") as writer:
        for group in _groups(rows):
            writer.write_table(table_of(group, shape))


def schema_of(shape: Shape) -> Any:
    """The columns of a table, as Arrow describes them; the class names are in the metadata."""
    arrow = require("pyarrow", "score")
    text, number, whole = arrow.string(), arrow.list_(arrow.float32()), arrow.list_(arrow.int32())
    found = (
        [("class_index", whole), ("label", arrow.list_(text)), ("probability", number)]
        if shape.values is None
        else [(shape.values, number)]
    )
    if shape.decides:
        found += [("accepted", arrow.list_(arrow.bool_())), ("none_of_these", arrow.bool_())]
    names = {"labels": json.dumps(list(shape.labels), ensure_ascii=False)} if shape.labels else None
    return arrow.schema([("file", text), *found, ("error", text)], metadata=names)


def table_of(rows: Sequence[Row], shape: Shape) -> Any:
    """The rows as a `pyarrow.Table`."""
    arrow = require("pyarrow", "score")
    flat = [
        row | {name: [guess[name] for guess in row["predictions"]] for name in shape.guess}
        if "predictions" in row
        else row
        for row in rows
    ]
    return arrow.Table.from_pylist(flat, schema=schema_of(shape))


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group = []
    for row in rows:
        group.append(row)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group


WRITERS: dict[str, Writer] = {
    ".csv": write_csv,
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}
