"""Keras → SavedModel, with signatures for pixels and for encoded pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_effnet.weights.checkpoint import METADATA_KEY

from .failures import converting
from .model_facts import INPUT_NAME, ModelFacts
from .options import Options
from .outputs import by_name, labels_file

# TensorFlow names its own temporary file first: "{{node SaveV2}} FILE; No space left on device [Op:SaveV2]"
_DISK = re.compile(r"; (?P<said>[^;\[\n]+)")
EXTRA_ASSETS = "assets.extra"  # TensorFlow's place for files that the graph does not read


def write(facts: ModelFacts, path: Path, options: Options, calibration: Any) -> None:
    """Write the folder: the graph, and beside it what it says of itself and the labels."""
    del options, calibration  # it follows none, and computes in float
    with converting(facts.info.name, "SavedModel"):
        write_archive(facts, path)
    extra = path / EXTRA_ASSETS
    extra.mkdir()
    (extra / f"{METADATA_KEY}.json").write_text(facts.info.to_json(), encoding="utf-8")
    for output in facts.outputs:
        if output.labels:
            text = "\n".join(output.labels) + "\n"
            (extra / labels_file(output, facts.outputs)).write_text(text, encoding="utf-8")


def write_archive(facts: ModelFacts, path: Path) -> None:
    """Write the SavedModel itself.

    Raises:
        OSError: the disk is full or failed.
    """
    import tensorflow as tf

    from .encoded_pictures import batch_decoder

    model = facts.model
    shape = (None, facts.height, facts.width, facts.channels)

    def serve(image: Any) -> dict[str, Any]:
        made = by_name(facts.output_names, model(image, training=False))
        return {name: tf.cast(value, tf.float32) for name, value in made.items()}

    # the graph stands once in the folder: the other signatures call this function
    served = concrete(serve, tf.TensorSpec(shape, tf.float32, name=INPUT_NAME))

    def serve_uint8(image: Any) -> dict[str, Any]:
        return dict(served(tf.cast(image, tf.float32)))

    functions = {
        "serving_default": served,
        "serve_uint8": concrete(serve_uint8, tf.TensorSpec(shape, tf.uint8, name=INPUT_NAME)),
    }
    if facts.channels in (1, 3):
        framing = replace(facts.info.framing, channels=facts.channels)
        decode = batch_decoder(facts.height, facts.width, framing)

        def serve_bytes(image_bytes: Any) -> dict[str, Any]:
            pixels, readable = decode(image_bytes)
            count = tf.shape(pixels)[0]
            # TensorFlow's batch normalization cannot take a batch of none: it gets a black picture, cut off again
            filled = tf.pad(pixels, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
            made = served(tf.ensure_shape(filled, shape))
            return {name: _readable_only(value[:count], readable) for name, value in made.items()}

        functions["serve_bytes"] = concrete(
            serve_bytes, tf.TensorSpec((None,), tf.string, name="image_bytes")
        )
    save(functions, path)


def _readable_only(answers: Any, readable: Any) -> Any:
    """An output for pictures of which some could not be read: NaN for those."""
    import tensorflow as tf

    ok = tf.reshape(readable, [-1] + [1] * (answers.shape.rank - 1))
    return tf.where(ok, answers, float("nan"))


def concrete(function: Callable[[Any], dict[str, Any]], spec: Any) -> Any:
    """A Python function of one tensor of this `tf.TensorSpec`, traced."""
    import tensorflow as tf

    return tf.function(function, autograph=False).get_concrete_function(spec)


def save(functions: Mapping[str, Any], path: Path) -> None:
    """Write a SavedModel with these concrete functions under their names, as attributes and as signatures.

    `keras.export.ExportArchive` takes functions that TensorFlow traces anew while it saves them.

    Raises:
        OSError: the disk is full or failed, which `staged` understands; its text is what the system said.
    """
    import tensorflow as tf

    root = tf.Module()
    for name, function in functions.items():
        setattr(root, name, function)
    # a SavedModel holds the variables that hang on its root
    used = {id(each): each for function in functions.values() for each in function.variables}
    root.used_variables = list(used.values())
    try:
        tf.saved_model.save(root, str(path), signatures=dict(functions))
    except tf.errors.OpError as error:
        text = str(error.message)
        said = _DISK.search(text)
        raise OSError(said["said"].strip() if said else text.split("\n", maxsplit=1)[0]) from error
