"""AutoAugment's policy for ImageNet, with which the reference trained its `imagenet` weights.

One of 25 pairs of operations is drawn for each picture, and each of the two is carried out with a probability and a
level of its own. Pillow has the operations; what a level means is the reference's.

Sources: arXiv:1805.09501; `autoaugment.py` of the reference code (`models/official/efficientnet`), policy `v0`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from keras_effnet.pictures.distortions import OPERATIONS

MAX_LEVEL = 10

# operation, probability, level; two for each picture
POLICY: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("equalize", 0.8, 1), ("shear_y", 0.8, 4)),
    (("color", 0.4, 9), ("equalize", 0.6, 3)),
    (("color", 0.4, 1), ("rotate", 0.6, 8)),
    (("solarize", 0.8, 3), ("equalize", 0.4, 7)),
    (("solarize", 0.4, 2), ("solarize", 0.6, 2)),
    (("color", 0.2, 0), ("equalize", 0.8, 8)),
    (("equalize", 0.4, 8), ("solarize_add", 0.8, 3)),
    (("shear_x", 0.2, 9), ("rotate", 0.6, 8)),
    (("color", 0.6, 1), ("equalize", 1.0, 2)),
    (("invert", 0.4, 9), ("rotate", 0.6, 0)),
    (("equalize", 1.0, 9), ("shear_y", 0.6, 3)),
    (("color", 0.4, 7), ("equalize", 0.6, 0)),
    (("posterize", 0.4, 6), ("autocontrast", 0.4, 7)),
    (("solarize", 0.6, 8), ("color", 0.6, 9)),
    (("solarize", 0.2, 4), ("rotate", 0.8, 9)),
    (("rotate", 1.0, 7), ("translate_y", 0.8, 9)),
    (("shear_x", 0.0, 0), ("solarize", 0.8, 4)),
    (("shear_y", 0.8, 0), ("color", 0.6, 4)),
    (("color", 1.0, 0), ("rotate", 0.6, 2)),
    (("equalize", 0.8, 4), ("equalize", 0.0, 8)),
    (("equalize", 1.0, 4), ("autocontrast", 0.6, 2)),
    (("shear_y", 0.4, 7), ("solarize_add", 0.6, 7)),
    (("posterize", 0.8, 2), ("solarize", 0.6, 10)),
    (("solarize", 0.6, 8), ("equalize", 0.6, 1)),
    (("color", 0.8, 6), ("rotate", 0.4, 5)),
)


def autoaugment(pixels: npt.NDArray[np.uint8], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A picture `[H, W, 3]` after one pair of the policy, of the same shape and type."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    for name, probability, level in POLICY[random.integers(len(POLICY))]:
        if random.random() < probability:
            sign = 1 if random.random() < 0.5 else -1
            picture = OPERATIONS[name](picture, level / MAX_LEVEL, sign)
    return np.asarray(picture)
