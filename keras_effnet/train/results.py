"""What a run has made: its figures, why this network, and `report.html` with its worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, counted, require_installed
from keras_effnet.evaluation.comparison import interval_of
from keras_effnet.evaluation.confidence import coverage_of
from keras_effnet.evaluation.drawings import confusion, coverage_curve, reliability_diagram, worst_mistakes
from keras_effnet.evaluation.measures import Judged, reliability
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import Listing
from keras_effnet.reports import page
from keras_effnet.system.files import shown, write_text
from keras_effnet.train.folder import RunFolder

_PACKAGES = ("keras-effnet", "tensorflow", "keras", "scikit-learn")


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

    def answers(self) -> Judged:
        """What the network said of these photographs, beside the truth."""
        from keras_effnet.train.answers import judged_by  # needs Keras, which --help does not wait for

        return judged_by(self.probabilities, self.listing, self.listing.of(self.judged))

    def __repr__(self) -> str:
        """Short: the listing alone may be thousands of names."""
        accuracy = self.metrics[self.judged]["accuracy"]
        return f"<Outcome in {str(self.folder.path)!r}: {self.judged} accuracy {accuracy:.3f}>"


def accuracy_told(outcome: Outcome) -> str:
    """The accuracy with what it says about other photographs; of single labels, where a photograph has several."""
    figures = outcome.metrics[outcome.judged]
    interval = ""
    if "exact" not in figures:  # photographs are drawn one by one, their labels are not
        low, high = interval_of(outcome.answers())
        interval = f" (for others like these {low:.3f} to {high:.3f}, 95 % confidence)"
    photographs = counted(figures["photographs"], "photograph")
    return f"{outcome.judged} accuracy: {figures['accuracy']:.3f} on {photographs}{interval}"


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
    tie = np.float32(judged[best - 1]) == np.float32(before)  # Keras tells epochs in single precision
    equal = "; of equal ones the fine-tuned network is kept" if tie else ""
    return f"the fine-tuned network of epoch {best}: it got {right}, the head alone {before:.3f}{equal}"


def _reason_among_students(told: dict[str, Any]) -> str:
    rows = {row["round"]: f"{row['validation_accuracy']:.3f}" for row in told["rounds"]}
    names = {number: f"student {number}" if number else "the first network" for number in rows}
    kept = told["kept"]
    earlier = [reached for number, reached in rows.items() if number < kept]
    others = ", ".join(f"{names[number]} {reached}" for number, reached in rows.items() if number != kept)
    return (
        f"{names[kept]}: it got {rows[kept]} of the validation photographs right"
        + (f"; {others}" if others else "")
        + (
            "; of those within a standard error the latest is kept"
            if rows[kept] <= max(earlier, default="")
            else ""
        )
    )


def fixing_told(metrics: dict[str, Any], judged: str) -> list[str]:
    """What getting used to another size has brought on the judged photographs, in a sentence; none without."""
    found, name = metrics.get("fixing"), f"{judged}_accuracy"
    if not found or name not in found["after"]:
        return []
    return [
        f"fixed to {found['size']} px: {judged} accuracy {found['after'][name]:.3f}, before {found['before'][name]:.3f}, "
        f"at {found['trained_at']} px {found['as_trained'][name]:.3f}"
    ]


def certainty_told(metrics: dict[str, Any]) -> list[str]:
    """What a run's probabilities and its threshold are worth, a sentence each without its point."""
    found = metrics.get("certainty")
    if found is None:
        return []  # of an earlier version
    told = [
        f"calibration error: {found['calibration_error']:.3f}, before temperature scaling "
        f"{found['calibration_error_before']:.3f} (temperature {found['temperature']:.2f})"
    ]
    if worth := found.get("accepted"):
        precision = "none" if worth["precision"] is None else f"{worth['precision']:.1%}"
        strangers = (
            f"; {worth['refused']:.1%} of {counted(worth['strangers'], 'stranger')} refused"
            if "refused" in worth
            else ""
        )
        least = found["thresholds"]
        below = f"{least[0]:.3f}" if len(least) == 1 else "thresholds of each class"
        told.append(
            f"none of these below {below}: {worth['coverage']:.1%} accepted, {precision} of {'them' if len(least) == 1 else 'the labels'} "
            f"right{strangers}"
        )
    return told


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
    metrics, split = outcome.metrics, outcome.judged
    figures, judged = metrics[split], outcome.answers()
    text = page.render(
        Path(__file__).parent / "templates" / "report.html",
        metrics=metrics,
        judged=split,
        figures=figures,
        interval=None if "exact" in figures else interval_of(judged),
        reason=reason_for_result(metrics),
        plots=_plots(metrics),
        confusion=_confusion(figures, outcome.listing.classes),
        reliability=reliability_diagram("How sure, how often right", reliability(judged)),
        coverage=coverage_curve(coverage_of(judged.confidences, judged.right), *_threshold(metrics)),
        certainty=certainty_told(metrics),
        mistakes=_mistakes(outcome, judged),
        wrong=int(np.sum(~judged.right)),
        artefacts=artefacts,
        software=page.software(_PACKAGES),
    )
    path = outcome.folder.path / "report.html"
    write_text(path, shown(text))  # names of photographs may be any bytes
    return path


def _confusion(figures: dict[str, Any], classes: Sequence[str]) -> Any:
    """The matrix as a drawing; None for several labels, which have none."""
    counts = figures.get("confusion_matrix")
    return None if counts is None else confusion(np.array(counts), classes)


def _threshold(metrics: dict[str, Any]) -> tuple[float, ...]:
    """The share of the judged photographs that the run's threshold accepts, if it has one."""
    worth = metrics.get("certainty", {}).get("accepted")
    return (worth["coverage"],) if worth else ()


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


def _mistakes(outcome: Outcome, judged: Judged) -> list[dict[str, Any]]:
    """The mistakes that the model was surest of, as pictures, beside what spoke for the wrong class."""
    from keras_effnet.explain import class_activation_map, overlay

    listing = outcome.listing
    indices, several = listing.of(outcome.judged), listing.marks is not None
    found = []
    for row in worst_mistakes(judged):
        # of several labels a row is a decision about one class of one photograph
        place, guess = (
            divmod(int(row), len(listing.classes)) if several else (int(row), int(judged.guesses[row]))
        )
        index, denied = int(indices[place]), several and not judged.guesses[row]
        pixels = outcome.framing.read(listing.source(index), outcome.metrics["model"]["image_size"])
        try:
            heat = page.thumbnail(overlay(pixels, class_activation_map(outcome.model, pixels, guess)))
        except InvalidInputError:
            heat = None  # pictures so small that the last feature map has a single position
        found.append(
            {
                "file": listing.files[index],
                "truth": listing.told(index),
                "guess": f"{'not ' if denied else ''}{listing.classes[guess]}",
                "probability": float(judged.confidences[row]),
                "picture": page.thumbnail(pixels),
                "heat": heat,
            }
        )
    return found
