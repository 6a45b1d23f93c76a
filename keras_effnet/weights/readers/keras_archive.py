"""Keras 3 `.keras`: a zip with `model.weights.h5` and a config that is not looked at here.

Only arrays are read: the config, which can name arbitrary Python objects, is never deserialized.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_effnet.weights.arrays import Checkpoint
from keras_effnet.weights.readers import keras_v3_h5
from keras_effnet.weights.readers.problems import damaged, guarded
from keras_effnet.weights.readers.zipped import StoredMember, holds, open_zip

FORMAT = "Keras 3 .keras"
WEIGHTS_MEMBER = "model.weights.h5"


def matches(path: Path) -> bool:
    return holds(path, WEIGHTS_MEMBER)


@contextmanager
def read(path: Path, ema: bool = True) -> Iterator[Checkpoint]:
    """Read the arrays of a saved model.

    Raises:
        WeightsError: damaged, or its weights are compressed (Keras never does that).
    """
    with open_zip(path, FORMAT) as archive:
        with guarded(path, FORMAT):
            info = archive.getinfo(WEIGHTS_MEMBER)
            if info.compress_type != zipfile.ZIP_STORED:
                raise damaged(path, FORMAT, f"{WEIGHTS_MEMBER} is compressed, which Keras never does")
            member = StoredMember(path, info)
        with member, keras_v3_h5.read(path, ema, member) as checkpoint:
            yield checkpoint
