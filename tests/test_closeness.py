"""Each kind of output has a criterion that a damaged file misses and a good one passes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import keras
import numpy as np
import pytest
from material import build_nano, exported, randomize

from keras_effnet import export
from keras_effnet.errors import ExportError, InvalidInputError, VerificationError
from keras_effnet.export.kinds import CLASSES, SIGMOID, SIGMOIDS
from keras_effnet.export.kinds import LOGITS as SCORES
from keras_effnet.export.model_facts import facts_of
from keras_effnet.export.outputs import Output
from keras_effnet.export.quantization import accuracy
from keras_effnet.export.quantization.fold import fold
from keras_effnet.export.quantization.prepare import prepare
from keras_effnet.export.report import render, write_reports
from keras_effnet.export.targets import FEATURES, FLOAT32, INTEGER, ONE_SIGMOID, Tolerance
from keras_effnet.export.verification import Report, compare

COUNT = 60
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 4, (COUNT, 10)).astype(np.float32)


class _Artefact:
    """One whose outputs are known; the first number of a picture says which."""

    path, recipe, dynamic_batch = Path("m.tflite"), "int8", False

    def __init__(self, outputs: Any) -> None:
        self.outputs = outputs

    def __call__(self, pixels: Any) -> Any:
        places = pixels[:, 0, 0, 0]
        if isinstance(self.outputs, dict):
            return {name: values[places] for name, values in self.outputs.items()}
        return self.outputs[places]


def judged(kind: str, reference: Any, values: Any, tolerance: Tolerance = INTEGER) -> Report:
    numbers = np.arange(len(reference)).reshape(-1, 1, 1, 1)
    outputs = [Output(name="probabilities", kind=kind)]
    return compare(cast(Any, _Artefact(values)), reference, numbers, tolerance, outputs)


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


def noisy(values: Any, decibels: float) -> Any:
    noise = RNG.normal(0, 1, values.shape).astype(np.float32)
    each = tuple(range(1, values.ndim))
    power = np.sqrt(np.mean(values**2, axis=each, keepdims=True) / 10 ** (decibels / 10))
    return values + noise * power


SPARSE = sigmoid(LOGITS - 8)  # hardly anything is a yes
EMBEDDINGS = np.abs(RNG.normal(1, 1, (COUNT, 64))).astype(np.float32)
MAPS = RNG.normal(0, 1, (COUNT, 4, 4, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "reference", "values", "missed"),
    [
        ("classes", softmax(LOGITS), softmax(LOGITS + 0.01), ""),
        ("classes", softmax(LOGITS), softmax(LOGITS[:, ::-1]), "Top-1 agreement"),
        ("classes", softmax(LOGITS), softmax(0 * LOGITS), "Top-1 agreement"),
        ("logits", LOGITS, noisy(LOGITS, 30), ""),
        ("logits", LOGITS, LOGITS[:, ::-1], "Top-1 agreement .*If these are features.*kinds='embedding'"),
        ("logits", LOGITS, LOGITS * 3, "^SQNR -6.0 dB, required 10 dB"),
        ("logits", LOGITS[:, :1], noisy(LOGITS[:, :1], 30), ""),
        ("logits", LOGITS[:, :1], -LOGITS[:, :1], "^Agreement at the threshold 0: 0.000, required 0.95"),
        ("sigmoid", sigmoid(LOGITS[:, :1]), sigmoid(LOGITS[:, :1] + 0.01), ""),
        ("sigmoid", sigmoid(LOGITS[:, :1]), 0 * LOGITS[:, :1] + 0.9, "^Largest error .*threshold 0.5: 0"),
        ("sigmoid", 0.6 + 0.4 * sigmoid(LOGITS[:, :1]), 0 * LOGITS[:, :1] + 0.55, "^Largest error 0.45"),
        ("sigmoids", sigmoid(LOGITS), sigmoid(LOGITS + 0.01), ""),
        ("sigmoids", SPARSE, sigmoid(LOGITS - 8.01), ""),
        ("sigmoids", SPARSE, 0 * SPARSE, "^Agreement of the decisions at the threshold 0.5: 0.500"),
        ("embedding", EMBEDDINGS, noisy(EMBEDDINGS, 20), ""),
        ("embedding", EMBEDDINGS, 0 * EMBEDDINGS + EMBEDDINGS.mean(axis=0), "nearest neighbour 0.0"),
        ("embedding", EMBEDDINGS, noisy(EMBEDDINGS, 2), "^Median SQNR of a picture .*Mean cosine 0.[78]"),
        ("embedding", EMBEDDINGS, np.roll(EMBEDDINGS, 1, axis=1), "nearest neighbour|Mean cosine"),
        ("map", MAPS, noisy(MAPS, 20), ""),
        ("map", MAPS, np.roll(MAPS, 1, axis=1), "^Median SQNR"),
        ("map", MAPS, MAPS[:, ::-1], "^Median SQNR"),
    ],
)
def test_integer_file_is_judged_by_what_its_output_is(
    kind: str, reference: Any, values: Any, missed: str
) -> None:
    report = judged(kind, reference.astype(np.float32), values.astype(np.float32))
    if missed:
        assert not report.ok
        pattern = pytest.raises(VerificationError, match=missed.removeprefix("^"))
        with pattern:
            report.raise_if_failed()
        if missed.startswith("^"):
            assert report.failures[0].startswith(
                missed[1:].split(" .*", maxsplit=1)[0].split(",", maxsplit=1)[0]
            )
    else:
        assert report.failures == ()


def test_embedding_with_destroyed_pictures_fails_where_the_sum_over_all_would_pass() -> None:
    """A tenth of the pictures, which are faint, says something else: the sum hardly notices."""
    reference = EMBEDDINGS * np.where(np.arange(COUNT) % 10 == 0, 0.05, 1)[:, None]
    values = noisy(reference, 20)
    values[::10] = reference[::10, ::-1] * 0.5
    report = judged("embedding", reference, values)
    (found,) = report.outputs
    assert found.sqnr_db > 18 and found.median_sqnr_db > 18 and found.low_sqnr_db < 3
    assert any(sentence.startswith("5th percentile of the SQNR of a picture") for sentence in report.failures)


def test_report_tells_the_distribution_and_the_worst_pictures() -> None:
    values = noisy(EMBEDDINGS, 30)
    values[17] = noisy(EMBEDDINGS[17:18], 5)[0]
    values[3] = noisy(EMBEDDINGS[3:4], 10)[0]
    (found,) = judged("embedding", EMBEDDINGS, values).outputs
    assert [place for place, _ in found.worst_pictures[:2]] == [17, 3]
    assert found.worst_sqnr_db == found.worst_pictures[0][1] == pytest.approx(5, abs=2)
    assert found.worst_sqnr_db < found.low_sqnr_db < found.median_sqnr_db == pytest.approx(30, abs=1)
    assert judged("embedding", EMBEDDINGS, EMBEDDINGS).outputs[0].worst_pictures == ()


@pytest.mark.parametrize(
    ("kind", "columns", "top1", "agreement"),
    [
        ("classes", 10, 1.0, 1.0),
        ("logits", 10, 1.0, 1.0),
        ("logits", 1, None, 1.0),
        ("sigmoid", 1, None, 1.0),
        ("sigmoids", 10, None, 1.0),
        ("embedding", 10, None, None),
    ],
)
def test_top1_agreement_is_null_where_there_is_no_best_class(
    kind: str, columns: int, top1: float | None, agreement: float | None
) -> None:
    values = LOGITS[:, :columns] if kind in ("logits", "embedding") else softmax(LOGITS)[:, :columns]
    row = judged(kind, values, values).row()
    assert (row["top1_agreement"], row["agreement"], row["sqnr_db"]) == (top1, agreement, None)
    assert row["outputs"][0]["kind"] == kind and row["outputs"][0]["median_sqnr_db"] is None


def test_several_outputs_are_judged_each_and_the_report_has_the_worst_figures() -> None:
    reference = {"good": softmax(LOGITS), "bad": softmax(LOGITS), "features": EMBEDDINGS}
    values = reference | {"bad": softmax(LOGITS[:, ::-1]), "features": noisy(EMBEDDINGS, 25)}
    outputs = [
        Output(name="good", kind="classes"),
        Output(name="bad", kind="classes"),
        Output(name="features", kind="embedding"),
    ]
    numbers = np.arange(COUNT).reshape(-1, 1, 1, 1)
    report = compare(cast(Any, _Artefact(values)), reference, numbers, INTEGER, outputs)
    assert report.top1_agreement == report.agreement == report.outputs[1].agreement
    assert report.outputs[1].agreement is not None and report.outputs[1].agreement < 0.5
    assert report.outputs[0].agreement == 1.0
    assert report.failures and all(sentence.startswith("bad: ") for sentence in report.failures)


def test_swapped_outputs_are_found() -> None:
    reference = {"a": softmax(LOGITS), "b": softmax(-LOGITS)}
    swapped = {"a": reference["b"], "b": reference["a"]}
    numbers = np.arange(COUNT).reshape(-1, 1, 1, 1)
    assert not compare(cast(Any, _Artefact(swapped)), reference, numbers, FLOAT32).ok


@pytest.mark.parametrize(
    ("tolerance", "kind", "asked"),
    [
        (INTEGER, "classes", INTEGER),
        (INTEGER, "sigmoid", ONE_SIGMOID),
        (INTEGER.at_least(0.99), "sigmoid", Tolerance(top1_agreement=0.99, max_abs_error=0.3)),
        (INTEGER, "embedding", FEATURES),
        (INTEGER, "map", FEATURES),
        (FLOAT32, "embedding", Tolerance(max_abs_error=1e-4)),
        (Tolerance(sqnr_db=20.0), "map", Tolerance(sqnr_db=20.0)),
    ],
)
def test_tolerance_of_a_target_asks_what_means_something(
    tolerance: Tolerance, kind: str, asked: Tolerance
) -> None:
    assert tolerance.of_kind(Output(name="x", kind=kind).meaning) == asked


@pytest.fixture(scope="module")
def features() -> Any:
    base = build_nano()
    return keras.Model(base.input, base.get_layer("avg_pool").output, name="features")


def test_tolerance_that_says_nothing_of_an_output_is_refused(
    features: Any, pixels32: Any, tmp_path: Path
) -> None:
    path = export.to_onnx(features, tmp_path / "f.onnx")
    with pytest.raises(InvalidInputError, match=r"a tolerance that says something of 'probabilities', embed"):
        export.verify(features, path, pixels32, tolerance=Tolerance(top1_agreement=1.0))


def test_min_agreement_of_features_is_refused_with_the_reason(features: Any, pixels32: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"output that decides something.*embedding alone.*Leave it"):
        prepare(features, pixels32, min_agreement=0.9)


def test_min_agreement_counts_every_output_that_decides(pixels32: Any) -> None:
    base = build_nano()
    pooled = base.get_layer("avg_pool").output
    tags = keras.layers.Dense(4, "sigmoid", name="tags")(pooled)
    model = keras.Model(base.input, {"tags": tags, "classes": base.output, "features": pooled})
    randomize(model)
    assert prepare(model, pixels32, min_agreement=0.1).agreement is not None
    with pytest.raises((ExportError, InvalidInputError)):
        prepare(model, pixels32, min_agreement=1.1)


@pytest.mark.parametrize(
    ("kinds", "columns", "said"),
    [
        (
            (SIGMOID,),
            1,
            r"110.0% agreement of yes and no, 18 of 16 held-out photographs. Reached \d.*of them,",
        ),
        ((SIGMOIDS,), 3, r"110.0% agreement of yes and no\. Reached \d+.\d% with"),
        ((SCORES,), 3, "110.0% top-1 agreement, 18 of 16"),
        ((SCORES, SIGMOID), 1, "110.0% agreement of yes and no, 18 of 16"),
        ((CLASSES, SIGMOIDS), 3, r"110.0% agreement of the decisions\. "),
    ],
)
def test_agreement_that_is_not_reached_is_called_by_what_the_outputs_are(
    kinds: Any, columns: int, said: str, pixels32: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    goals = [RNG.normal(0, 1, (16, columns)).astype(np.float32) for _ in kinds]
    told = {"reference": fold(build_nano()), "floats": frozenset(), "results": lambda *_, **__: goals}
    monkeypatch.setattr(accuracy, "sensitivity", lambda _: accuracy.Sensitivity(sqnr_db={}))
    with pytest.raises(ExportError, match=said):
        accuracy.lift_until(SimpleNamespace(**told), pixels32, 1.1, kinds)


def test_what_people_say_of_an_output_counts_at_export_and_verification(
    features: Any, pixels32: Any, tmp_path: Path
) -> None:
    path = export.to_onnx(features, tmp_path / "f.onnx", kinds="logits")
    assert export.load(path).info.outputs[0].kind == "logits"
    assert export.verify(features, path, pixels32).top1_agreement == 1.0
    report = export.verify(features, path, pixels32, kinds="embedding")
    assert (report.top1_agreement, report.outputs[0].same_neighbour) == (None, 1.0)


def test_verify_names_the_outputs_of_another_model(features: Any, pixels32: Any, tmp_path: Path) -> None:
    both = keras.Model(features.input, {"a": features.output, "b": features.output})
    path = export.to_onnx(both, tmp_path / "b.onnx")
    with pytest.raises(InvalidInputError, match=r"the outputs probabilities, as the model has.*a, b"):
        export.verify(features, path, pixels32)
    renamed = keras.Model(features.input, {"a": features.output, "c": features.output})
    with pytest.raises(InvalidInputError, match=r"the outputs a, c, as the model has. Received: a, b"):
        export.verify(renamed, path, pixels32)


def test_report_files_show_every_output_and_the_worst_pictures(pixels32: Any, tmp_path: Path) -> None:
    base = build_nano()
    made = {"classes": base.output, "features": base.get_layer("avg_pool").output}
    both = keras.Model(base.input, made, name="both")
    artefacts = exported(both, tmp_path, pixels32, "tflite:int8", "saved_model")
    report = write_reports(artefacts, tmp_path)
    quantized, saved = report["artifacts"]
    assert "pictures" not in quantized and saved["outputs"][0]["worst_sqnr_db"] is None
    assert [output["name"] for output in quantized["outputs"]] == ["classes", "features"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/jpeg;base64,') == 6 and page.count("src=") == 6
    assert "<b>features</b>: embedding (features of the picture)." in page and "5th percentile" in page
    assert page.count("<svg") == 5
    old = {key: value for key, value in quantized.items() if key not in ("outputs", "agreement")}
    assert "<svg" in render(report | {"artifacts": [old]})  # a row of an earlier version


def test_weights_that_are_no_numbers_are_refused(pixels32: Any, tmp_path: Path) -> None:
    model = build_nano()
    gamma = model.get_layer("stem_bn").gamma
    gamma.assign([np.nan, *np.ones(6), np.inf])
    with pytest.raises(InvalidInputError, match=r"NaN or infinity in 'stem_bn/gamma', 2 of 8 values"):
        export.to_tflite(model, tmp_path / "x.tflite")
    assert not list(tmp_path.iterdir())


class Noisy(keras.layers.Layer):
    """Noise that does not ask whether it trains."""

    def call(self, x: Any) -> Any:
        return x * keras.random.uniform(keras.ops.shape(x), 0.5, 1.5)


def test_model_that_changes_its_answer_is_refused(features: Any, pixels32: Any, tmp_path: Path) -> None:
    model = keras.Model(features.input, Noisy(name="shaken")(features.output), name="restless")
    with pytest.raises(
        InvalidInputError, match=r"same answer.*'restless', which does not; it has 'shaken', a N"
    ):
        export.to_tflite(model, tmp_path / "x.tflite")
    with pytest.raises(InvalidInputError, match=r"same answer for the same picture. Received: 'restless'"):
        export.verify(model, export.to_onnx(features, tmp_path / "f.onnx"), pixels32)


def test_dropout_of_tf_keras_that_is_told_to_train_is_refused(tmp_path: Path) -> None:
    layers = pytest.importorskip("tf_keras").layers
    image = layers.Input((32, 32, 3))
    x = layers.Dropout(0.5, name="always")(layers.GlobalAveragePooling2D()(image), training=True)
    model = __import__("tf_keras").Model(image, layers.Dense(3)(x), name="uncertain")
    with pytest.raises(InvalidInputError, match=r"'always', a Dropout called with training=True. Build it"):
        facts_of(model)


def test_dropout_of_keras_that_is_told_to_train_stays_silent_as_in_predict(pixels32: Any) -> None:
    """Keras 3 passes `training=False` on to it, so nothing changes."""
    base = build_nano()
    dropped = keras.layers.Dropout(0.5)(base.get_layer("avg_pool").output, training=True)
    assert facts_of(keras.Model(base.input, dropped)).outputs[0].kind == "embedding"
