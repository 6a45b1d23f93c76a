"""EfficientNet for Keras: every variant from one table, exact weights, verified exports.

The public names stand in `__init__.pyi` and are imported when they are first used, so `import
keras_effnet` and the command line's `--help` cost nothing, and Keras' backend can still be chosen after
the import.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
