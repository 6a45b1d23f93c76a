"""`report.html` of a run: curves, confusion matrix, and the worst mistakes with what the model looked at."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, require
from keras_effnet.pictures.listing import Listing
from keras_effnet.system.files import shown, staged
from keras_effnet.train.results import Mistake, Outcome, worst_mistakes

MISTAKES = 12
THUMB = 224  # pixels
TRAINING, VALIDATION = "#7a8b90", "#2f7d6d"
_TICKS = 40  # classes, up to which the confusion matrix names them


def check_extras() -> None:
    """Make sure that everything is there that a run needs, before the first minute of work.

    Raises:
        MissingExtraError: the extra `train` is not installed.
    """
    for module in ("sklearn", "tensorboard", "jinja2", "matplotlib"):
        require(module, "train")


def write_report(outcome: Outcome, artefacts: Sequence[dict[str, Any]] = ()) -> Path:
    """Write the report as one self-contained HTML file.

    Args:
        outcome: of the run.
        artefacts: rows of the export's `report.json`.

    Returns:
        The file.
    """
    jinja2 = require("jinja2", "train")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    metrics, judged = outcome.metrics, outcome.judged
    figures = metrics[judged]
    page = environment.get_template("report.html").render(
        metrics=metrics,
        judged=judged,
        figures=figures,
        plots=[jinja2.filters.Markup(plot) for plot in _plots(metrics)],
        confusion=jinja2.filters.Markup(_confusion(figures, outcome.listing.classes)),
        mistakes=_mistakes(outcome),
        wrong=round(figures["photographs"] * (1 - figures["accuracy"])),
        artefacts=artefacts,
    )
    path = outcome.folder.path / "report.html"
    with staged(path, overwrite=True) as temporary:
        temporary.write_text(shown(page), encoding="utf-8")  # names of photographs may be any bytes
    return path


def _plots(metrics: dict[str, Any]) -> list[str]:
    """Loss and accuracy of each phase that took place: by epoch, or by strength where it was solved."""
    found = []
    for phase, title in (("head", "Head on cached features"), ("fine_tuning", "Fine-tuning")):
        history = (metrics[phase] or {}).get("history") or {}
        if history:
            found.append(_curves(history, "accuracy", f"{title}: accuracy"))
            found.append(_curves(history, "loss", f"{title}: loss"))
    return found


def _curves(history: dict[str, list[float]], key: str, title: str) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.9))
    axes = figure.add_subplot()
    values = history[f"val_{key}"]
    marker = "o" if len(values) < 30 else ""
    if "strength" in history:
        places = np.array(history["strength"])
        axes.set_xscale("log")
        axes.set_xlabel("freedom of the weights (C); the lowest loss decides", fontsize=9)
    else:
        places = np.arange(1, len(values) + 1)
        axes.plot(places, history[key], color=TRAINING, label="training", marker=marker, markersize=3)
        axes.set_xlabel("epoch", fontsize=9)
    axes.plot(places, values, color=VALIDATION, label="validation", marker=marker, markersize=3)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _confusion(figures: dict[str, Any], classes: Sequence[str]) -> str:
    """Rows are the truth, columns the guess; a colour shows the share of the row."""
    from matplotlib.figure import Figure

    counts = np.array(figures["confusion_matrix"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(3 + 0.42 * len(classes), 14)
    figure = Figure(figsize=(side, side))
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="BuGn", vmin=0, vmax=1)
    if len(classes) <= _TICKS:
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=9)
        axes.set_yticks(range(len(classes)), classes, fontsize=9)
        for row, column in np.argwhere(counts > 0):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(
                column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=colour
            )
    axes.set_ylabel("truth")
    axes.set_xlabel("guess")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return _svg(figure)


def _svg(figure: Any) -> str:
    figure.tight_layout()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def _mistakes(outcome: Outcome) -> list[dict[str, Any]]:
    """The worst mistakes as pictures, beside what spoke for the wrong class."""
    from keras_effnet.explain import class_activation_map, overlay

    listing = outcome.listing
    indices = listing.of(outcome.judged)
    worst = worst_mistakes(outcome.probabilities, listing.labels[indices], indices, MISTAKES)
    found = []
    for mistake in worst:
        pixels = outcome.framing.read(listing.path(mistake.index), outcome.metrics["model"]["image_size"])
        try:
            heat = overlay(pixels, class_activation_map(outcome.model, pixels, mistake.guess))
        except InvalidInputError:
            heat = None  # pictures so small that the last feature map has a single position
        found.append(_row(listing, mistake, pixels, heat))
    return found


def _row(
    listing: Listing, mistake: Mistake, pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.uint8] | None
) -> dict[str, Any]:
    return {
        "file": listing.files[mistake.index],
        "truth": listing.classes[mistake.truth],
        "guess": listing.classes[mistake.guess],
        "probability": mistake.probability,
        "picture": _data_url(pixels),
        "heat": None if heat is None else _data_url(heat),
    }


def _data_url(pixels: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMB, THUMB))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
