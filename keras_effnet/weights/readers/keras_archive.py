"""Keras 3 `.keras`: a zip with `model.weights.h5` and a config that is not looked at here.

Only arrays are read: the config, which can name arbitrary Python objects, is never deserialized.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.weights.arrays import LayerArrays
from keras_effnet.weights.readers import keras_v3_h5

FORMAT = "Keras 3 .keras"
WEIGHTS_MEMBER = "model.weights.h5"


def matches(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return WEIGHTS_MEMBER in archive.namelist()
    except zipfile.BadZipFile:
        return False


@contextmanager
def read(path: Path) -> Iterator[LayerArrays]:
    """Read the arrays of a saved model.

    Raises:
        WeightsError: damaged, or its weights are compressed (Keras never does that).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(WEIGHTS_MEMBER).compress_type != zipfile.ZIP_STORED:
                raise WeightsError(
                    f"Expected {WEIGHTS_MEMBER} to be stored uncompressed inside {str(path)!r}, as Keras "
                    "writes it. Received a compressed member. Save the model again with model.save(...)."
                )
            with archive.open(WEIGHTS_MEMBER) as member, keras_v3_h5.read(path, member) as layers:
                yield layers
    except zipfile.BadZipFile as error:
        raise WeightsError(
            f"Expected a complete .keras file. Received: {str(path)!r}, which is damaged ({error}). Save it again."
        ) from error
