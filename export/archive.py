"""Writing Keras' export archive to a disk that may be full."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

# TensorFlow names its own temporary file first: "{{node SaveV2}} FILE; No space left on device [Op:SaveV2]"
_SAID = re.compile(r"; (?P<said>[^;\[\n]+)")


def write_out(archive: Any, path: Path) -> None:
    """Write a SavedModel; what TensorFlow raises about the disk is an OSError, which `staged` understands.

    Args:
        archive: a `keras.export.ExportArchive` with its endpoints.
        path: directory to create.

    Raises:
        OSError: the disk is full or failed; its text is what the system said.
    """
    import tensorflow as tf

    try:
        archive.write_out(str(path), verbose=False)
    except tf.errors.OpError as error:
        text = str(error.message)
        said = _SAID.search(text)
        raise OSError(said["said"].strip() if said else text.split("\n", maxsplit=1)[0]) from error
