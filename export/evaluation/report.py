"""The report of an evaluation as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError
from keras_effnet.evaluation import drawings
from keras_effnet.evaluation.measures import reliability
from keras_effnet.pictures.decoding import Source
from keras_effnet.pictures.listing import Listing
from keras_effnet.reports import page
from keras_effnet.system.files import shown, write_text

from .result import Result, SeveralResult

_PACKAGES = ("keras-effnet", "tensorflow", "keras", "ai-edge-litert", "onnxruntime", "scikit-learn")
DRAWN = 40  # classes, up to which the confusion is drawn; of more the worst pairs are listed


def write_page(
    path: Path, told: dict[str, Any], listing: Listing, results: Sequence[Result | SeveralResult]
) -> Path:
    """Write the page; `told` are the figures of `Evaluation.as_dict`.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    text = page.render(
        Path(__file__).parents[1] / "templates" / "evaluation.html",
        told=told,
        called=_short_names([row["file"] for row in told["results"]]),
        several=isinstance(results[0], SeveralResult),
        by_size=_by_size(results),
        sections=[
            _section(row, result, listing) for row, result in zip(told["results"], results, strict=True)
        ],
        software=page.software(_PACKAGES),
    )
    write_text(path, shown(text))  # names of photographs may be any bytes
    return path


def _short_names(files: Sequence[str]) -> dict[str, str]:
    """What the page calls the files: without their folders, where that tells them apart."""
    short = [Path(file).name for file in files]
    return dict(zip(files, short if len(set(short)) == len(set(files)) else files, strict=True))


def _section(told: dict[str, Any], result: Result | SeveralResult, listing: Listing) -> dict[str, Any]:
    """What the page says of one model or file."""
    return {
        "name": told["file"],
        "figures": result.figures | {"per_class": told["per_class"]},
        "confusion": _confusion(result),
        "confused": [pair for pair in told.get("confused", ()) if pair["count"] > 1],
        "reliability": drawings.reliability_diagram(
            "How sure, how often right", reliability(result.decisions)
        ),
        "wrong": int(np.sum(~result.judged.right)),
        "mistakes": [
            row | {"picture": _picture(result, listing.source(int(result.places[place]))), "heat": None}
            for row, place in zip(told["worst"], result.mistakes(), strict=True)
        ],
    }


def _confusion(result: Result | SeveralResult) -> Any:
    """The confusion of the classes that photographs are of or were taken for; None for too many, or several labels."""
    if isinstance(result, SeveralResult):
        return None
    counts = np.array(result.figures["confusion_matrix"])
    met = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    if len(met) > DRAWN:
        return None
    return drawings.confusion(counts[np.ix_(met, met)], [result.labels[index] for index in met])


def _picture(result: Result | SeveralResult, source: Source) -> str | None:
    try:
        return page.thumbnail(result.framing.read(source, result.size, silent=True))
    except InvalidInputError:
        return None  # it was there when it was judged


def _by_size(results: Sequence[Result | SeveralResult]) -> Any:
    """Accuracy against resolution, where one network was judged at several sizes; else None."""
    lines: dict[str, dict[int, float]] = {}
    for result in results:
        right = 100 * float(result.judged.right.mean())
        lines.setdefault(result.name.partition(" at ")[0], {})[result.size] = right
    sizes = sorted({result.size for result in results})
    whole = {name: line for name, line in lines.items() if sorted(line) == sizes}
    if len(sizes) < 2 or not whole:
        return None
    values = {name: [line[size] for size in sizes] for name, line in whole.items()}
    return page.curves("Right by the size of the pictures, %", "pixels", sizes, values)
