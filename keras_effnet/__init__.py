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
    from keras_effnet.labels import decode_predictions
    from keras_effnet.preprocessing import load_image, preprocess_input
    from keras_effnet.weights import load_weights

__version__ = "0.1.0"

__all__ = [
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
    "decode_predictions",
    "load_image",
    "load_weights",
    "preprocess_input",
]

_HOMES = {
    "decode_predictions": "labels",
    "load_image": "preprocessing",
    "load_weights": "weights",
    "preprocess_input": "preprocessing",
}
_SUBMODULES = (
    "errors",
    "explain",
    "export",
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
