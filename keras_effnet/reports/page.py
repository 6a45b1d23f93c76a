"""A report as one self-contained HTML file: a page to extend, and drawings that stay legible on a phone.

A report's template begins with `{% extends "page.html" %}` and fills the blocks `title` and `content`.
Drawings are a good 400 pixels wide, so that they shrink little on a phone; a computer shows several in a row.
"""

from __future__ import annotations

import base64
import io
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from keras_effnet.errors import require, require_installed

GOOD, BAD, SOFT = "#2f7d6d", "#c0504d", "#7a8b90"  # as in page.html
WIDTH = 4.4  # inches of a drawing
PIXELS_PER_INCH = 96
SHRUNK = 0.7  # of its width, at which letters of 9 points can still be read; further, it can be scrolled
THUMB = 224  # pixels
GROWN = 1.25  # of its width; in a wide tile the letters of a small drawing would be larger than the page's
_TEMPLATES = Path(__file__).parent / "templates"


def check_extras(extra: str) -> None:
    """Make sure that a page can be made, before the work that it reports of; `extra` is what the message names.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    require_installed("jinja2", extra)
    require_installed("matplotlib", extra)


def render(template: Path, **values: Any) -> str:
    """The page that a template makes of values. Texts are escaped, drawings are not."""
    jinja2 = require("jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return str(environment.get_template(template.name).render(**values))


def software(packages: Sequence[str]) -> dict[str, Any]:
    """The system, Python and those of the packages that are installed, for the foot of a page (`software=`)."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"system": platform.system(), "python": platform.python_version(), "packages": versions}


def axes(title: str, width: float = WIDTH, height: float = 2.6) -> Any:
    """Empty matplotlib axes with a title, `width` × `height` inches; `drawing` makes SVG of them."""
    from matplotlib.figure import Figure

    found = Figure(figsize=(width, height)).add_subplot()
    found.figure.suptitle(title, x=0.02, ha="left", fontsize=11, fontweight="bold")
    found.tick_params(labelsize=9)
    found.spines[["top", "right"]].set_visible(False)
    return found


def drawing(made: Any) -> Any:
    """The figure of some axes as SVG, marked as not to be escaped. It shrinks and grows as far as its texts suit."""
    jinja2 = require("jinja2", "report")
    made.figure.tight_layout()
    buffer = io.StringIO()
    made.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue().partition("<svg")[2]
    width = PIXELS_PER_INCH * made.figure.get_figwidth()
    sizes = f"min-width: {round(SHRUNK * width)}px; max-width: {round(GROWN * width)}px"
    return jinja2.filters.Markup(f'<svg style="{sizes}"{svg}')


def bars(
    title: str, names: Sequence[str], values: Sequence[float], texts: Sequence[str], colors: Sequence[str]
) -> Any:
    """A horizontal bar for each name, the first on top, with a text at its end."""
    made = axes(title, height=0.9 + 0.32 * len(names))
    drawn = made.barh(range(len(names)), values, color=colors, height=0.62)
    made.set_yticks(range(len(names)), names)
    made.invert_yaxis()
    made.bar_label(drawn, texts, padding=4, fontsize=9)
    made.set_xlim(0, max(values, default=0) * 1.25 or 1)
    made.tick_params(axis="both", length=0)
    made.xaxis.set_visible(False)
    made.spines["bottom"].set_visible(False)
    return drawing(made)


def curves(
    title: str,
    label: str,
    places: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    log: bool = False,
) -> Any:
    """Values by epoch, or by another number.

    Args:
        title, label: of the drawing, and of its horizontal axis.
        places: epochs, from 1; with `log` any numbers above 0.
        lines: name → values, as many as there are places; the last is the one that counts.
        log: space the places by their powers of ten; else only whole numbers stand at the axis.
    """
    from matplotlib.ticker import MaxNLocator

    made = axes(title)
    marker = "o" if len(places) < 30 else ""
    for number, (name, values) in enumerate(lines.items(), 1):
        color = GOOD if number == len(lines) else SOFT
        made.plot(places, values, color=color, label=name, marker=marker, markersize=3)
    if log:
        made.set_xscale("log")
    else:
        made.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    made.set_xlabel(label, fontsize=9)
    made.legend(frameon=False, fontsize=9)
    return drawing(made)


def thumbnail(pixels: Any) -> str:
    """A small picture for the `src` of an image, from uint8 `[H, W, 3]` or `[H, W]`."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMB, THUMB))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def spans(
    title: str, label: str, names: Sequence[str], spread: Sequence[Sequence[float]], colors: Sequence[str]
) -> Any:
    """A line for each name from its smallest to its largest value, the first on top, with a mark at each value.

    `label` stands below and says what the marks are.
    """
    made = axes(title, height=1.1 + 0.32 * len(names))
    for place, (values, color) in enumerate(zip(spread, colors, strict=True)):
        made.plot(values, [place] * len(values), "o-", color=color, markersize=4)
    made.set_yticks(range(len(names)), names)
    made.set_ylim(len(names) - 0.5, -0.5)
    made.figure.supxlabel(label, x=0.02, ha="left", fontsize=9)  # the axes are narrower where names are long
    made.tick_params(axis="y", length=0)
    return drawing(made)
