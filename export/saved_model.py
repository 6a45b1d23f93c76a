"""Keras → SavedModel, with signatures for pixels and for encoded pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_effnet.export.archive import write_out
from keras_effnet.export.encoded_pictures import batch_decoder
from keras_effnet.export.subject import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, Subject, describe
from keras_effnet.system.files import staged

EXTRA_ASSETS = "assets.extra"  # TensorFlow's place for files that the graph does not read


def to_saved_model(
    model: Any,
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    size: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a SavedModel.

    Signatures, all with a dynamic batch and the output `probabilities` `[N, classes]` float32:

    - `serving_default`: `image`, float32 RGB pixels 0–255 `[N, H, W, C]`
    - `serve_uint8`: the same as uint8
    - `serve_bytes`: `image_bytes`, encoded pictures `[N]`: JPEG, PNG, WebP (no animation), GIF (its first
      picture, if it fills the canvas) and BMP (8, 24 or 32 bits, not compressed). It sees what
      `load_image(…, model)` sees: upright, over white, with the crop and interpolation of its variant (or what
      the model was trained with, see `transfer.classifier`). A picture that is damaged, of another kind
      or of more than 134 million pixels costs only its own row, which is NaN; N may be 0. Only for models of
      three channels or one.

    Args:
        model: a Keras model with one image input.
        path: directory to create.
        labels: class names; default: ImageNet's for 1,000 classes. Written to
            `assets.extra/labels.txt`.
        size: side of the input in pixels, for a model that leaves it open.
        overwrite: replace an existing directory.

    Returns:
        The directory.

    Raises:
        InvalidInputError: a model or path that cannot be used.
        ExportError: writing failed.
    """
    subject = describe(model, "float32", labels=labels, size=size)
    with staged(path, overwrite=overwrite) as temporary:
        write_archive(subject, temporary)
        extra = temporary / EXTRA_ASSETS
        extra.mkdir()
        (extra / f"{METADATA_KEY}.json").write_text(subject.info.to_json(), encoding="utf-8")
        if subject.labels:
            (extra / "labels.txt").write_text("\n".join(subject.labels) + "\n", encoding="utf-8")
    return Path(path)


def write_archive(subject: Subject, path: Path) -> None:
    """Write the SavedModel itself.

    Raises:
        OSError: the disk is full or failed.
    """
    import keras
    import tensorflow as tf

    model = subject.model
    shape = (None, subject.height, subject.width, subject.channels)
    # without track(): the variables are found through the endpoints, and tracking stores them twice
    archive = keras.export.ExportArchive()

    def serve(image: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: tf.cast(model(image, training=False), tf.float32)}

    def serve_uint8(image: Any) -> dict[str, Any]:
        return serve(tf.cast(image, tf.float32))

    archive.add_endpoint("serving_default", serve, [tf.TensorSpec(shape, tf.float32, name=INPUT_NAME)])
    archive.add_endpoint("serve_uint8", serve_uint8, [tf.TensorSpec(shape, tf.uint8, name=INPUT_NAME)])
    if subject.channels in (1, 3):
        framing = replace(subject.info.framing, channels=subject.channels)
        decode = batch_decoder(subject.height, subject.width, framing)

        def serve_bytes(image_bytes: Any) -> dict[str, Any]:
            pixels, readable = decode(image_bytes)
            answers = serve(tf.ensure_shape(pixels, shape))[OUTPUT_NAME]
            return {OUTPUT_NAME: tf.where(readable[:, tf.newaxis], answers, float("nan"))}

        spec = tf.TensorSpec((None,), tf.string, name="image_bytes")
        archive.add_endpoint("serve_bytes", serve_bytes, [spec])
    write_out(archive, path)
