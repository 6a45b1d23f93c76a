"""Models of tf_keras, which is Keras 2, and of SavedModels, as the models of Keras 3 that everything here works with."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from keras_effnet.errors import EffNetError, ExportError, InvalidInputError, require, warn
from keras_effnet.system.files import reachable
from keras_effnet.system.quiet import quiet_native

LAYERS_FILE = "keras_metadata.pb"  # in a SavedModel that Keras 2 saved: the layers, beside the functions
ENDPOINTS = ("serve", "serving_default")  # of what `model.export` of Keras 3 and everybody else writes


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
            read = keras.saving.load_model(path, compile=False)
            if not isinstance(read.input, list) or len(read.inputs) > 1:
                return read
            # as read, it takes a list of one picture, and Keras warns wherever it is given the picture
            made = read.outputs[0] if len(read.outputs) == 1 else read.output
            return keras.Model(read.inputs[0], made, name=read.name)
        except Exception as error:  # whatever a layer's config raises
            raise ExportError(
                f"Expected a model of tf_keras that Keras 3 can read. Received: {model.name!r}: {_said(error)}. "
                "Build it in Keras 3 and load its weights."
            ) from error


def from_saved_model(path: str | os.PathLike[str]) -> Any:
    """The Keras model of a SavedModel folder, to export it to other formats.

    Where Keras 2 saved the folder (`model.save("folder")`), its layers are in it: the model is the same one again, and
    everything can be done with it. Any other SavedModel, such as those of `model.export`, holds no layers but
    functions. It becomes one layer, with a warning: files that compute in float are as good as ever, while the
    integer recipes of TFLite choose their ranges by minimum and maximum, and ONNX has no integers for it.

    Args:
        path: the folder. Nothing in it is executed but operators of TensorFlow.

    Returns:
        A model of Keras 3 with one image input `[N, H, W, C]`.

    Raises:
        InvalidInputError: no SavedModel, or none that takes one batch of pictures as float32; or one with a
            Lambda layer, whose Python code would have to be run.
        MissingExtraError: Keras 2 wrote it, and `tf_keras` is not installed.
        ExportError: its layers are none that Keras 3 can read.
    """
    folder = Path(path)
    with reachable(folder, "a SavedModel that can be read"):
        if not (folder / "saved_model.pb").is_file():
            raise InvalidInputError(
                f"Expected a SavedModel folder. Received: {str(folder)!r}, which has no saved_model.pb in it. "
                "Check the path."
            )
        has_layers = has_layers_of_keras(folder)
    try:
        with quiet_native():
            return _of_keras_2(folder) if has_layers else _of_functions(folder)
    except (EffNetError, ImportError):
        raise
    except Exception as error:  # whatever TensorFlow finds in a damaged folder
        raise InvalidInputError(
            f"Expected a complete SavedModel in {str(folder)!r}. It cannot be read ({type(error).__name__}: "
            f"{_said(error)}). Save the model again."
        ) from error


def has_layers_of_keras(folder: Path) -> bool:
    """Whether Keras 2 saved a SavedModel, which then knows its layers."""
    return (folder / LAYERS_FILE).is_file()


def _of_keras_2(folder: Path) -> Any:
    tf_keras = require("tf_keras", "qat")
    from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

    told = SavedMetadata.FromString((folder / LAYERS_FILE).read_bytes())
    if any(holds_code(json.loads(node.metadata)) for node in told.nodes):
        raise InvalidInputError(lambda_refused(folder))
    return in_keras_3(tf_keras.models.load_model(folder, compile=False))


def _of_functions(folder: Path) -> Any:
    import keras
    import tensorflow as tf

    signatures = tf.saved_model.load(str(folder)).signatures
    endpoint = next((name for name in ENDPOINTS if name in signatures), None)
    specs = list(signatures[endpoint].structured_input_signature[1].values()) if endpoint else []
    if len(specs) != 1 or specs[0].dtype != tf.float32 or len(specs[0].shape) != 4:
        taken = ", ".join(f"{spec.dtype.name} {spec.shape}" for spec in specs) or sorted(signatures)
        raise InvalidInputError(
            f"Expected a SavedModel with a signature {' or '.join(ENDPOINTS)} that takes one batch of pictures, float32 "
            f"[N, H, W, C]. Received: {str(folder)!r} with {taken}. Export it with one."
        )
    warn(
        f"{str(folder)!r} holds functions and no layers: files that compute in float are as good as ever, integers have "
        "ranges from minimum and maximum only."
    )
    image = keras.Input(tuple(specs[0].shape[1:]), name=specs[0].name)
    made = keras.layers.TFSMLayer(str(folder), call_endpoint=endpoint, name="saved_model")(image)
    if isinstance(made, dict) and len(made) == 1:
        (made,) = made.values()
    return keras.Model(image, made, name=folder.resolve().name)


def holds_code(description: Any) -> bool:
    """Whether a network's description has a Lambda, or a lambda function as an argument, anywhere in it."""
    if isinstance(description, dict):
        if description.get("class_name") in ("Lambda", "__lambda__"):
            return True
        return any(map(holds_code, description.values()))
    return isinstance(description, list) and any(map(holds_code, description))


def lambda_refused(path: Path) -> str:
    """What is said of a file that `holds_code`."""
    return (
        f"Expected a model without Python code in {str(path)!r}. Received: one with a Lambda layer, whose code "
        "would have to be run, and nothing from a file is. Build it with other layers (Rescaling, keras.ops), "
        "and save it again."
    )


def _said(error: Exception) -> str:
    return (next(iter(str(error).splitlines()), "") or type(error).__name__).rstrip(".")
