"""`report.json` for programs and `report.html` for people."""

from __future__ import annotations

import io
import json
import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from keras_effnet.errors import require
from keras_effnet.system.files import staged

from .pipeline import Artefact

JSON_NAME, HTML_NAME = "report.json", "report.html"
GOOD, BAD = "#2f7d6d", "#c0504d"
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
    require("jinja2", "report")
    require("matplotlib", "report")


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
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": _machine(),
    }
    report["artifacts"] = [*kept, *rows]
    with staged(out / JSON_NAME, overwrite=True) as temporary:
        temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if html:
        with staged(out / HTML_NAME, overwrite=True) as temporary:
            temporary.write_text(render(report), encoding="utf-8")
    return report


def _earlier(out: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads((out / JSON_NAME).read_text(encoding="utf-8"))["artifacts"]
        return [row for row in rows if isinstance(row, dict) and "file" in row]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none yet, or somebody else's file


def _machine() -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": versions,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def render(report: dict[str, Any]) -> str:
    """The page as one self-contained HTML document."""
    jinja2 = require("jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    rows = report["artifacts"]
    return str(
        environment.get_template("report.html").render(
            report=report,
            rows=rows,
            models=sorted({row["model"] for row in rows}),
            passed=sum(bool(row["ok"]) for row in rows),
            plots=[jinja2.filters.Markup(plot) for plot in _plots(rows)],
        )
    )


def _plots(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [
        _bars(rows, "bytes", "Size on disk (MB)", lambda value: value / 1e6, "{:.1f}"),
        _bars(rows, "latency_ms", "Time for one picture (ms, median)", lambda value: value, "{:.1f}"),
        _bars(
            rows,
            "top1_agreement",
            "Same best class as the Keras model (%)",
            lambda value: value * 100,
            "{:.1f}",
        ),
        _bars(
            rows,
            "sqnr_db",
            "Signal to quantization noise (dB, higher is closer)",
            lambda value: value,
            "{:.0f}",
        ),
    ]


def _bars(rows: Sequence[dict[str, Any]], key: str, title: str, convert: Any, form: str) -> str:
    """A horizontal bar for each artefact, as SVG text."""
    from matplotlib.figure import Figure

    names = [f"{row['model']}  {_target(row)}" for row in rows][::-1]
    raw = [row[key] for row in rows][::-1]
    values = [0.0 if value is None else convert(value) for value in raw]
    texts = ["exact" if value is None else form.format(convert(value)) for value in raw]
    colours = [GOOD if row["ok"] else BAD for row in rows][::-1]
    figure = Figure(figsize=(6.4, 0.9 + 0.32 * len(rows)))
    axes = figure.add_subplot()
    bars = axes.barh(names, values, color=colours, height=0.62)
    axes.bar_label(bars, texts, padding=4, fontsize=9)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlim(0, max(values, default=0) * 1.15 or 1)
    axes.tick_params(axis="both", labelsize=9, length=0)
    axes.xaxis.set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.tight_layout()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def _target(row: dict[str, Any]) -> str:
    return "saved_model" if row["format"] == "saved_model" else f"{row['format']}:{row['recipe']}"
