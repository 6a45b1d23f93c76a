"""The comparison finds what it must find."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from material import build_nano

from keras_effnet import export
from keras_effnet.errors import InvalidInputError, VerificationError
from keras_effnet.export.targets import FLOAT16, INTEGER, TARGETS, Tolerance, tolerance_of
from keras_effnet.export.verify import compare


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
    from keras_effnet.export.verify import compare

    runner = load(good)
    sizes: list[int] = []
    reference = nano.predict(pixels32, verbose=0)
    inner = runner.run

    def spy(pixels: Any) -> Any:
        sizes.append(len(pixels))
        return inner(pixels) + (0.5 if len(pixels) == 3 else 0.0)

    object.__setattr__(runner, "run", spy)
    report = compare(runner, reference, pixels32, FLOAT32)
    assert sizes == [8, 8, 3] and not report.ok and report.max_abs_error == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("images", [None, 5, "photos"])
def test_verify_says_what_it_wants_instead_of_pictures(nano: Any, good: Path, images: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"photographs to verify on.*Received: .*Read them with"):
        export.verify(nano, good, images)


def test_report_survives_json(nano: Any, good: Path, pixels32: Any) -> None:
    fields = json.loads(export.verify(nano, good, pixels32).to_json())
    assert {"ok", "top1_agreement", "sqnr_db", "max_abs_error", "mean_cosine", "failures"} <= set(fields)


@pytest.mark.parametrize(
    ("agreement", "images", "remark"),
    [
        (7 / 8, 8, " 8 pictures are few to judge a share by: verify on 52 or more."),
        (50 / 53, 53, ""),
        (0.949, 1000, ""),
    ],
)
def test_integer_file_fails_below_the_agreement_that_is_promised(
    agreement: float, images: int, remark: str
) -> None:
    from keras_effnet.export.verify import _missed

    figures = {"max_abs_error": 0.3, "sqnr_db": 20.0, "mean_cosine": 1.0, "top1_agreement": agreement}
    assert _missed(figures, INTEGER, images) == [f"Top-1 agreement {agreement:.3f}, required 0.95.{remark}"]


def test_integer_file_passes_with_the_agreement_that_is_promised() -> None:
    from keras_effnet.export.verify import _missed

    figures = {"max_abs_error": 0.3, "sqnr_db": 20.0, "mean_cosine": 1.0}
    for agreement, images in ((1.0, 8), (0.95, 20), (0.96, 1000)):
        assert not _missed({**figures, "top1_agreement": agreement}, INTEGER, images)
    assert _missed({**figures, "top1_agreement": 0.99}, Tolerance(top1_agreement=1.0), 100)


class _Answers:
    """Stands for an open integer file with these outputs."""

    path, recipe, dynamic_batch = Path("m.tflite"), "int8", False

    def __init__(self, outputs: Any) -> None:
        self._outputs = iter(np.split(outputs, range(8, len(outputs), 8)))

    def __call__(self, pixels: Any) -> Any:
        return next(self._outputs)


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
    report = compare(_Answers(outputs), reference, np.zeros((images, 1)), Tolerance(top1_agreement=0.95))
    assert (report.ok, report.near_ties, report.top1_agreement) == (ok, near_ties, 0.75)


@pytest.mark.parametrize(
    ("agreeing", "images", "shown"),
    [(8, 8, 0.747), (7, 8, 0.589), (52, 52, 0.951), (99, 100, 0.956), (0, 8, 0.0)],
)
def test_few_pictures_show_little_of_an_agreement(agreeing: int, images: int, shown: float) -> None:
    from keras_effnet.export.verify import shown_agreement

    assert shown_agreement(agreeing / images, images) == pytest.approx(shown, abs=6e-4)


def test_every_target_is_judged_by_what_it_stores() -> None:
    tolerances = {name: target.tolerance for name, target in TARGETS.items()}
    exact = ("saved_model", "tflite:float32", "onnx:float32")
    assert {tolerances.pop(name) for name in exact} == {Tolerance(max_abs_error=1e-4, top1_agreement=1.0)}
    assert {tolerances.pop(name) for name in ("tflite:float16", "onnx:float16")} == {FLOAT16}
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
