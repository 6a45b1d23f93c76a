"""`keras-effnet verify`: what it prints says no more than was seen."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from keras_effnet.commands.verify import show
from keras_effnet.export.closeness import Closeness
from keras_effnet.export.verification import Report


def _closeness(**told: Any) -> Closeness:
    """Of one output of seven classes; what is told here is what `verify` reads."""
    plain = {field.name: 0 for field in fields(Closeness)} | {"worst_pictures": (), "same_neighbour": None}
    return Closeness(**plain | {"name": "probabilities", "kind": "classes", "columns": 7} | told)


def _report(agreeing: int, images: int, recipe: str = "int8", near_ties: int = 0) -> Report:
    return Report(
        file="m.tflite",
        recipe=recipe,
        images=images,
        top1_agreement=agreeing / images,
        agreement=agreeing / images,
        sqnr_db=24.0,
        max_abs_error=0.01,
        mean_cosine=0.999,
        near_ties=near_ties,
        outputs=(_closeness(agreement=agreeing / images, judged_by=images),),
        failures=(),
    )


@pytest.mark.parametrize(
    ("agreeing", "images", "shown"), [(8, 8, "69%"), (59, 59, "95%"), (99, 100, "95%"), (200, 200, "99%")]
)
def test_verify_says_what_its_photographs_show_of_an_integer_file(
    agreeing: int, images: int, shown: str, capsys: Any
) -> None:
    show([_report(agreeing, images)], as_json=False)
    first, second = capsys.readouterr().out.splitlines()
    assert f"same class in {agreeing} of {images} photographs" in first
    assert f"an agreement of at least {shown} (95 % confidence)" in second


@pytest.mark.parametrize(
    ("near_ties", "said"),
    [
        (0, "(75.0%)"),
        (1, "(75.0%; 1 of the others is a near-tie)"),
        (2, "(75.0%; 2 of the others are near-ties)"),
    ],
)
def test_verify_tells_which_disagreements_are_near_ties(near_ties: int, said: str, capsys: Any) -> None:
    show([_report(6, 8, near_ties=near_ties)], as_json=False)
    assert f"same class in 6 of 8 photographs {said}, SQNR" in capsys.readouterr().out


def test_verify_compares_float_files_by_their_numbers(capsys: Any) -> None:
    show([_report(8, 8, "float32")], as_json=False)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_verify_tells_programs_what_its_photographs_show(capsys: Any) -> None:
    show([_report(8, 8)], as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert row["ok"] and row["shown_agreement"] == pytest.approx(0.688, abs=1e-3)


def test_verify_says_on_how_few_cases_many_sigmoids_rest(capsys: Any) -> None:
    """Of 200 photographs with a hundred labels each, five say yes once: these five are all that is shown."""
    tags = _closeness(kind="sigmoids", columns=100, agreement=1.0, judged_by=5)
    report = replace(_report(200, 200), top1_agreement=None, outputs=(tags,))
    show([report], as_json=False)
    out = capsys.readouterr().out
    assert "5 of 5 show an agreement of at least 55% (95 % confidence)" in out
    assert "same decision in 200 of 200 photographs" in out
