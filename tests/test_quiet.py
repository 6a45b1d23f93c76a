"""What native libraries print: held back, and shown only when nobody else explains the failure."""

from __future__ import annotations

import logging
import os

import pytest

from keras_effnet.errors import ExportError
from keras_effnet.system.quiet import import_keras, quiet_native


@pytest.mark.parametrize(("error", "shown"), [(ExportError, ""), (ValueError, "native noise\n")])
def test_quiet_native_shows_what_it_held_unless_the_error_is_ours(
    capfd: pytest.CaptureFixture[str], error: type[Exception], shown: str
) -> None:
    with pytest.raises(error), quiet_native():
        os.write(2, b"native noise\n")
        raise error("no")
    assert capfd.readouterr().err == shown


def test_quiet_native_lets_everything_through_when_asked(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KERAS_EFFNET_VERBOSE", "1")
    with quiet_native():
        os.write(2, b"native noise\n")
    assert capfd.readouterr().err == "native noise\n"


@pytest.mark.parametrize(("verbose", "told"), [("", False), ("1", True)])
def test_command_line_hides_what_tensorflow_remarks_unless_asked(
    verbose: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_EFFNET_VERBOSE", verbose)
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        import_keras()
        assert logger.isEnabledFor(logging.WARNING) is told
    finally:
        logger.setLevel(before)
