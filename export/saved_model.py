"""Keras → SavedModel, with signatures for pixels and for encoded pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_effnet.export.archive import write_out
from keras_effnet.export.subject import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, Subject, describe
from keras_effnet.pictures.framing import Framing
from keras_effnet.system.files import staged

KERNELS = {"bicubic": "keyscubic", "bilinear": "triangle"}  # the resizing operator's names
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
    - `serve_bytes`: `image_bytes`, JPEG, PNG or GIF strings `[N]`; decodes (without transparency: where
      `load_image` lays a PNG on white, this shows the colors behind it), takes the central
      `size / (size + 32)` square (or what the model was trained with, see `transfer.classifier`), resizes as
      its variant was judged (antialiased) and classifies. EXIF rotation is
      not applied: TensorFlow has no operator that reads it. Only for three channels.

    Args:
        model: a Keras model with one image input.
        path: directory to create.
        labels: class names; default: the model's own, or ImageNet's. Written to
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
    if subject.channels == 3:
        decode = _decoder(subject.height, subject.width, subject.info.framing)

        def serve_bytes(image_bytes: Any) -> dict[str, Any]:
            pixels = tf.map_fn(decode, image_bytes, fn_output_signature=tf.float32)
            return serve(tf.ensure_shape(pixels, shape))

        spec = tf.TensorSpec((None,), tf.string, name="image_bytes")
        archive.add_endpoint("serve_bytes", serve_bytes, [spec])
    write_out(archive, path)


def _decoder(height: int, width: int, framing: Framing) -> Callable[[Any], Any]:
    """A graph function from one encoded picture to float32 pixels 0–255 `[height, width, 3]`."""
    import tensorflow as tf

    def decode(encoded: Any) -> Any:
        # despite its name it reads PNG and GIF too; the accurate DCT is the one that Pillow uses
        picture = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
        sides = tf.cast(tf.shape(picture)[:2], tf.float32)
        # the crop keeps size / (size + margin) of the shorter side, and the model's aspect ratio
        target = tf.constant([height, width], tf.float32)
        zoom = tf.reduce_max((target + framing.margin) / sides)
        translation = -(sides - target / zoom) / 2 * zoom
        resized = tf.raw_ops.ScaleAndTranslate(
            images=picture[tf.newaxis],
            size=tf.constant([height, width]),
            scale=tf.stack([zoom, zoom]),
            translation=translation,
            kernel_type=KERNELS[framing.interpolation],
            antialias=True,
        )[0]
        # whole numbers, as Pillow returns them
        return tf.round(tf.clip_by_value(resized, 0.0, 255.0))

    return decode
