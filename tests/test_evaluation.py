"""Figures from scores and labels, and the comparison of two classifiers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from keras_effnet.errors import InvalidInputError
from keras_effnet.evaluation import drawings
from keras_effnet.evaluation.comparison import difference, interval_of
from keras_effnet.evaluation.measures import calibration_error, judge, measure, reliability

pytest.importorskip("sklearn")

SCORES = np.array(
    [
        [0.7, 0.1, 0.1, 0.1, 0.0, 0.0],
        [0.1, 0.6, 0.1, 0.1, 0.1, 0.0],
        [0.4, 0.3, 0.2, 0.1, 0.0, 0.0],
        [0.2, 0.2, 0.2, 0.2, 0.2, 0.0],
    ],
    np.float32,
)
LABELS = np.array([0, 1, 1, 5])


def test_measure_counts_what_two_lines_of_arithmetic_say() -> None:
    figures = measure(judge(SCORES, LABELS), "abcdef")
    assert figures["accuracy"] == 0.5 and figures["top5"] == 0.75 and figures["photographs"] == 4
    assert figures["mean_per_class"] == pytest.approx((1 + 0.5 + 0) / 3)  # of the classes with photographs
    assert figures["per_class"]["a"] == {
        "precision": pytest.approx(1 / 3),
        "recall": 1.0,
        "f1": 0.5,
        "photographs": 1,
    }
    assert figures["confusion_matrix"][1] == [1, 1, 0, 0, 0, 0]
    assert figures["loss"] == pytest.approx(-np.log([0.7, 0.6, 0.3, 2**-23]).mean(), rel=1e-5)


def test_judge_breaks_ties_as_argmax_does() -> None:
    """An int8 file has 256 levels, and equal scores are common."""
    ties = np.full((3, 6), 1 / 6, np.float32)
    judged = judge(ties, np.array([0, 4, 5]))
    assert judged.guesses.tolist() == [0, 0, 0] and judged.ranks.tolist() == [0, 4, 5]
    assert judged.top(1) == pytest.approx(1 / 3) and judged.top(5) == pytest.approx(2 / 3)


def test_calibration_error_is_the_weighted_distance_of_the_bins() -> None:
    """Two bins of 15: .7 (1 of 1 right), and .4 of which none is; and .2, .6 of which the latter is right."""
    wanted = (0.3 + 0.4 + 0.4 + 0.2) / 4
    assert calibration_error(LABELS, SCORES) == pytest.approx(wanted)
    one_bin = abs((0.7 + 0.6 + 0.4 + 0.2) / 4 - 0.5)
    assert calibration_error(LABELS, SCORES, bins=1) == pytest.approx(one_bin)


def test_calibration_error_is_none_where_a_classifier_is_right_as_often_as_it_is_sure() -> None:
    scores = np.tile(np.array([[0.75, 0.25]], np.float32), (4, 1))
    assert calibration_error(np.array([0, 0, 0, 1]), scores) == 0
    certain = np.eye(2, dtype=np.float32)
    assert (
        calibration_error(np.array([0, 1]), certain) == 0
        and calibration_error(np.array([1, 0]), certain) == 1
    )
    assert reliability(judge(certain, np.array([0, 1]))).counts.tolist() == [0] * 14 + [2]


def test_judge_names_both_shapes_when_labels_and_scores_do_not_fit() -> None:
    with pytest.raises(InvalidInputError, match=r"Received: \[4, 6\] and \[3\]"):
        judge(SCORES, LABELS[:3])
    with pytest.raises(InvalidInputError, match=r"from 0 to 5.*Received: 0 to 6"):
        judge(SCORES, np.array([0, 1, 2, 6]))


def test_difference_counts_pairs_and_its_interval_agrees_with_the_exact_test() -> None:
    truth = np.zeros(200, np.int32)
    first, second = np.zeros((200, 2), np.float32), np.zeros((200, 2), np.float32)
    first[:, 0], second[:, 0] = 1, 1
    first[:12], second[12:14] = (
        (0, 1),
        (0, 1),
    )  # 12 that only the second gets right, 2 that only the first does
    found = difference(judge(first, truth), judge(second, truth))
    assert (found.only_first, found.only_second) == (2, 12) and found.difference == 0.05
    assert found.p_value == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert 0 < found.low < 0.05 < found.high < 0.1 and found.same_guess == 0.93
    same = difference(judge(first, truth), judge(first, truth))
    assert same.difference == 0 and same.p_value == 1 and same.low < 0 < same.high < 0.02


def test_difference_needs_the_same_photographs() -> None:
    with pytest.raises(InvalidInputError, match="same photographs"):
        difference(judge(SCORES, LABELS), judge(SCORES, LABELS[::-1]))


def test_interval_holds_the_share_and_does_not_end_at_all() -> None:
    low, high = interval_of(judge(SCORES, LABELS))
    assert low == pytest.approx(0.15, abs=0.01) and high == pytest.approx(0.85, abs=0.01)
    perfect = interval_of(judge(np.eye(3, dtype=np.float32), np.arange(3)))
    assert perfect[0] < 0.5 and perfect[1] == 1


def test_drawings_show_every_bin_and_the_worst_first() -> None:
    judged = judge(SCORES, LABELS)
    assert drawings.worst_mistakes(judged).tolist() == [2, 3]
    svg = drawings.reliability_diagram("How sure, how often right", reliability(judged))
    assert svg.startswith("<svg") and len(re.findall("<path", svg)) > 4
    drawings.confusion(np.array(measure(judged, "abcdef")["confusion_matrix"]), "abcdef")
