"""What the options of commands take: numbers as people write them."""

from __future__ import annotations

import argparse

import pytest

from keras_effnet.commands.flags import amount


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("800M", 8e8),
        ("0.39G", 3.9e8),
        ("5.3e6", 5.3e6),
        ("800e6", 8e8),
        ("16MB", 1.6e7),
        ("1", 1.0),
        (".5k", 500),
    ],
)
def test_amount_is_a_number_with_a_unit(text: str, number: float) -> None:
    assert amount(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "0", "-3M", "M", "8X", "nan", "inf", "1e999", "3 4"])
def test_amount_refuses_what_is_no_positive_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"number above 0 such as 800M.*received"):
        amount(text)
