"""The notebooks as files: stripped, self-contained, saying what they need. `make test` also runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from material import ROOT

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def _cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return cells


def test_the_four_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "compound_scaling",
        "keras_to_phone",
        "serving_onnx",
        "transfer_learning",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stripped_of_outputs(path: Path) -> None:
    pytest.importorskip("nbstripout")
    verify = [sys.executable, "-m", "nbstripout", "--verify", str(path)]
    result = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_check_for_outputs_notices_one(tmp_path: Path) -> None:
    pytest.importorskip("nbstripout")
    book = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    code = next(cell for cell in book["cells"] if cell["cell_type"] == "code")
    code["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["left over"]}]
    (tmp_path / "x.ipynb").write_text(json.dumps(book), encoding="utf-8")
    verify = [sys.executable, "-m", "nbstripout", "--verify", str(tmp_path / "x.ipynb")]
    assert subprocess.run(verify, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_says_what_it_needs_and_is_short(path: Path) -> None:
    cells = _cells(path)
    first = "".join(cells[0]["source"])
    assert cells[0]["cell_type"] == "markdown" and "pip install '.[" in first
    extras = first.split("pip install '.[")[1].split("]")[0].split(",")
    declared = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert all(f'"{extra}":' in declared for extra in extras)
    assert sum(len("".join(cell["source"]).splitlines()) for cell in cells) <= 160
