"""The export layer: SavedModel, TFLite and ONNX from a Keras model, each proven against it.

The public names stand in `__init__.pyi` and are imported when they are first used: importing this package loads no
converter and no runtime, and a process that only scores photographs does not load the exporters.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
