"""The page that reports extend, and what a person sees while work lasts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from material import ROOT

from keras_effnet.reports import page
from keras_effnet.system.progress import Progress

matplotlib = pytest.importorskip("matplotlib")


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 40])
def test_curves_by_epoch_have_whole_numbers_at_their_axis(epochs: int) -> None:
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        svg = page.curves("Loss", "epoch", range(1, epochs + 1), {"validation": [1e6] * epochs})
    axis = svg[svg.index("matplotlib.axis_1") : svg.index("matplotlib.axis_2")]
    labels = re.findall(r">\s*([^<>\s]+)\s*</text>", axis)
    assert labels[-1] == "epoch" and len(labels) > 1
    assert all(re.fullmatch(r"[\u2212-]?\d+", label) for label in labels[:-1]), labels


def test_drawings_shrink_to_a_phone_scroll_beyond_and_grow_little() -> None:
    bars = page.bars("Size", ["a", "b"], [1.0, 2.0], ["1", "2"], [page.GOOD, page.BAD])
    least, most = map(int, re.search(r'style="min-width: (\d+)px; max-width: (\d+)px"', bars).groups())  # type: ignore[union-attr]
    assert least <= 390 - 2 * 16 - 2 * 10 and most == round(1.25 * 4.4 * 96)
    wide = page.drawing(page.axes("Matrix", 14, 14))
    assert int(re.search(r'style="min-width: (\d+)px', wide)[1]) > 900  # type: ignore[index]


def test_page_escapes_texts_and_not_drawings(tmp_path: Path) -> None:
    (tmp_path / "x.html").write_text(
        '{% extends "page.html" %}{% block content %}{{ name }}{{ plot }}{% endblock %}'
    )
    text = page.render(tmp_path / "x.html", name="<b>", plot=page.drawing(page.axes("x")))
    assert "&lt;b&gt;" in text and "<svg" in text and "width=device-width" in text


TEMPLATES = {
    "export": ("SQNR", "Recipe", "Near-tie", "5th percentile", "Embedding", "cosine", "Calibration", "top-1"),
    "keras_effnet/train": ("Accuracy", "validation", "Head", "fine-tuning", "Epoch", "Refit", "Loss", "activation map"),
}  # fmt: skip


@pytest.mark.parametrize(("folder", "words"), TEMPLATES.items(), ids=TEMPLATES)
def test_report_says_what_its_words_mean_before_the_figures(folder: str, words: tuple[str, ...]) -> None:
    page = (ROOT / folder / "templates" / "report.html").read_text(encoding="utf-8")
    begin, end = page.index("<summary>What the words mean"), page.index("</details>")
    assert [word for word in words if word not in page[begin:end]] == []
    assert end < page.index("<table") and end < page.index("plots %}\n<figure") and "<abbr" not in page


@pytest.mark.parametrize(
    ("terminal", "color", "quiet", "verbosity"),
    [(True, None, False, 1), (True, "1", False, 0), (False, None, False, 0), (True, None, True, 0)],
    ids=["terminal", "NO_COLOR", "piped", "quiet"],
)
def test_bar_of_keras_is_for_terminals_that_take_colors(
    terminal: bool, color: str | None, quiet: bool, verbosity: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if color is not None:
        monkeypatch.setenv("NO_COLOR", color)
    assert Progress(quiet=quiet).fit_verbosity == verbosity
