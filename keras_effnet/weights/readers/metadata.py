"""The table that `keras_effnet.weights.convert` writes into a file beside the arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keras_effnet.weights.readers.problems import damaged

KEY = "keras_effnet"


def parse(text: str, path: Path, expected: str) -> dict[str, Any]:
    """The metadata of a file; an empty table where it has none.

    Raises:
        WeightsError: no table.
    """
    found = json.loads(text or "{}")
    if not isinstance(found, dict):
        raise damaged(path, expected, "its metadata is no table")
    return found
