"""Warnings: a class of their own, that point at the caller; what the command line shows of them."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
import pytest

from keras_effnet import errors
from keras_effnet.cli import main
from keras_effnet.errors import EffNetWarning
from keras_effnet.pictures.reading import warn_if_unit_range

OWN = "Uses 11 of 100 calibration photographs: the maps would exceed 4 GiB with more."


@pytest.fixture
def warning_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """`keras-effnet list`, replaced by something that warns twice for us and twice for others."""

    def run(arguments: argparse.Namespace) -> int:
        for _ in range(2):
            errors.warn(OWN)
        warnings.warn("Expected something of another library", UserWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        return 0

    monkeypatch.setattr("keras_effnet.commands.list_variants.run", run)


def test_command_line_shows_our_warnings_once_and_nobody_elses(warning_command: None, capsys: Any) -> None:
    for _ in range(2):  # the second command of a process says it again
        assert main(["list"]) == 0
        assert capsys.readouterr().err == f"keras-effnet: warning: {OWN}\n"


def test_main_leaves_the_warnings_of_the_process_as_they_were(warning_command: None) -> None:
    def show(*_: Any) -> None:
        pass

    with warnings.catch_warnings():
        warnings.showwarning = show
        before = list(warnings.filters)
        assert main(["list"]) == 0
        assert warnings.showwarning is show and list(warnings.filters) == before


@pytest.mark.parametrize("depth", [0, 3])
def test_warning_points_at_the_line_that_called_the_package(depth: int) -> None:
    def deeper(levels: int) -> None:
        deeper(levels - 1) if levels else warn_if_unit_range(np.full((1, 2, 2, 3), 0.5))

    with pytest.warns(EffNetWarning, match="divided by 255") as said:
        deeper(depth)
    assert said[0].filename == __file__
