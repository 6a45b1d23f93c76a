"""Distillation and Noisy Student: what is chosen, what is learned, whole runs on tiny networks, and bad input."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import slim_variant
from PIL import Image

from keras_effnet.cli import main
from keras_effnet.errors import InvalidInputError
from keras_effnet.network.variants import VARIANTS
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import Listing
from keras_effnet.train import RunFolder, Settings, train
from keras_effnet.train.unlabelled import choose

pytest.importorskip("sklearn")
pytest.importorskip("tensorboard")

SHADES = {"bright": 200, "dark": 60}


def _pictures(folder: Path, shade: int, count: int, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng((seed, shade))
    for index in range(count):
        pixels = np.clip(generator.normal(shade, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{shade}-{index}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`labelled/` with two classes, `more/` with both mixed and one that cannot be read."""
    root = tmp_path_factory.mktemp("data")
    for name, shade in SHADES.items():
        _pictures(root / "labelled" / name, shade, 6, seed=0)
        _pictures(root / "more", shade, 5, seed=1)
    (root / "more" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return root


@pytest.fixture(autouse=True)
def _slim(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of a single block goes by the name of `slim`, one of twice its filters by that of `wide`."""
    slim = slim_variant(1)
    monkeypatch.setitem(VARIANTS, "slim", slim)
    monkeypatch.setitem(VARIANTS, "wide", replace(slim, name="wide", width=2.0))


def _settings(data: Path, **own: Any) -> Settings:
    tiny = {
        "variant": "slim",
        "weights": None,
        "image_size": 32,
        "batch_size": 8,
        "epochs": 1,
        "augment": "none",
    }
    return Settings(data=str(data / "labelled"), **{**tiny, **own})


def _listing(count: int, classes: int = 2, split: int = 0) -> Listing:
    return Listing(
        root=Path("/nowhere"),
        files=[f"{index}.png" for index in range(count)],
        labels=(np.arange(count) % classes).astype(np.int32),
        splits=np.full(count, split, np.int8),
        classes=tuple("abcdef"[:classes]),
    )


def test_as_many_of_each_class_are_chosen_the_most_confident_first() -> None:
    said = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.55, 0.45], [0.3, 0.7]], np.float32)
    chosen = choose(said, 0.58)
    assert chosen.indices.tolist() == [0, 2, 4, 4]  # two of each: the mean of three and one
    assert chosen.figures(("a", "b")) == {
        "photographs": 5,
        "confident": 4,
        "kept": 3,
        "per_class": {
            "a": {"confident": 3, "kept": 2, "with_copies": 2},
            "b": {"confident": 1, "kept": 1, "with_copies": 2},
        },
    }
    assert choose(said, 0.95).indices.size == 0


@pytest.mark.parametrize(
    ("accuracy", "photographs", "as_good"),
    [(0.60, 50, True), (0.54, 50, False), (0.60, 2000, False), (0.62, 2000, True), (0.9, 2000, True)],
)
def test_student_is_as_good_when_validation_cannot_tell_it_from_the_best(
    accuracy: float, photographs: int, as_good: bool
) -> None:
    from keras_effnet.train.students import is_as_good

    assert (
        is_as_good(accuracy, 0.62, photographs) is as_good
    )  # a standard error is 0.069 of 50, 0.011 of 2,000


def test_every_batch_has_both_kinds_of_photographs_in_their_ratio(data: Path) -> None:
    from keras_effnet.train.lessons import Lessons

    said = np.tile(np.array([[0.8, 0.2], [0.36, 0.64]], np.float32), (15, 1))
    settings = _settings(data, unlabelled="more", unlabelled_ratio=3.0, temperature=2.0)
    lessons = Lessons(
        _listing(4), settings, unlabelled=_listing(30, split=-1), chosen=choose(said, 0.3), probabilities=said
    )
    assert not lessons.knows_head  # which has learned from the labelled ones alone
    order = lessons.order(np.random.default_rng(0))
    assert len(order) == len(lessons) == 40
    assert [int((part < 4).sum()) for part in np.split(order, 10)] == [1] * 10
    assert sorted(order[order >= 4]) == list(range(4, 34))  # each once; the four labelled ones come again
    assert np.bincount(order[order < 4]).tolist() in ([3, 3, 2, 2], *[list(p) for p in _orders()])
    rows = lessons.targets(np.array([1, 4, 5]))
    assert rows[0].tolist() == [0, 1, 0, 0]
    assert rows[1, 2:] == pytest.approx([2 / 3, 1 / 3])  # 0.8 : 0.2 softened to their roots
    assert rows[2, 2:] == pytest.approx([3 / 7, 4 / 7])


def test_few_photographs_without_labels_come_once_in_an_epoch(data: Path) -> None:
    from keras_effnet.train.lessons import Lessons

    said = np.tile(np.array([[0.8, 0.2], [0.36, 0.64]], np.float32), (2, 1))
    settings = _settings(data, unlabelled="more", unlabelled_ratio=3.0)
    lessons = Lessons(
        _listing(30), settings, unlabelled=_listing(4, split=-1), chosen=choose(said, 0.3), probabilities=said
    )
    assert sorted(lessons.order(np.random.default_rng(0))) == list(range(34))


def _orders() -> Any:
    from itertools import permutations

    return set(permutations([3, 3, 2, 2]))


def test_loss_is_the_mean_of_labels_and_softened_teacher() -> None:
    import keras

    from keras_effnet.train.lessons import TwoTargets

    logits = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, -3.0]])
    guessed = np.asarray(keras.ops.softmax(logits))
    labels, teacher = np.eye(3)[[0, 2]], np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    hard = -(labels * np.log(guessed)).sum(1)
    soft = -(teacher * np.asarray(keras.ops.log_softmax(logits / 4))).sum(1) * 16
    rows = np.concatenate([0.1 * labels, 0.9 * teacher], axis=1)
    found = float(TwoTargets(0.0, 4.0)(rows, guessed))
    assert found == pytest.approx(float(np.mean(0.1 * hard + 0.9 * soft)), rel=1e-5)
    plain = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    assert float(TwoTargets(0.1, 4.0)(labels, guessed)) == pytest.approx(
        float(plain(labels, guessed)), rel=1e-5
    )


def _teacher(classes: tuple[str, ...] = ("dark", "bright"), size: int = 16, asked: Any = None) -> Any:
    """It knows bright from dark."""
    from keras_effnet.train.lessons import Teacher

    def ask(pixels: Any) -> Any:
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == (size, size, 3)
        if asked is not None:
            asked.append(len(pixels))
        bright = pixels.mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - bright, bright], axis=1)

    return Teacher(name="eye", classes=classes, size=size, framing=Framing(margin=0), ask=ask)


def test_teacher_is_asked_about_the_picture_that_the_student_sees(data: Path) -> None:
    from keras_effnet.train.lessons import Lessons

    lessons = Lessons(
        _listing(2),
        _settings(data, teacher="eye", hard_labels=0.25),
        teacher=_teacher().of_classes(("bright", "dark")),
    )
    rows = lessons.targets(np.array([0, 1]))
    pixels = np.stack([np.full((32, 32, 3), value, np.float32) for value in (51, 204)])
    _, told = lessons.taught((pixels, rows))
    assert told == pytest.approx(np.array([[0.25, 0, 0.15, 0.6], [0, 0.25, 0.6, 0.15]]), abs=1e-5)


@pytest.mark.parametrize(
    ("classes", "received"),
    [
        (("dark", "light"), "'eye' of 2, without bright, with light"),
        (("dark",), "'eye' of 1, without bright"),
        ((), "'eye', which tells 2 apart"),
    ],
)
def test_teacher_of_other_classes_is_refused(classes: tuple[str, ...], received: str) -> None:
    ours = ("bright", "dark") if classes else ("a", "b", "c")
    with pytest.raises(InvalidInputError, match=r"Expected a teacher of the . classes") as told:
        _teacher(classes).of_classes(ours)
    assert received in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"unlabelled": "more", "epochs": 0}, "Expected epochs of fine-tuning"),
        ({"unlabelled": "more", "refit": True, "weights": "imagenet"}, "Leave --refit out"),
        ({"student": "b1"}, "Name the network with --model"),
        ({"temperature": 0.0}, "Expected temperature above 0"),
        ({"confidence": 1.5}, "Expected confidence to lie in"),
        ({"pseudo_labels": "firm"}, "Did you mean|one of soft, hard"),
    ],
)
def test_settings_of_students_that_contradict_each_other_are_refused(
    own: dict[str, Any], told: str, data: Path
) -> None:
    with pytest.raises(InvalidInputError, match=told):
        _settings(data, **own)


def test_killed_students_go_on_where_they_were(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    students = importlib.import_module("keras_effnet.train.students")
    run = importlib.import_module("keras_effnet.train.run")
    trained, fits, chosen = [], run.fine_tune, students.choose

    def fine_tune(model: Any, course: Any, checkpoint: Any, *rest: Any, **named: Any) -> None:
        if not checkpoint.finished:
            trained.append(checkpoint.folder.name)
        fits(model, course, checkpoint, *rest, **named)

    def killed(*given: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "fine_tune", fine_tune)
    monkeypatch.setattr(students, "choose", killed)
    settings = _settings(data, unlabelled=str(data / "more"), student="wide", student_augment="none")
    with pytest.raises(KeyboardInterrupt):
        train(RunFolder.create(tmp_path / "run", settings))
    monkeypatch.setattr(students, "choose", chosen)
    outcome = train(RunFolder.resume(tmp_path / "run"))
    assert trained == ["fine_tuning", "student_1"]
    told = outcome.metrics["students"]
    assert [row["round"] for row in told["rounds"]] == [0, 1]
    reached = [row["validation_accuracy"] for row in told["rounds"]]
    assert reached[told["kept"]] == outcome.metrics["validation"]["accuracy"]
    assert [row["variant"] for row in told["rounds"]] == ["slim", "wide"]
    assert outcome.metrics["model"]["variant"] == ["slim", "wide"][told["kept"]]
    assert told["rounds"][1]["unlabelled"]["photographs"] == 10
    assert [Path(row["file"]).name for row in outcome.metrics["data"]["skipped"]] == ["torn.jpg"]
    with (tmp_path / "run" / "student_1.csv").open() as stream:
        kept = list(csv.DictReader(stream))
    assert len(kept) == told["rounds"][1]["unlabelled"]["kept"] and {row["label"] for row in kept} <= set(
        SHADES
    )
    again = train(RunFolder.resume(tmp_path / "run"))  # a finished run is read, not trained
    assert len(trained) == 2 and again.metrics == outcome.metrics


def test_train_learns_from_an_exported_file(
    data: Path, tmp_path: Path, brightness: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    options = [
        "train", str(data / "labelled"), "--model", "slim", "--weights", "none", "--image-size", "32",
        "--epochs", "1", "--augment", "none", "--unfreeze", "top", "--teacher", str(brightness), "--temperature", "2", "--json", "--quiet",
    ]  # fmt: skip
    assert main([*options, "--out", str(tmp_path / "run")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["teacher"] == {
        "name": "brightness",
        "validation_accuracy": 0.5,
        "test_accuracy": 0.5,
    }  # never dark
    assert "Teacher: brightness" in (tmp_path / "run" / "report.html").read_text()
    # the same, but the pictures without labels are none that it is sure of
    unsure = ["--unlabelled", str(data / "more"), "--confidence", "0.999", "--out", str(tmp_path / "none")]
    assert main([*options, *unsure]) == 2
    error = capsys.readouterr().err
    assert "at least 0.999 confident. Received none" in error and error.count("\n") == 1
    assert not (tmp_path / "none" / "run.json").exists()  # with another --confidence the folder is free


def test_unlabelled_photographs_that_have_a_label_are_refused(data: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    _pictures(more, 60, 2, seed=5)
    (more / "copy.png").write_bytes((data / "labelled" / "dark" / "60-3.png").read_bytes())
    with pytest.raises(InvalidInputError, match="are not among the labelled ones") as told:
        train(RunFolder.create(tmp_path / "run", _settings(data, unlabelled=str(more))))
    assert "Received 1 that are" in str(told.value) and "dark/60-3.png" in str(told.value)
    assert not (tmp_path / "run" / "run.json").exists()


def test_unlabelled_folder_without_a_readable_picture_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(data / "labelled"), "--model", "slim", "--weights", "none", "--unfreeze", "top"]
    command += ["--out", str(tmp_path / "run")]
    (tmp_path / "empty").mkdir()
    assert main([*command, "--unlabelled", str(tmp_path / "empty")]) == 2
    assert "which holds none" in capsys.readouterr().err
    (tmp_path / "empty" / "torn.png").write_bytes(b"no picture")
    with pytest.raises(InvalidInputError, match=r"to learn from without labels\. Received: 1 that"):
        train(RunFolder.create(tmp_path / "run", _settings(data, unlabelled=str(tmp_path / "empty"))))
    with (tmp_path / "run" / "skipped.csv").open() as stream:
        assert Path(next(csv.DictReader(stream))["file"]).name == "torn.png"


def test_first_network_is_kept_when_no_photograph_is_confident(data: Path, tmp_path: Path) -> None:
    from keras_effnet.system.progress import Progress
    from keras_effnet.train.batches import Course
    from keras_effnet.train.results import reason_for_result
    from keras_effnet.train.students import noisy_students

    class Model:
        def predict_on_batch(self, pixels: Any) -> Any:
            return np.full((len(pixels), 2), 0.5, np.float32)

    class Trainer:
        settings = _settings(data, unlabelled=str(data / "more"), confidence=0.6, rounds=2)
        folder = RunFolder.create(tmp_path / "run", settings)
        progress, size, framing = Progress(quiet=True), 32, Framing()

        def use(self, settings: Settings) -> None:
            self.settings = settings

        def network(self, course: Course, phase: str) -> Model:
            return Model()

        def course(self, listing: Listing) -> Course:
            return Course(listing)

        def class_weights(self, listing: Listing) -> None:
            return None

        def accuracies(self, model: Any, listing: Listing) -> dict[str, float]:
            return {"validation_accuracy": 0.5}

    more = replace(_listing(3, split=-1), root=data / "more", files=[f"60-{index}.png" for index in range(3)])
    noisy_students(Trainer(), _listing(4, split=1), more, None)
    told = Trainer.folder.read_json("work/students.json")
    assert (told["kept"], len(told["rounds"])) == (0, 1)
    assert (
        reason_for_result({"students": told})
        == "the first network: it got 0.500 of the validation photographs right"
    )
