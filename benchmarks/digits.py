"""scikit-learn's handwritten digits as folders of pictures: a small data set for `keras-effnet scale search`.

    python benchmarks/digits.py DIR
    keras-effnet scale search DIR --epochs 4 --tolerance 0.02 --storage digits.journal

1,200 digits train and 597 judge, enlarged from 8 to 64 pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIDE, TRAINING = 64, 1200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="DIR")
    out = parser.parse_args().out
    digits = load_digits()
    training = set(np.random.default_rng(0).permutation(len(digits.target))[:TRAINING].tolist())
    for index, (values, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = out / ("train" if index in training else "validation") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.uint8(values * 255 / 16)).convert("RGB")
        picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{index}.png")


if __name__ == "__main__":
    main()
