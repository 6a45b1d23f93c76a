"""Everything leaves in float32 with its channels last, whatever the process or the model had in training.

Half precision is a choice of the machine that trains; the recipe of an artefact is another one, and converters
refuse half-precision graphs. An exporter rebuilds layers, for which Keras' global settings would count.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from keras_effnet.errors import ExportError
from keras_effnet.network.reader import flat_layers

FLOATS = ("float16", "bfloat16", "float64")  # what a layer may compute in instead


def in_float32(model: Any) -> Any:
    """The model itself if all of it computes in float32, else a copy that does, with the same weights.

    Raises:
        ExportError: a model of another precision that Keras cannot clone.
    """
    odd = sorted({dtype for layer in flat_layers(model) if (dtype := _compute_dtype(layer)) in FLOATS})
    if not odd:
        return model
    import keras

    try:
        twin = keras.models.clone_model(model, clone_function=_float32_layer, recursive=True)
        twin.set_weights(model.get_weights())
    except (TypeError, ValueError, NotImplementedError) as error:  # a subclass, or a layer without a config
        raise ExportError(
            f"Expected a model that computes in float32, or one that Keras can clone in it. Received: "
            f"{model.name!r}, which computes in {' and '.join(odd)}. Build it with the float32 policy and load "
            "its weights."
        ) from error
    return twin


def _compute_dtype(layer: Any) -> str:
    return str(getattr(layer, "compute_dtype", "float32"))


def _float32_layer(layer: Any) -> Any:
    config = layer.get_config()
    if _compute_dtype(layer) in FLOATS:
        config["dtype"] = "float32"
    return type(layer).from_config(config)


@contextmanager
def plain_keras() -> Iterator[None]:
    """Within the block new layers compute in float32 and have their channels last, whatever was set globally."""
    import keras

    policy, data_format = keras.config.dtype_policy(), keras.config.image_data_format()
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(data_format)
