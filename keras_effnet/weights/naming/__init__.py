"""How other projects name the arrays of an EfficientNet: one module per format that they write.

Some number the blocks through. Which stage each belongs to is then read off the filters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.network.table import block_name


def block_names(projections: Mapping[int, int], path: Path) -> list[str]:
    """Names of blocks that are numbered through from 0, by the filters that leave them: a stage ends where these change.

    Raises:
        WeightsError: no blocks, or numbers missing.
    """
    if not projections or sorted(projections) != list(range(len(projections))):
        raise WeightsError(
            f"Expected the blocks of an EfficientNet, numbered from 0, inside {str(path)!r}. "
            f"Received blocks {sorted(projections)[:5]}…. Check that the file is an EfficientNet."
        )
    names = [block_name(0, 0)]
    stage = position = 0
    for index in range(1, len(projections)):
        same = projections[index] == projections[index - 1]
        stage, position = (stage, position + 1) if same else (stage + 1, 0)
        names.append(block_name(stage, position))
    return names
