"""Training from scratch with the reference's recipe: what `keras-effnet pretrain` does, for programs."""

from keras_effnet.pretrain.run import pretrain

__all__ = ["pretrain"]
