"""`report.json` for programs and `report.html` for people."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keras_effnet.reports import page
from keras_effnet.system.files import write_text

from .closeness import NOTICEABLE
from .kinds import KINDS
from .pipeline import Artefact
from .targets import target_name

JSON_NAME, HTML_NAME = "report.json", "report.html"
_PACKAGES = (
    "keras-effnet",
    "tensorflow",
    "keras",
    "ai-edge-litert",
    "litert-quantizer",
    "tf2onnx",
    "onnxruntime",
)


def require_html() -> None:
    """Make sure that the HTML report can be written, before the work starts.

    Raises:
        MissingExtraError: the extra `report` is not installed.
    """
    page.check_extras("report")


def write_reports(artefacts: Sequence[Artefact], out: Path, *, html: bool = True) -> dict[str, Any]:
    """Write `report.json` and `report.html` beside the artefacts.

    A report that is there already keeps its rows for other files that still exist.

    Args:
        artefacts: the new rows.
        out: directory of the artefacts.
        html: whether to write the page too.

    Returns:
        The content of `report.json`.
    """
    rows = [artefact.row() for artefact in artefacts]
    written = {row["file"] for row in rows}
    kept = [row for row in _earlier(out) if row["file"] not in written and (out / row["file"]).exists()]
    report: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
    }
    report["artifacts"] = [*kept, *rows]
    write_text(out / JSON_NAME, json.dumps(report, indent=2, allow_nan=False) + "\n")
    if html:
        pictures = {artefact.file: artefact.pictures for artefact in artefacts}
        write_text(out / HTML_NAME, render(report, pictures))
    return report


def _earlier(out: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads((out / JSON_NAME).read_text(encoding="utf-8"))["artifacts"]
        return [row for row in rows if isinstance(row, dict) and "file" in row]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none yet, or somebody else's file


def machine() -> dict[str, Any]:
    return {"processor": _processor(), "cores": os.cpu_count(), **page.software(_PACKAGES)}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def render(report: dict[str, Any], pictures: Mapping[str, Mapping[int, str]] | None = None) -> str:
    """The page as one self-contained HTML document.

    Args:
        report: what `report.json` holds.
        pictures: by file, those that differ most by their places; rows of earlier exports have none.
    """
    rows = report["artifacts"]
    return page.render(
        Path(__file__).parent / "templates" / "report.html",
        report=report,
        created=f"{datetime.fromisoformat(report['created']).astimezone(UTC):%Y-%m-%d, %H:%M} UTC",
        software=report["machine"],
        rows=rows,
        models=sorted({row["model"] for row in rows}),
        passed=sum(bool(row["ok"]) for row in rows),
        pictures=pictures or {},
        words={kind.name: kind.words for kind in KINDS.values()},
        plots=[*(_bars(rows, *drawn) for drawn in _DRAWN), *_spread(rows)],
    )


# key of a row, title, factor, format
_DRAWN = (
    ("bytes", "Size on disk (MB)", 1e-6, "{:.1f}"),
    ("latency_ms", "Time for one picture (ms, median)", 1.0, "{:.1f}"),
    ("agreement", "Same best class, or yes or no, as the model (%)", 100.0, "{:.1f}"),
    ("sqnr_db", "Closeness to the model (SQNR, dB)", 1.0, "{:.0f}"),
)


def _bars(rows: Sequence[dict[str, Any]], key: str, title: str, factor: float, form: str) -> Any:
    if key == "agreement":  # earlier reports know top-1 alone; where nothing is decided, there is no bar
        rows = [dict(row, agreement=_agreement(row)) for row in rows if _agreement(row) is not None]
    raw = [row[key] for row in rows]
    values = [0.0 if value is None else value * factor for value in raw]
    return page.bars(
        title,
        names=[f"{row['model']}  {_target(row)}" for row in rows],
        values=values,
        texts=[
            "exact" if got is None else form.format(value) for got, value in zip(raw, values, strict=True)
        ],
        colors=[page.GOOD if row["ok"] else page.BAD for row in rows],
    )


def _target(row: dict[str, Any]) -> str:
    return target_name(row["format"], row["recipe"])


def _agreement(row: dict[str, Any]) -> float | None:
    """The share of decisions that are the same; rows of earlier reports have it as the top-1 agreement."""
    found = row.get("agreement", row["top1_agreement"])
    return None if found is None else float(found)


def _spread(rows: Sequence[dict[str, Any]]) -> list[Any]:
    """The SQNR over the photographs, for each output in which a difference can be seen."""
    drawn = [
        (row, output)
        for row in rows
        for output in row.get("outputs", ())
        if output["median_sqnr_db"] is not None and output["worst_sqnr_db"] < NOTICEABLE
    ]
    if not drawn:
        return []
    names = [
        f"{row['model']}  {_target(row)}{'  ' + output['name'] if len(row['outputs']) > 1 else ''}"
        for row, output in drawn
    ]
    spread = [[output[f"{what}_sqnr_db"] for what in ("worst", "low", "median")] for _, output in drawn]
    colors = [page.GOOD if row["ok"] else page.BAD for row, _ in drawn]
    title = "Closeness of a photograph (SQNR, dB)"
    return [page.spans(title, "worst, 5th percentile, median; higher is closer", names, spread, colors)]
