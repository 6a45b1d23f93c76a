"""Photographs by a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from keras_effnet.errors import InvalidInputError
from keras_effnet.system.files import system_said
from keras_effnet.train.rows import UNDECIDED, Row, split_called


def from_csv(path: Path) -> Iterator[Row]:
    """The photographs that a CSV file with the columns `file,label` and perhaps `split` lists.

    Raises:
        InvalidInputError: other columns, an incomplete line, a photograph listed twice, an unreadable file.
    """
    advice = "The first line must be file,label or file,label,split."
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            if not {"file", "label"} <= set(reader.fieldnames or ()):
                raise InvalidInputError(
                    f"Expected the columns file and label in {str(path)!r}. Received: "
                    f"{', '.join(reader.fieldnames or ()) or 'nothing'}. {advice}"
                )
            known: set[str] = set()
            for row in reader:
                found = _csv_row(row, path, reader.line_num)
                file = os.path.normpath(found[0])
                if file in known:
                    raise InvalidInputError(
                        f"Expected each photograph once in {str(path)!r}, with one label and one split. "
                        f"Received again in line {reader.line_num}: {found[0]!r}. Remove one of the lines."
                    )
                known.add(file)
                yield found
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(
            f"Expected a CSV file of text at {str(path)!r}. Received: {error}. {advice}"
        ) from error
    except OSError as error:
        raise InvalidInputError(
            f"Expected a CSV file that can be read. Received: {str(path)!r} ({system_said(error)})."
        ) from error


def _csv_row(row: dict[str, str | None], path: Path, number: int) -> Row:
    file, label, split = ((row.get(name) or "").strip() for name in ("file", "label", "split"))
    if not file or not label:
        raise InvalidInputError(
            f"Expected a file and a label in line {number} of {str(path)!r}. Received: {file!r}, {label!r}."
        )
    index = split_called(split) if split else UNDECIDED
    if index is None:
        raise InvalidInputError(
            f"Expected train, validation, test or nothing as the split in line {number} of {str(path)!r}. "
            f"Received: {split!r}."
        )
    return file, label, index
