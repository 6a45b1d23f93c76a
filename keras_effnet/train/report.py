"""`report.html` of a run: curves, confusion matrix, and the worst mistakes with what the model looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, require_installed
from keras_effnet.pictures.listing import Listing
from keras_effnet.reports import page
from keras_effnet.system.files import shown, staged
from keras_effnet.train.results import Mistake, Outcome, reason_for_result, worst_mistakes

MISTAKES = 12
_TICKS = 40  # classes, up to which the confusion matrix names them
_CELL = 0.3  # inches of one of its cells


def check_extras() -> None:
    """Make sure that everything is there that a run needs, before the first minute of work.

    Raises:
        MissingExtraError: the extra `train` is not installed.
    """
    for module in ("sklearn", "tensorboard"):
        require_installed(module, "train")
    page.check_extras("train")


def write_report(outcome: Outcome, artefacts: Sequence[dict[str, Any]] = ()) -> Path:
    """Write the report as one self-contained HTML file.

    Args:
        outcome: of the run.
        artefacts: rows of the export's `report.json`.

    Returns:
        The file.
    """
    metrics, judged = outcome.metrics, outcome.judged
    figures = metrics[judged]
    text = page.render(
        Path(__file__).parent / "templates" / "report.html",
        metrics=metrics,
        judged=judged,
        figures=figures,
        reason=reason_for_result(metrics),
        plots=_plots(metrics),
        confusion=_confusion(figures, outcome.listing.classes),
        mistakes=_mistakes(outcome),
        wrong=round(figures["photographs"] * (1 - figures["accuracy"])),
        artefacts=artefacts,
    )
    path = outcome.folder.path / "report.html"
    with staged(path, overwrite=True) as temporary:
        temporary.write_text(shown(text), encoding="utf-8")  # names of photographs may be any bytes
    return path


def _plots(metrics: dict[str, Any]) -> list[Any]:
    """Loss and accuracy of each phase that took place: by epoch, or by strength where it was solved."""
    found = []
    for phase, title in (("head", "Head, the last layer"), ("fine_tuning", "Fine-tuning")):
        history = (metrics[phase] or {}).get("history") or {}
        for key in ("accuracy", "loss") if history else ():
            found.append(_curves(history, key, f"{title}: {key}"))
    return found


def _curves(history: dict[str, list[float]], key: str, title: str) -> Any:
    judged = {"validation": history[f"val_{key}"]}
    if "strength" in history:
        label = "freedom of the weights (C); the lowest loss decides"
        return page.curves(title, label, history["strength"], judged, log=True)
    epochs = range(1, len(history[key]) + 1)
    return page.curves(title, "epoch", epochs, {"training": history[key], **judged})


def _confusion(figures: dict[str, Any], classes: Sequence[str]) -> Any:
    """Rows are the truth, columns the guess; a color shows the share of the row."""
    counts = np.array(figures["confusion_matrix"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(1.6 + _CELL * len(classes), 3.4), 14)
    made = page.axes("Truth and guess", side, side)
    made.imshow(shares, cmap="BuGn", vmin=0, vmax=1)
    if len(classes) <= _TICKS:
        made.set_xticks(range(len(classes)), classes, rotation=90, fontsize=9)
        made.set_yticks(range(len(classes)), classes, fontsize=9)
        for row, column in np.argwhere(counts > 0):
            color = "white" if shares[row, column] > 0.6 else "black"
            text = str(counts[row, column])
            made.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    made.set_ylabel("truth")
    made.set_xlabel("guess")
    made.tick_params(length=0)
    made.spines[:].set_visible(False)
    return page.drawing(made)


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
        "picture": page.thumbnail(pixels),
        "heat": None if heat is None else page.thumbnail(heat),
    }
