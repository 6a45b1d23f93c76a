"""A trained classifier on disk: a plain Keras file and its class names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from keras_effnet.system.files import staged


def save_classifier(model: keras.Model, path: Path, labels: Sequence[str]) -> None:
    """Keep a model without what only training needs, so that it loads without this package.

    Args:
        model: a functional model.
        path: the `.keras` file; `labels.txt` is written beside it. Each appears whole or not at all, and
            replaces an earlier one.
        labels: class names in the order of the outputs.

    Raises:
        ExportError: the disk is full or failed.
    """
    bare = keras.Model(model.input, model.output, name=model.name)
    for layer in bare.layers:
        layer.trainable = True
    with staged(path.with_name("labels.txt"), overwrite=True) as temporary:
        temporary.write_text("\n".join(labels) + "\n", encoding="utf-8")
    with staged(path, overwrite=True) as temporary:
        whole = temporary.with_suffix(".keras")  # Keras insists on the suffix
        try:
            bare.save(whole)
            whole.replace(temporary)
        finally:
            whole.unlink(missing_ok=True)
