"""Keras → SavedModel, with signatures for pixels and for encoded pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_effnet.pictures.framing import Framing

from .failures import converting, write_out
from .model_facts import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, ModelFacts
from .options import Options

KERNELS = {"bicubic": "keyscubic", "bilinear": "triangle"}  # the resizing operator's names
EXTRA_ASSETS = "assets.extra"  # TensorFlow's place for files that the graph does not read


def write(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write the folder: the graph, and beside it what it says of itself and the labels."""
    del options, calibration  # it follows none, and computes in float
    with converting(facts.info.name, "SavedModel"):
        write_archive(facts, path)
    extra = path / EXTRA_ASSETS
    extra.mkdir()
    (extra / f"{METADATA_KEY}.json").write_text(facts.info.to_json(), encoding="utf-8")
    if facts.labels:
        (extra / "labels.txt").write_text("\n".join(facts.labels) + "\n", encoding="utf-8")


def write_archive(facts: ModelFacts, path: Path) -> None:
    """Write the SavedModel itself.

    Raises:
        OSError: the disk is full or failed.
    """
    import keras
    import tensorflow as tf

    model = facts.model
    shape = (None, facts.height, facts.width, facts.channels)
    # without track(): the variables are found through the endpoints, and tracking stores them twice
    archive = keras.export.ExportArchive()

    def serve(image: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: tf.cast(model(image, training=False), tf.float32)}

    def serve_uint8(image: Any) -> dict[str, Any]:
        return serve(tf.cast(image, tf.float32))

    archive.add_endpoint("serving_default", serve, [tf.TensorSpec(shape, tf.float32, name=INPUT_NAME)])
    archive.add_endpoint("serve_uint8", serve_uint8, [tf.TensorSpec(shape, tf.uint8, name=INPUT_NAME)])
    if facts.channels == 3:
        decode = _decoder(facts.height, facts.width, facts.info.framing)

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
