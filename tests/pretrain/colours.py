"""The three classes that the pretraining tests tell apart."""

from __future__ import annotations

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 40, 40)}


def picture(label: str, seed: int) -> Image.Image:
    """Of a class: its colour, with noise."""
    noise = np.random.default_rng(seed).normal(0, 25, (48, 60, 3))
    return Image.fromarray(np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8))
