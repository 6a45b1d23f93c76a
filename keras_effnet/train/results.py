"""What a run has made: its figures, why this network, and `report.html` with its worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, require, require_installed
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import Listing
from keras_effnet.reports import page
from keras_effnet.system.files import shown, write_text
from keras_effnet.train.folder import RunFolder

MISTAKES = 12
_PACKAGES = ("keras-effnet", "tensorflow", "keras", "scikit-learn")
_TICKS = 40  # classes, up to which the confusion matrix names them
_CELL = 0.3  # inches of one of its cells


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run made.

    Attributes:
        folder: the run's folder.
        model: the trained classifier, float32, not compiled.
        listing: the photographs.
        metrics: the content of `metrics.json`.
        probabilities: of the photographs of `judged`, float `[N, classes]`.
        framing: how photographs are read.
        judged: the split they are of: `"test"`, or `"validation"` where there is no test split.
    """

    folder: RunFolder
    model: Any
    listing: Listing
    metrics: dict[str, Any]
    probabilities: npt.NDArray[np.float32]
    judged: str
    framing: Framing

    def __repr__(self) -> str:
        """Short: the listing alone may be thousands of names."""
        accuracy = self.metrics[self.judged]["accuracy"]
        return f"<Outcome in {str(self.folder.path)!r}: {self.judged} accuracy {accuracy:.3f}>"


def measure(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], classes: tuple[str, ...]
) -> dict[str, Any]:
    """The figures of one split, as JSON takes them, from its probabilities `[N, classes]` and labels `[N]`.

    Returns:
        `photographs`, `accuracy`, `loss` (mean cross entropy), `per_class` (name → `precision`,
        `recall`, `f1`, `photographs`) and `confusion_matrix` (rows: truth, columns: guess).
    """
    metrics = require("sklearn.metrics", "train")
    numbers = np.arange(len(classes))
    guesses = probabilities.argmax(axis=1)
    of_classes = metrics.precision_recall_fscore_support(labels, guesses, labels=numbers, zero_division=0.0)
    return {
        "photographs": len(labels),
        "accuracy": float(metrics.accuracy_score(labels, guesses)),
        "loss": float(metrics.log_loss(labels, probabilities, labels=numbers)),
        "per_class": {
            name: {
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
                "photographs": int(count),
            }
            for name, precision, recall, f1, count in zip(classes, *of_classes, strict=True)
        },
        "confusion_matrix": metrics.confusion_matrix(labels, guesses, labels=numbers).tolist(),
    }


def reason_for_result(metrics: dict[str, Any]) -> str:
    """Which network a run has kept, and why, in one sentence without its point."""
    if metrics.get("students"):
        return _reason_among_students(metrics["students"])
    head, tuned, refit = metrics["head"], metrics["fine_tuning"], metrics.get("refit")
    if tuned is None:
        return "the head alone on the pretrained network; nothing was fine-tuned (--epochs 0)"
    judged = tuned["history"]["val_accuracy"]
    best = tuned["best_epoch"] or int(np.argmin(tuned["history"]["val_loss"])) + 1
    right = f"{judged[best - 1]:.3f} of the validation photographs right"
    if head is None:
        return f"the network of epoch {best}, which had the lowest validation loss and got {right}"
    before = head["validation_accuracy"]
    if not tuned["best_epoch"]:
        return (
            f"the head alone on the pretrained network: it got {before:.3f} of the validation photographs "
            f"right, the best fine-tuned epoch {judged[best - 1]:.3f}"
        )
    if refit:
        return (
            f"the refitted network, fine-tuned on training and validation photographs for {refit['epochs']} "
            f"epochs, as many as got {right} before, where the head alone got {before:.3f}"
        )
    equal = "; of equal ones the fine-tuned network is kept" if judged[best - 1] == before else ""
    return f"the fine-tuned network of epoch {best}: it got {right}, the head alone {before:.3f}{equal}"


def _reason_among_students(told: dict[str, Any]) -> str:
    rows = {row["round"]: f"{row['validation_accuracy']:.3f}" for row in told["rounds"]}
    names = {number: f"student {number}" if number else "the first network" for number in rows}
    kept = told["kept"]
    others = ", ".join(f"{names[number]} {reached}" for number, reached in rows.items() if number != kept)
    return (
        f"{names[kept]}: it got {rows[kept]} of the validation photographs right"
        + (f"; {others}" if others else "")
        + ("; of equal ones the latest is kept" if list(rows.values()).count(rows[kept]) > 1 else "")
    )


def check_extras() -> None:
    """Make sure that everything is there that a run needs, before the first minute of work.

    Raises:
        MissingExtraError: the extra `train` is not installed.
    """
    for module in ("sklearn", "tensorboard"):
        require_installed(module, "train")
    page.check_extras("train")


def write_report(outcome: Outcome, artefacts: Sequence[dict[str, Any]] = ()) -> Path:
    """Write the report as one self-contained HTML file; `artefacts` are rows of the export's `report.json`."""
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
        software=page.software(_PACKAGES),
    )
    path = outcome.folder.path / "report.html"
    write_text(path, shown(text))  # names of photographs may be any bytes
    return path


def _plots(metrics: dict[str, Any]) -> list[Any]:
    """Loss and accuracy of each phase that took place: by epoch, or by strength where it was solved."""
    found = []
    phases = {"Head, the last layer": metrics["head"], "Fine-tuning": metrics["fine_tuning"]}
    for row in (metrics.get("students") or {}).get("rounds", []):
        if row["round"]:
            phases[f"Student {row['round']}"] = row["training"]
    for title, phase in phases.items():
        history = (phase or {}).get("history") or {}
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
    """The mistakes that the model was surest of, as pictures, beside what spoke for the wrong class."""
    from keras_effnet.explain import class_activation_map, overlay

    listing = outcome.listing
    indices = listing.of(outcome.judged)
    guesses, sure = outcome.probabilities.argmax(axis=1), outcome.probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != listing.labels[indices])
    found = []
    for row in wrong[np.argsort(-sure[wrong], kind="stable")][:MISTAKES]:
        index, guess = int(indices[row]), int(guesses[row])
        pixels = outcome.framing.read(listing.path(index), outcome.metrics["model"]["image_size"])
        try:
            heat = page.thumbnail(overlay(pixels, class_activation_map(outcome.model, pixels, guess)))
        except InvalidInputError:
            heat = None  # pictures so small that the last feature map has a single position
        found.append(
            {
                "file": listing.files[index],
                "truth": listing.classes[listing.labels[index]],
                "guess": listing.classes[guess],
                "probability": float(sure[row]),
                "picture": page.thumbnail(pixels),
                "heat": heat,
            }
        )
    return found
