"""The paper's figures, drawn from our counts: what scaling costs, and what it buys.

Published accuracies are data of the weight catalog; those of other networks are the paper's Table 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_effnet.baselines import BASELINES
from keras_effnet.costs import cost_of_variant
from keras_effnet.errors import InvalidInputError, require
from keras_effnet.network.variants import B_SERIES
from keras_effnet.reports.page import BAD, GOOD
from keras_effnet.scaling.compound import DIMENSIONS, CompoundScaling, single_dimension
from keras_effnet.scaling.published import PUBLISHED_PHI
from keras_effnet.system.files import staged

# network: (parameters in M, multiply-adds in G or None, top-1), arXiv:1905.11946, Table 2
PEERS: dict[str, tuple[float, float | None, float]] = {
    "ResNet-50": (26, 4.1, 76.0),
    "ResNet-152": (60, 11, 77.8),
    "DenseNet-264": (34, 6.0, 77.9),
    "Inception-v3": (24, 5.7, 78.8),
    "Xception": (23, 8.4, 79.0),
    "Inception-v4": (48, 13, 80.0),
    "ResNeXt-101": (84, 32, 80.9),
    "SENet": (146, 42, 82.7),
    "NASNet-A": (89, 24, 82.7),
    "AmoebaNet-C": (155, 41, 83.5),
    "GPipe": (557, None, 84.3),
}
LABELLED_LEFT = ("DenseNet-264", "Inception-v3", "NASNet-A")  # another one lies to their right
# how B0 was scaled: top-1 in the paper's Table 7
TABLE7_TOP1 = {"baseline": 77.3, "depth": 79.0, "width": 78.9, "resolution": 79.1, "compound": 81.1}

PALE = "#9aa5a1"
COLOURS = {"compound": GOOD, "depth": BAD, "width": "#4f81bd", "resolution": "#d79b2b"}


def write_figures(out: Path) -> list[Path]:
    """Write every figure that needs no trained weights as a PNG file; the folder is created.

    Raises:
        InvalidInputError: `out` is no folder, or cannot be created.
        MissingExtraError: Matplotlib is not installed.
    """
    require("matplotlib", "report")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(
            f"Expected a folder for the figures. Received: {str(out)!r} ({error.strerror}). Choose another folder."
        ) from error
    drawings: dict[str, Callable[[], Any]] = {
        "accuracy_parameters.png": lambda: accuracy_figure("parameters"),
        "accuracy_macs.png": lambda: accuracy_figure("macs"),
        "growth.png": growth_figure,
        "dimensions.png": dimensions_figure,
    }
    paths = []
    for name, draw in drawings.items():
        with staged(out / name, overwrite=True) as temporary:
            draw().savefig(temporary, format="png", dpi=110, metadata={"Software": None})
        paths.append(out / name)
    return paths


def accuracy_figure(against: str) -> Any:
    """Top-1 of the published family and of the paper's peers, against `"parameters"` or `"macs"` (its figures 1 and 5)."""
    if against not in ("parameters", "macs"):
        raise InvalidInputError(f"Expected against to be 'parameters' or 'macs'. Received: {against!r}.")
    figure, axes = _axes("top-1 on ImageNet, %")
    costs = {name: cost_of_variant(name) for name in B_SERIES}
    places = {
        name: cost.params / 1e6 if against == "parameters" else cost.macs / 1e9
        for name, cost in costs.items()
    }
    _draw_family(axes, places)
    _draw_peers(axes, against)
    _plain_log(
        axes.xaxis, (5, 10, 20, 50, 100, 200, 500) if against == "parameters" else (0.5, 1, 2, 5, 10, 20, 50)
    )
    axes.set_xlabel("parameters, M" if against == "parameters" else "multiply-adds, G")
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def _draw_family(axes: Any, places: Mapping[str, float]) -> None:
    """The published sets of B0–B7, each a line; `places` are their abscissas."""
    from keras_effnet.weights.catalog import CATALOG

    for label, colour in (("imagenet", GOOD), ("noisy-student", "#4f81bd"), ("advprop", "#d79b2b")):
        found = {
            entry.variant: entry.top1 for entry in CATALOG if entry.name == label and entry.variant in places
        }
        names = [name for name in B_SERIES if name in found]
        axes.plot(
            [places[n] for n in names],
            [found[n] for n in names],
            "o-",
            ms=4,
            color=colour,
            label=f"EfficientNet, {label}",
        )
        if label == "imagenet":
            for name in names:
                axes.annotate(
                    name.upper(),
                    (places[name], found[name]),
                    xytext=(4, -10),
                    textcoords="offset points",
                    fontsize=8,
                )


def _draw_peers(axes: Any, against: str) -> None:
    """The paper's peers, each a labelled point."""
    for name, (params, gmacs, top1) in PEERS.items():
        place = params if against == "parameters" else gmacs
        if place is not None:
            axes.plot(place, top1, "o", ms=4, color=PALE)
            left = name in LABELLED_LEFT
            axes.annotate(
                name,
                (place, top1),
                xytext=(-4 if left else 4, -3),
                ha="right" if left else "left",
                textcoords="offset points",
                fontsize=7,
                color="#666666",
            )


def growth_figure() -> Any:
    """Multiply-adds over those of the baseline, counted on built networks, against 2^phi."""
    figure, axes = _axes("multiply-adds / baseline's")
    steps = [index / 8 for index in range(-32, 57)]
    axes.plot(steps, [2**phi for phi in steps], "--", color=PALE, label="2^phi")
    rule = CompoundScaling()
    axes.plot(
        steps,
        [rule.predicted_growth(phi) for phi in steps],
        ":",
        color="#333333",
        label="(α·β²·γ²)^phi = 1.92^phi",
    )
    colours = (GOOD, BAD, "#4f81bd", "#d79b2b")
    for (name, baseline), colour in zip(
        ((name, BASELINES[name]) for name in ("b0", "mobilenet_v1", "mobilenet_v2", "resnet50")),
        colours,
        strict=True,
    ):
        scaling = CompoundScaling(baseline=baseline)
        unscaled = scaling.cost(0).macs
        axes.plot(
            steps,
            [scaling.cost(phi).macs / unscaled for phi in steps],
            color=colour,
            lw=1.2,
            label=f"built from {name}",
        )
    b0 = cost_of_variant("b0").macs
    published = {name: cost_of_variant(name).macs / b0 for name in B_SERIES}
    axes.plot(
        [PUBLISHED_PHI[name] for name in B_SERIES],
        list(published.values()),
        "ko",
        ms=4,
        label="published B0–B7",
    )
    axes.set_yscale("log", base=2)
    axes.set_xlabel("phi")
    axes.legend(fontsize=8, frameon=False)
    return figure


def dimensions_figure() -> Any:
    """One dimension against all: what each member costs and what the paper's Table 7 got for it.

    The paper gives its four members 1.8 to 1.9 G; ours of the same factors have 1.45 to 1.80 G.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    scaling = CompoundScaling()
    steps = [index / 4 for index in range(0, 17)]
    for dimension in DIMENSIONS:
        members = [single_dimension(scaling, dimension, phi) for phi in steps]
        costs = [scaling.cost(member) for member in members]
        left.plot(
            [cost.macs / 1e9 for cost in costs],
            [cost.params / 1e6 for cost in costs],
            "-",
            color=COLOURS[dimension],
            label=dimension,
        )
    _plain_log(left.xaxis, (0.5, 1, 2, 5))
    _plain_log(left.yaxis, (5, 10, 20, 50))
    left.set_xlabel("multiply-adds, G")
    left.set_ylabel("parameters, M")
    left.set_title("what the same multiply-adds hold", loc="left", fontsize=10)
    left.legend(fontsize=8, frameon=False)
    names = list(TABLE7_TOP1)
    bars = right.bar(
        names, [TABLE7_TOP1[n] for n in names], color=[COLOURS.get(n, PALE) for n in names], width=0.6
    )
    right.bar_label(bars, fmt="%.1f", fontsize=8)
    right.set_ylim(76, 82)
    right.set_title("top-1 of B0, scaled to the paper's 1.8–1.9 G (Table 7)", loc="left", fontsize=10)
    for axes in (left, right):
        _style(axes)
    return figure


def cam_figure(models: Mapping[str, Any], images: Sequence[Any], *, class_index: int | None = None) -> Any:
    """Class activation maps of several networks on the same pictures (the paper's figure 7).

    Args:
        models: label → trained model with a classifier behind global pooling.
        images: RGB pictures 0–255, [H, W, 3]; each is resized to every model's input.
        class_index: of the maps; None for each network's own best class.

    Returns:
        A Matplotlib `Figure`: a row for each picture, a column for each network.

    Raises:
        InvalidInputError: no models or no pictures, or models without labels.
    """
    if not isinstance(models, Mapping):
        raise InvalidInputError(
            f"Expected models as label → model, for example {{'B0': model}}. Received: a {type(models).__name__}."
        )
    if not models or not len(images):
        raise InvalidInputError(
            f"Expected at least one model and one picture. Received: {len(models)} and {len(images)}."
        )
    import keras
    import numpy as np
    from matplotlib.figure import Figure

    from keras_effnet.explain import class_activation_map, overlay

    figure = Figure(figsize=(2.0 * (len(models) + 1), 2.1 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), len(models) + 1, squeeze=False)
    for row, image in zip(grid, images, strict=True):
        row[0].imshow(np.asarray(image, "uint8"))
        for axes, (label, model) in zip(row[1:], models.items(), strict=True):
            side = int(model.input_shape[1])
            resized = np.asarray(keras.ops.image.resize(np.asarray(image, "float32"), (side, side)))
            axes.imshow(overlay(resized, class_activation_map(model, resized, class_index)))
            axes.set_title(label, fontsize=8)
        for axes in row:
            axes.set_axis_off()
    return figure


def _plain_log(axis: Any, ticks: Sequence[float]) -> None:
    """A logarithmic axis with these places on it, written as plain numbers."""
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)


def _axes(label: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_ylabel(label)
    _style(axes)
    return figure, axes


def _style(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
