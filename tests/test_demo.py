"""`make run`: what it is made of; the run itself is the commands that other tests run."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import demo


def test_pictures_that_judge_are_not_those_that_calibrate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skimage = pytest.importorskip("skimage")
    commands: list[list[str]] = []
    monkeypatch.setattr(demo, "_run", lambda arguments: commands.append(arguments) or 0)
    monkeypatch.setattr(demo, "CROP_SHARES", (0.95,))
    assert demo.main(["--out", str(tmp_path)]) == 0
    export = next(command for command in commands if command[0] == "export")
    folders = [Path(export[export.index(flag) + 1]) for flag in ("--calibration", "--images")]
    calibrating, judging = ({path.name.split(".")[0][:-2] for path in folder.iterdir()} for folder in folders)
    assert calibrating and judging and not calibrating & judging
    data = Path(skimage.__file__).parent / "data"
    for name in (*demo.CALIBRATION_SOURCES, *demo.VERIFICATION_SOURCES):
        assert (data / name).is_file()  # in the wheel, nothing is downloaded
