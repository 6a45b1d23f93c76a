"""The comparison finds what it must find."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import onnx
import pytest
from material import build_nano

from keras_effnet import export
from keras_effnet.errors import InvalidInputError, VerificationError
from keras_effnet.export.closeness import shown_agreement
from keras_effnet.export.targets import FLOAT16, INTEGER, TARGETS, Tolerance, tolerance_of
from keras_effnet.export.verification import Report, compare


@pytest.fixture(scope="module")
def good(nano: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.to_onnx(nano, tmp_path_factory.mktemp("verify") / "good.onnx")


def _broken(good: Path, path: Path, change: Any) -> Path:
    """A copy with the classifier's bias changed."""
    model = onnx.load(good)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.shape == (3,):
            tensor.CopyFrom(onnx.numpy_helper.from_array(change(values).astype(np.float32), tensor.name))
    onnx.save(model, path)
    return path


def test_verify_accepts_a_faithful_artefact(nano: Any, good: Path, pixels32: Any) -> None:
    report = export.verify(nano, good, pixels32)
    assert report.ok and report.failures == ()
    assert (report.images, report.top1_agreement) == (16, 1.0)
    assert report.max_abs_error < 1e-5 and report.sqnr_db > 80 and report.mean_cosine > 0.999999


def test_verify_raises_for_a_changed_artefact(nano: Any, good: Path, pixels32: Any, tmp_path: Path) -> None:
    bad = _broken(good, tmp_path / "bad.onnx", lambda bias: bias + np.eye(3)[1] * 0.01)
    with pytest.raises(
        VerificationError, match=r"Expected 'bad.onnx' \(float32\) to agree.*Largest error"
    ) as caught:
        export.verify(nano, bad, pixels32)
    assert not caught.value.report.ok  # type: ignore[attr-defined]
    report = export.verify(nano, bad, pixels32, raise_on_failure=False)
    with pytest.raises(VerificationError):
        report.raise_if_failed()


def test_verify_finds_outputs_that_are_not_numbers(
    nano: Any, good: Path, pixels32: Any, tmp_path: Path
) -> None:
    bad = _broken(good, tmp_path / "nan.onnx", lambda bias: bias * np.nan)
    with pytest.raises(VerificationError, match="NaN or infinity"):
        export.verify(nano, bad, pixels32)


def test_verify_finds_another_number_of_classes(good: Path, pixels32: Any) -> None:
    other = build_nano(classes=5)
    with pytest.raises(InvalidInputError, match=r"to have outputs \[16, 5\].*Received: \[16, 3\]"):
        export.verify(other, good, pixels32)


def test_verify_tries_a_second_batch_size(nano: Any, good: Path, pixels32: Any) -> None:
    from keras_effnet.export.runners import load
    from keras_effnet.export.targets import FLOAT32

    runner = load(good)
    sizes: list[int] = []
    reference = nano.predict(pixels32, verbose=0)
    inner = runner.run

    def spy(pixels: Any) -> Any:
        sizes.append(len(pixels))
        return {name: values + (0.5 if len(pixels) == 3 else 0.0) for name, values in inner(pixels).items()}

    object.__setattr__(runner, "run", spy)
    report = compare(runner, reference, pixels32, FLOAT32)
    assert sizes == [8, 8, 3] and not report.ok and report.max_abs_error == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("images", [None, 5, "photos"])
def test_verify_says_what_it_wants_instead_of_pictures(nano: Any, good: Path, images: Any) -> None:
    with pytest.raises(
        InvalidInputError, match=r"an array \[N, 32, 32, 3\] or an iterable.*Received: .*Read them with"
    ):
        export.verify(nano, good, images)


def test_report_survives_json(nano: Any, good: Path, pixels32: Any) -> None:
    fields = json.loads(export.verify(nano, good, pixels32).to_json())
    assert {"ok", "top1_agreement", "sqnr_db", "max_abs_error", "mean_cosine", "failures"} <= set(fields)


class _Artefact:
    """One whose outputs are known; the first number of a picture says which."""

    path, recipe, dynamic_batch = Path("m.tflite"), "int8", False

    def __init__(self, outputs: Any) -> None:
        self.outputs = outputs

    def __call__(self, pixels: Any) -> Any:
        return self.outputs[pixels[:, 0, 0, 0]]


def _judged(agreeing: int, images: int, *, lead: float = 0.3, tolerance: Tolerance = INTEGER) -> Report:
    """Of an artefact that takes the second class for the best in some pictures, which the model puts `lead` behind."""
    reference = np.tile(np.array([0.4 + lead / 2, 0.4 - lead / 2, 0.1, 0.1], np.float32), (images, 1))
    outputs = reference.copy()
    outputs[agreeing:, :2] = outputs[agreeing:, 1::-1]
    numbers = np.arange(images).reshape(-1, 1, 1, 1)
    return compare(cast(Any, _Artefact(outputs)), reference, numbers, tolerance)


@pytest.mark.parametrize(
    ("agreeing", "images", "said"),
    [
        (7, 8, "0.875, required 0.95. 8 pictures are few to judge a share by: verify on 59 or more."),
        (56, 59, "0.949, required 0.95."),
        (949, 1000, "0.949, required 0.95."),
    ],
)
def test_integer_file_fails_below_the_agreement_that_is_promised(
    agreeing: int, images: int, said: str
) -> None:
    assert _judged(agreeing, images).failures == (f"Top-1 agreement {said}",)


def test_integer_file_passes_with_the_agreement_that_is_promised() -> None:
    for agreeing, images in ((8, 8), (19, 20), (960, 1000)):
        assert _judged(agreeing, images).ok
    assert not _judged(99, 100, tolerance=Tolerance(top1_agreement=1.0)).ok


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize(
    ("images", "second", "ok", "near_ties"),
    [(8, 0.46, True, 2), (8, 0.3, False, 0), (64, 0.46, False, 16)],
    ids=["near-tie", "clear", "near-ties of many"],
)
def test_integer_file_may_decide_near_ties_otherwise_where_pictures_are_few(
    images: int, second: float, ok: bool, near_ties: int, logits: bool
) -> None:
    """A quarter of the pictures gets the model's second class."""
    reference = np.tile([0.5, second, 0.5 - second], (images, 1)).astype(np.float32)
    outputs = reference.copy()
    outputs[::4] = [second, 0.5, 0.5 - second]
    if logits:
        reference, outputs = np.log(reference), np.log(outputs)
    numbers = np.arange(images).reshape(-1, 1, 1, 1)
    report = compare(cast(Any, _Artefact(outputs)), reference, numbers, Tolerance(top1_agreement=0.95))
    assert (report.ok, report.near_ties, report.top1_agreement) == (ok, near_ties, 0.75)


@pytest.mark.parametrize(
    ("agreeing", "images", "shown"),
    [(8, 8, 0.6877), (7, 8, 0.5293), (58, 58, 0.9497), (59, 59, 0.9505), (99, 100, 0.9534), (0, 8, 0.0)],
)
def test_few_pictures_show_little_of_an_agreement(agreeing: int, images: int, shown: float) -> None:
    assert shown_agreement(agreeing / images, images) == pytest.approx(shown, abs=6e-5)


def test_every_target_is_judged_by_what_it_stores() -> None:
    tolerances = {name: target.tolerance for name, target in TARGETS.items()}
    exact = ("saved_model", "tflite:float32", "onnx:float32")
    assert {tolerances.pop(name) for name in exact} == {Tolerance(max_abs_error=1e-4, top1_agreement=1.0)}
    assert {tolerances.pop(name) for name in ("tflite:float16", "onnx:float16", "onnx:float16_gpu")} == {
        FLOAT16
    }
    assert set(tolerances.values()) == {INTEGER} and FLOAT16.max_abs_error == 5e-3


def test_files_that_were_not_made_here_are_judged_by_what_they_say() -> None:
    assert tolerance_of("keras", "float32") is TARGETS["saved_model"].tolerance
    assert tolerance_of("tflite", "int4_of_tomorrow") is INTEGER


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.onnx", None, "no such file"),
        ("text.bin", b"hello there", "unknown format"),
        ("cut.onnx", b"\x08\x09\x12", "cannot be opened"),
        ("cut.tflite", b"\x1c\x00\x00\x00TFL3\x00", "cannot be opened"),
    ],
)
def test_load_says_what_is_wrong_with_a_file(tmp_path: Path, name: str, content: Any, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInputError, match=f"Expected a.*artefact.*{message}"):
        export.load(tmp_path / name)


def test_load_refuses_a_folder_without_a_saved_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="Received: the directory"):
        export.load(tmp_path)


def test_runner_refuses_pictures_of_another_size(good: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"Expected images of shape \[N, 32, 32, 3\]"):
        export.load(good)(np.zeros((1, 33, 32, 3), np.uint8))


def test_runner_warns_about_pixels_between_0_and_1(good: Path) -> None:
    with pytest.warns(UserWarning, match="divided by 255"):
        export.load(good)(np.full((1, 32, 32, 3), 0.5, np.float32))


def test_load_reads_a_keras_file(nano: Any, pixels32: Any, tmp_path: Path) -> None:
    nano.save(tmp_path / "nano.keras")
    np.testing.assert_allclose(
        export.load(tmp_path / "nano.keras")(pixels32), nano.predict(pixels32, verbose=0), atol=1e-6
    )


def test_load_reads_files_without_our_metadata(good: Path, pixels32: Any, tmp_path: Path) -> None:
    model = onnx.load(good)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    runner = export.load(tmp_path / "foreign.onnx")
    assert runner.info is None and runner.recipe == "float32" and runner.labels == ()
    np.testing.assert_array_equal(runner(pixels32), export.load(good)(pixels32))
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(("activation", "threshold"), [("sigmoid", 0.5), (None, 0.0)])
def test_single_output_agrees_where_it_lies_on_the_same_side(
    activation: str | None, threshold: float, pixels32: Any, tmp_path: Path
) -> None:
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    head = keras.layers.Dense(1, activation=activation, kernel_initializer="ones")
    model = keras.Model(inputs, head(x))
    sums = pixels32.mean(axis=(1, 2)).sum(axis=1) / 255
    head.bias.assign([-np.sort(sums)[5:7].mean()])  # six of sixteen on the negative side
    path = export.to_onnx(model, tmp_path / "one.onnx")
    head.bias.assign(head.bias - np.sort(sums)[8:10].mean() + np.sort(sums)[5:7].mean())  # three more
    report = export.verify(model, path, pixels32, raise_on_failure=False)
    assert (report.agreement, report.top1_agreement) == (13 / 16, None) and not report.ok
    said = f"Agreement at the threshold {threshold:g}: 0.812, required 1."
    assert said in " ".join(report.failures)
    assert export.verify(model, export.to_onnx(model, tmp_path / "same.onnx"), pixels32).agreement == 1
    assert ((export.load(path)(pixels32) > threshold).sum(), len(pixels32)) == (10, 16)


def test_verify_names_both_sizes_for_a_model_of_another_size(good: Path, pixels32: Any) -> None:
    other = build_nano(input_shape=(48, 64, 3))
    with pytest.raises(InvalidInputError, match=r"48 × 64 × 3 for the model.*32 × 32 × 3, for .*good.onnx"):
        export.verify(other, good, pixels32)


def test_load_reads_a_whole_h5_file(nano: Any, pixels32: Any, tmp_path: Path) -> None:
    nano.save(tmp_path / "whole.h5")
    assert export.verify(nano, tmp_path / "whole.h5", pixels32).max_abs_error < 1e-5
