"""Published weights: the catalog, where files come from, one reader per format, strict loading."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
