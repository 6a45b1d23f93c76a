"""Models of tf_keras, which is Keras 2, as the models of Keras 3 that everything here works with."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

from keras_effnet.errors import ExportError


def in_keras_3(model: Any) -> Any:
    """The model itself, or what Keras 3 makes of a model of tf_keras: the same layers and weights.

    Raises:
        ExportError: Keras 3 cannot read it.
    """
    if not any(kind.__module__.partition(".")[0] == "tf_keras" for kind in type(model).__mro__):
        return model
    import keras

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # HDF5 is old: known
        path = Path(folder) / "model.h5"
        try:
            model.save(path)
            return keras.saving.load_model(path, compile=False)
        except Exception as error:  # whatever a layer's config raises
            said = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise ExportError(
                f"Expected a model of tf_keras that Keras 3 can read. Received: {model.name!r}: {said.rstrip('.')}. "
                "Build it in Keras 3 and load its weights."
            ) from error
