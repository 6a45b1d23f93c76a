"""The report of an evaluation as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError
from keras_effnet.evaluation import drawings
from keras_effnet.evaluation.measures import reliability
from keras_effnet.reports import page
from keras_effnet.system.files import shown, write_text

from .evaluation import Evaluation, Result

_PACKAGES = ("keras-effnet", "tensorflow", "keras", "ai-edge-litert", "onnxruntime", "scikit-learn")
DRAWN = 40  # classes, up to which the confusion is drawn; of more the worst pairs are listed


def write_page(evaluation: Evaluation, path: Path) -> Path:
    """Write the page.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    text = page.render(
        Path(__file__).parent / "templates" / "evaluation.html",
        evaluation=evaluation,
        told=evaluation.as_dict(),
        by_size=_by_size(evaluation),
        sections=[_section(evaluation, result) for result in evaluation],
        software=page.software(_PACKAGES),
    )
    write_text(path, shown(text))  # names of photographs may be any bytes
    return path


def _section(evaluation: Evaluation, result: Result) -> dict[str, Any]:
    """What the page says of one model or file."""
    seen = result.seen_classes()
    return {
        "name": shown(result.name),
        "figures": result.figures | {"per_class": seen},
        "confusion": _confusion(result),
        "confused": result.confused(),
        "reliability": drawings.reliability_diagram("How sure, how often right", reliability(result.judged)),
        "wrong": int(np.sum(~result.judged.right)),
        "mistakes": [
            row | {"picture": _picture(evaluation, result, int(place)), "heat": None}
            for row, place in zip(
                evaluation.worst(result), drawings.worst_mistakes(result.judged), strict=True
            )
        ],
    }


def _confusion(result: Result) -> Any:
    """The confusion of the classes that photographs are of or were taken for; None where these are too many."""
    counts = np.array(result.figures["confusion_matrix"])
    met = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    if len(met) > DRAWN:
        return None
    return drawings.confusion(counts[np.ix_(met, met)], [result.labels[index] for index in met])


def _picture(evaluation: Evaluation, result: Result, place: int) -> str | None:
    source = evaluation.listing.source(int(result.places[place]))
    try:
        return page.thumbnail(result.framing.read(source, result.size, silent=True))
    except InvalidInputError:
        return None  # it was there when it was judged


def _by_size(evaluation: Evaluation) -> Any:
    """Accuracy against resolution, where one network was judged at several sizes; else None."""
    lines: dict[str, dict[int, float]] = {}
    for result in evaluation:
        lines.setdefault(result.name.partition(" at ")[0], {})[result.size] = 100 * result.top1
    sizes = sorted({result.size for result in evaluation})
    whole = {name: line for name, line in lines.items() if sorted(line) == sizes}
    if len(sizes) < 2 or not whole:
        return None
    values = {name: [line[size] for size in sizes] for name, line in whole.items()}
    return page.curves("Top-1 by the size of the pictures, %", "pixels", sizes, values)
