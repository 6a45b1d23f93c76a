"""Softmax, one sigmoid, several: losses, what counts as right, and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_effnet.errors import InvalidInputError
from keras_effnet.evaluation.several import best_threshold, measure_several
from keras_effnet.pictures.listing import Listing, read_listing
from keras_effnet.train.answers import Labelled, Sigmoids, judged_by
from keras_effnet.train.head import Lesson, solve_head
from keras_effnet.train.settings import SIGMOID, SIGMOIDS, SOFTMAX, Settings
from keras_effnet.train.splits import photo_weights, split_listing

pytest.importorskip("sklearn")


def _listing(labels: list[int], classes: int = 3) -> Listing:
    return Listing(
        root=Path(),
        files=[f"{index}.png" for index in range(len(labels))],
        labels=np.array(labels, np.int32),
        splits=np.zeros(len(labels), np.int8),
        classes=tuple("abcdef"[:classes]),
    )


@pytest.mark.parametrize("focal", [0.0, 2.0])
def test_loss_of_sigmoids_is_kerass_and_one_sigmoid_reads_the_second_class(focal: float) -> None:
    said = np.array([[0.9, 0.2], [0.4, 0.7]], np.float32)
    true = np.array([[1, 0], [1, 1]], np.float32)
    own = Sigmoids(focal, 0.0)(true, said)
    probability = np.where(true == 1, said, 1 - said)
    assert float(own) == pytest.approx(
        float((-((1 - probability) ** focal) * np.log(probability)).mean()), rel=1e-4
    )
    alone = Sigmoids(focal, 0.0)(true, said[:, 1:])
    second = (-((1 - probability) ** focal) * np.log(probability))[:, 1]
    assert float(alone) == pytest.approx(float(second.mean()), rel=1e-4)


def test_focal_loss_of_a_softmax_leaves_what_is_right_already_alone() -> None:
    course = Labelled(_listing([0, 1, 2]), Settings(data="", focal=2.0), SOFTMAX)
    true, said = np.eye(3, dtype=np.float32), np.array([[0.8, 0.1, 0.1]] * 3, np.float32)
    found = np.asarray(course.loss(0.0).call(true, said))
    assert found == pytest.approx(-((1 - said[0]) ** 2) * np.log(said[0]), rel=1e-4)


def test_balanced_sampling_draws_every_class_equally_often_and_all_of_the_smallest() -> None:
    listing = _listing([0] * 20 + [1] * 3 + [2] * 7)
    course = Labelled(listing, Settings(data="", balanced_sampling=True), SOFTMAX)
    drawn = course.order(np.random.default_rng(0))
    assert np.bincount(listing.labels[drawn]).tolist() == [10, 10, 10]
    assert len(set(drawn[listing.labels[drawn] == 0])) == 10
    assert set(drawn[listing.labels[drawn] == 1]) == {20, 21, 22}
    assert course.order(np.random.default_rng(0)).tolist() == drawn.tolist()


def test_head_of_sigmoids_solves_each_column(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    marks = generator.random((300, 3)) < 0.4
    rows = (marks @ np.eye(3, 8) * 3 + generator.normal(0, 0.5, (300, 8))).astype(np.float32)
    lesson = Lesson(views=[rows[:200]], labels=marks[:200], validation=(rows[200:], marks[200:]))
    kernel, bias, _ = solve_head(lesson, 3)
    assert (kernel.shape, bias.shape) == ((8, 3), (3,))
    assert ((rows[200:] @ kernel + bias > 0) == marks[200:]).mean() > 0.97
    single = Lesson(views=[rows[:200]], labels=marks[:200, :1], validation=(rows[200:], marks[200:, :1]))
    assert np.allclose(solve_head(single, 1)[0], kernel[:, :1], atol=0.3)


def test_list_with_several_labels_marks_each_and_splits_by_the_rarest(tmp_path: Path) -> None:
    text = ["file,label"] + [f"{index}.png,{'cat|dog' if index % 5 else 'dog | fish'}" for index in range(40)]
    (tmp_path / "list.csv").write_text("\n".join(text), encoding="utf-8")
    listing = read_listing(tmp_path / "list.csv")
    assert listing.classes == ("cat", "dog", "fish") and listing.told(0) == "dog|fish"
    assert listing.counts().tolist() == [32, 40, 8]
    assert set(listing.labels) == {0, 2}
    split = split_listing(listing, validation=0.2, test=0.2, seed=0)
    assert (split.counts("validation") > 0).all() and (split.counts("test") > 0).all()
    assert photo_weights(split)[split.labels[split.of("train")] == 2].min() > 1
    assert read_listing(tmp_path / "list.csv", several=False).classes == ("cat|dog", "dog | fish")
    assert read_listing(tmp_path / "list.csv", ["dog", "fish"]).counts().tolist() == [40, 8]


def test_figures_of_several_labels_are_what_can_be_counted_by_hand() -> None:
    marks = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], bool)
    said = np.array([[0.9, 0.1], [0.3, 0.8], [0.6, 0.7], [0.2, 0.75]])
    found = measure_several(said, marks, ["a", "b"], [0.25, 0.78])
    assert found["accuracy"] == 6 / 8 and found["exact"] == 3 / 4
    assert (
        found["per_class"]["a"]["precision"] == pytest.approx(2 / 3)
        and found["per_class"]["a"]["recall"] == 1
    )
    assert found["per_class"]["a"]["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["mean_average_precision"] == pytest.approx(((1 + 2 / 3) / 2 + (1 + 2 / 3) / 2) / 2)
    assert best_threshold(said[:, 0], marks[:, 0]) == pytest.approx(0.25)
    assert best_threshold(said[:, 0], np.zeros(4, bool)) == 0.5


def test_judged_several_labels_are_a_decision_for_each_class() -> None:
    listing = _listing([0, 1], 2)
    both = Listing(**{**vars(listing), "marks": np.array([[True, False], [True, True]])})
    judged = judged_by(np.array([[0.9, 0.4], [0.2, 0.8]], np.float32), both, np.arange(2))
    assert judged.right.tolist() == [True, True, False, True]
    assert judged.confidences.tolist() == pytest.approx([0.9, 0.6, 0.8, 0.8])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"answers": "tanh"}, "answers"),
        ({"focal": -1.0}, "focal of at least 0"),
        ({"wanted_precision": 1.5}, "wanted_precision above 0, at most 1"),
        ({"teacher": "b0", "answers": SIGMOIDS}, "a softmax and cross-entropy to learn from a teacher"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Settings(data="", **wrong)


def test_accuracy_of_sigmoids_counts_decisions() -> None:
    course = Labelled(_listing([0, 1], 2), Settings(data=""), SIGMOID)
    metric = course.accuracy()
    metric.update_state(
        keras.ops.convert_to_tensor([[1.0, 0.0], [0.0, 1.0]]), keras.ops.convert_to_tensor([[0.3], [0.4]])
    )
    assert float(metric.result()) == 0.5
