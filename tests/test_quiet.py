"""What native libraries print: held back, and shown only when nobody else explains the failure."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from keras_effnet.errors import ExportError, InvalidInputError
from keras_effnet.system.quiet import check_backend, import_keras, quiet_native


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


@pytest.mark.parametrize(
    ("settings", "chosen"), [('{"backend": "jax"}', "jax"), ("{}", "tensorflow"), ("damaged", "tensorflow")]
)
def test_backend_of_keras_own_settings_is_known_before_keras_is_imported(
    settings: str, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text(settings)
    assert check_backend() == chosen
    monkeypatch.setenv("KERAS_BACKEND", "torch")  # it comes first, as in Keras
    with pytest.raises(InvalidInputError, match=r"the backend 'torch', of KERAS_BACKEND"):
        check_backend()
