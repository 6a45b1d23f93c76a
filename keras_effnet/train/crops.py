"""Random parts of photographs: what training sees of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from keras_effnet.preprocessing import Box

ASPECTS = (3 / 4, 4 / 3)  # of width to height, as in the training of the published networks


def random_part(smallest: float, seed: Sequence[int]) -> Callable[[int, int], Box]:
    """How to choose a random part of a photograph.

    Args:
        smallest: share of the photograph's area that the part has at least, 0–1.
        seed: numbers that decide which part; the same give the same.

    Returns:
        From the width and height of a photograph to the edges of the part (see `load_part`).

    Source: `distorted_bounding_box_crop` in `preprocessing.py` of the reference code.
    """

    def choose(width: int, height: int) -> Box:
        import tensorflow as tf

        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            (height, width, 3),
            bounding_boxes=[[[0.0, 0.0, 1.0, 1.0]]],
            seed=np.random.default_rng(seed).integers(2**31, size=2),
            min_object_covered=0.0,
            aspect_ratio_range=ASPECTS,
            area_range=(smallest, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        top, left, _ = (int(value) for value in begin)
        tall, wide, _ = (int(value) for value in extent)
        # a negative extent means up to the edge
        right = left + wide if wide > 0 else width
        lower = top + tall if tall > 0 else height
        return left, top, right, lower

    return choose
