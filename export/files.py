"""Files that appear whole or not at all."""

from __future__ import annotations

from keras_effnet.files import compressed_size_of, remove, remove_empty, size_of, staged

__all__ = ["compressed_size_of", "remove", "remove_empty", "size_of", "staged"]
