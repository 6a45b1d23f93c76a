"""Files that appear whole or not at all: `keras_effnet.files`, under the name the exporters use."""

from __future__ import annotations

from keras_effnet.files import remove, remove_empty, size_of, staged

__all__ = ["remove", "remove_empty", "size_of", "staged"]
