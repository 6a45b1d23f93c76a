"""Training from scratch with the reference's recipe: what `keras-effnet pretrain` does, for programs.

The name is imported when it is first used: a wrong recipe is answered before Keras has started.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from keras_effnet.pretrain.run import pretrain as pretrain

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"run": ["pretrain"]})
