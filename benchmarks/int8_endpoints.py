"""The feature maps of a trained B0 in integers: how near each is to the float model's, photograph by photograph.

    python benchmarks/int8_endpoints.py WEIGHTS PHOTOGRAPHS        for example b0.h5 photographs/

32 photographs calibrate, as many others judge.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

COUNT = 32


def main() -> None:
    from keras_effnet import EfficientNetB0, export, load_image
    from keras_effnet.pictures.folders import list_images

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="of a trained B0")
    parser.add_argument("photographs", type=Path, help="a folder of 64 or more")
    arguments = parser.parse_args()
    import numpy as np

    model = EfficientNetB0(
        False, arguments.weights, input_shape=(224, 224, 3), endpoints=(1, 2, 3, 4, 5), name="maps"
    )
    pixels = np.stack([load_image(path, model) for path in list_images(arguments.photographs)[: 2 * COUNT]])
    with tempfile.TemporaryDirectory() as folder:
        path = export.to_tflite(model, Path(folder) / "maps.tflite", "int8", pixels[::2])
        report = export.verify(model, path, pixels[1::2], raise_on_failure=False)
    print("| output | median | 5th percentile | worst | cosine | same nearest neighbour |")
    print("|---|---|---|---|---|---|")
    for found in report.outputs:
        print(
            f"| {found.name} | {found.median_sqnr_db:.1f} dB | {found.low_sqnr_db:.1f} | {found.worst_sqnr_db:.1f} "
            f"| {found.mean_cosine:.4f} | {found.same_neighbour:.2f} |"
        )


if __name__ == "__main__":
    main()
