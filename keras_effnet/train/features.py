"""What the frozen backbone says of each photograph, computed once and kept on disk.

A file holds one row of float32 per photograph and nothing else. Its length says how far the work came,
so a run that was killed goes on where it was; and a full disk is an error at the write, which a
memory-mapped file could not report.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import ExportError
from keras_effnet.system.files import system_said
from keras_effnet.train.pictures import in_chunks

CHUNK = 512  # photographs between two writes
FloatArray = npt.NDArray[np.float32]


def cached_features(
    backbone: Any,
    indices: npt.NDArray[np.int64],
    batches: Callable[[npt.NDArray[np.int64]], Any],
    path: Path,
    *,
    mirrored: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> FloatArray:
    """The backbone's features of photographs, read from `path` as far as they are there.

    Args:
        backbone: a Keras model from pixels to features `[N, C]`.
        indices: the photographs.
        batches: from some of the indices to a `tf.data.Dataset` of (pixels, labels).
        path: the file to keep them in.
        mirrored: of the photographs' mirror images.
        progress: called with the number of photographs done since the last call.

    Returns:
        float32 `[N, C]`, mapped from the file.

    Raises:
        ExportError: the disk is full or failed.
    """
    import tensorflow as tf

    channels = int(backbone.output_shape[-1])
    row = channels * np.dtype(np.float32).itemsize
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            done = file.tell() // row
            file.truncate(done * row)
            progress(done)
            for chunk in in_chunks(indices[done:], CHUNK):
                pixels = batches(chunk).map(lambda image, _: tf.reverse(image, [2]) if mirrored else image)
                features = np.asarray(backbone.predict(pixels, verbose=0), dtype=np.float32)
                file.write(features.tobytes())
                file.flush()
                progress(len(chunk))
    except OSError as error:
        raise ExportError(
            f"Expected to write {str(path)!r}. The system said: {system_said(error)}. Free some space and "
            "resume; what was written so far is kept."
        ) from error
    if len(indices) == 0:
        return np.zeros((0, channels), np.float32)
    return np.memmap(path, dtype=np.float32, mode="r", shape=(len(indices), channels))
