"""EfficientNet for Keras: every variant from one table, exact weights, verified exports.

The names below are imported when they are first used, so `import keras_effnet` and the command
line's `--help` cost nothing, and Keras' backend can still be chosen after the import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_effnet.applications import (
        EfficientNet,
        EfficientNetB0,
        EfficientNetB1,
        EfficientNetB2,
        EfficientNetB3,
        EfficientNetB4,
        EfficientNetB5,
        EfficientNetB6,
        EfficientNetB7,
        EfficientNetB8,
        EfficientNetL2,
        EfficientNetLite0,
        EfficientNetLite1,
        EfficientNetLite2,
        EfficientNetLite3,
        EfficientNetLite4,
    )
    from keras_effnet.costs import cost
    from keras_effnet.network.conventions import preprocess_input
    from keras_effnet.pictures.labels import decode_predictions
    from keras_effnet.pictures.reading import load_image
    from keras_effnet.scaling import CompoundScaling
    from keras_effnet.weights import load_weights

__version__ = "0.1.0"

__all__ = [
    "CompoundScaling",
    "EfficientNet",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "EfficientNetB8",
    "EfficientNetL2",
    "EfficientNetLite0",
    "EfficientNetLite1",
    "EfficientNetLite2",
    "EfficientNetLite3",
    "EfficientNetLite4",
    "cost",
    "decode_predictions",
    "load_image",
    "load_weights",
    "preprocess_input",
]

_HOMES = {
    "CompoundScaling": "scaling",
    "cost": "costs",
    "decode_predictions": "pictures.labels",
    "load_image": "pictures.reading",
    "load_weights": "weights",
    "preprocess_input": "network.conventions",
}
_SUBMODULES = (
    "baselines",
    "errors",
    "explain",
    "export",
    "scaling",
    "train",
    "transfer",
)  # usable as attributes after `import keras_effnet`


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'applications')}")
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
