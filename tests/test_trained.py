"""Really trained networks on real photographs. The photographs come from ../shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_effnet import EfficientNetB0, export
from keras_effnet.errors import VerificationError
from keras_effnet.export.model_facts import ModelFacts, facts_of
from keras_effnet.export.options import Options
from keras_effnet.export.quantization import accuracy, litert
from keras_effnet.export.quantization.prepare import prepare
from keras_effnet.export.targets import TARGETS, tolerance_of, write_artefact
from keras_effnet.export.tflite_file import convert_float

FLOAT_TARGETS = ["saved_model", "tflite:float32", "tflite:float16", "onnx:float32", "onnx:float16"]


def _top1(scores: Any, classes: Any) -> float:
    return float((scores.argmax(axis=1) == classes).mean())


def test_lite0_reaches_its_accuracy_with_the_evaluation_crop(lite0: Any, photos: Any) -> None:
    pixels, classes = photos
    assert _top1(lite0.predict(pixels[::2], verbose=0), classes[::2]) >= 0.86


def test_trained_b0_reaches_its_accuracy(trained_b0: Any, photos: Any) -> None:
    pixels, classes = photos
    assert _top1(trained_b0.predict(pixels[::2], verbose=0), classes[::2]) >= 0.87


@pytest.fixture(scope="module")
def lite0_facts(lite0: Any) -> ModelFacts:
    """They hold a conversion, from which several of the files are made."""
    return facts_of(lite0)


@pytest.mark.parametrize("target", FLOAT_TARGETS)
def test_lite0_keeps_its_accuracy_in_every_float_artefact(
    lite0: Any, lite0_facts: ModelFacts, photos: Any, tmp_path: Path, target: str
) -> None:
    pixels, classes = photos
    row = TARGETS[target]
    path = write_artefact(row, lite0_facts, tmp_path / f"lite0{row.suffix}", Options())
    assert export.verify(lite0, path, pixels[:16]).ok
    assert _top1(export.load(path)(pixels[::3]), classes[::3]) >= 0.86


def test_lite0_int8_agrees_on_photographs_it_was_not_calibrated_with(
    lite0: Any, photos: Any, tmp_path: Path
) -> None:
    pixels, classes = photos
    path = export.to_tflite(lite0, tmp_path / "lite0.tflite", "int8", pixels[::12])
    report = export.verify(lite0, path, pixels[1::4])
    assert report.top1_agreement >= 0.97
    assert _top1(export.load(path)(pixels[1::2]), classes[1::2]) >= 0.85
    assert path.stat().st_size < 0.3 * 4 * lite0.count_params()


def test_trained_b0_keeps_its_accuracy_in_int8(shared: Path, photos_at: Any, tmp_path: Path) -> None:
    """At 160 px, where it is right about 87 of the hundred, and half the values are to be computed."""
    pixels, classes = photos_at(160)
    model = EfficientNetB0(weights=shared / "b0_distilled" / "b0_distilled.h5", input_shape=(160, 160, 3))
    network = prepare(model, pixels[::12])
    unseen = pixels[1::10].astype(np.float32)
    assert accuracy.sqnr_db(network.logits(unseen, integer=False), network.logits(unseen)) >= 18
    path = export.to_tflite(model, tmp_path / "b0.tflite", "int8", network=network)
    # kernels of other processors round otherwise, and one photograph more or less follows: 96 to 100 of the hundred agree
    report = export.verify(model, path, pixels[1::2])
    assert report.top1_agreement >= 0.95 and report.sqnr_db >= 18
    assert _top1(export.load(path)(pixels[1::2]), classes[1::2]) >= 0.85


def test_full_ranges_destroy_b0_and_verification_says_so(
    trained_b0: Any, photos: Any, tmp_path: Path
) -> None:
    pixels, _ = photos
    path = tmp_path / "b0.tflite"
    path.write_bytes(litert.int8(convert_float(trained_b0, (224, 224, 3)), pixels[:32:4].astype(np.float32)))
    with pytest.raises(VerificationError, match=r"Top-1 agreement.*required 0.95.*SQNR"):
        export.verify(trained_b0, path, pixels[1:32:2], tolerance=tolerance_of("tflite", "int8"))
    assert np.isfinite(export.load(path)(pixels[:1])).all()
