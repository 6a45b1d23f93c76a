"""The paper's tables beside our counts, another counter, the command line and the figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from material import ROOT

from keras_effnet.baselines import build, cost_of
from keras_effnet.cli import main
from keras_effnet.costs import cost, cost_of_variant
from keras_effnet.scaling.published import deviations, table2, table3, table7

# fvcore's count of convolutions and dense layers on timm's PyTorch ports (benchmarks/macs.py)
FVCORE = {
    "b0": 0.3858,
    "b1": 0.6868,
    "b2": 0.9936,
    "b3": 1.8271,
    "b4": 4.3938,
    "b5": 10.2664,
    "b6": 19.0676,
    "b7": 37.7459,
    "lite0": 0.3852,
    "lite1": 0.6002,
    "lite2": 0.8597,
    "lite3": 1.3833,
    "lite4": 2.5530,
    "mobilenet_v1": 0.5687,
    "mobilenet_v2": 0.3008,
    "resnet50_v1.5": 4.0892,
}
TIMM = {"b0": 0.40, "b1": 0.71, "b2": 1.02, "b3": 1.87, "b4": 4.49, "b5": 10.46, "b6": 19.40, "b7": 38.33}
PAPER = {"b0": 0.39, "b1": 0.70, "b2": 1.0, "b3": 1.8, "b4": 4.2, "b5": 9.9, "b6": 19, "b7": 37}


@pytest.mark.parametrize("name", FVCORE)
def test_multiply_adds_equal_fvcores(name: str) -> None:
    counted = cost_of(name) if "net" in name else cost_of_variant(name)
    assert counted.macs / 1e9 == pytest.approx(FVCORE[name], abs=6e-5)


def test_multiply_adds_equal_tensorflows_profiler(tiny: Any) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from macs import profiled_macs
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    assert profiled_macs(tiny) == cost(tiny).macs
    assert profiled_macs(model := build("resnet50", resolution=64, depth=0.3)) == cost(model).macs


def test_family_is_within_three_percent_of_timms_table() -> None:
    for row in table2():
        assert row.timm_gmacs == TIMM[row.name] and row.paper_gmacs == PAPER[row.name]
        assert row.macs_with_norm / 1e9 == pytest.approx(TIMM[row.name], rel=0.03)
        assert row.macs / 1e9 == pytest.approx(PAPER[row.name], rel=0.05)


def test_scaled_rows_are_within_five_percent_or_explained() -> None:
    rows = (*table3(), *table7())
    assert len(rows) == 4 + 5 + 5 + 5
    explained = {(row.network, row.scale) for row in rows if row.note}
    assert explained == {
        ("resnet50_v1.5", "depth (d=4)"),
        ("resnet50_v1.5", "width (w=2)"),
        ("b0", "depth (d=4)"),
        ("b0", "width (w=2)"),
        ("b0", "resolution (r=2)"),
    }
    for row in rows:
        assert (abs(row.deviation) <= 0.05 or row.within_rounding) == (not row.note), row


def test_explanations_hold() -> None:
    b0 = cost_of("b0").macs
    assert cost_of("b0", resolution=448).macs / b0 == pytest.approx(4, abs=0.02)  # not 1.9 / 0.39
    assert cost_of("b0", depth=4.4).macs / 1e9 == pytest.approx(1.8, abs=0.05)
    assert cost_of("b0", width=2.2).macs / 1e9 == pytest.approx(1.8, abs=0.05)
    assert cost_of("b0", resolution=round(224 * 2.2)).macs / 1e9 == pytest.approx(1.9, abs=0.05)
    for depth, sign in ((4.2, 1), (4.4, -1)):
        assert sign * (16.2 - cost_of("resnet50_v1.5", depth=depth).macs / 1e9) > 0
    assert cost_of("resnet50_v1.5", width=1.9).macs / 1e9 == pytest.approx(14.7, rel=0.03)


def test_published_members_are_hand_rounded() -> None:
    found = {row.published.name: row for row in deviations()}
    assert found["b0"].macs == 0 and found["b0"].depth == 0
    assert found["b7"].depth == pytest.approx(3.1 / 1.2**7 - 1)
    assert found["b5"].width == pytest.approx(1.6 / 1.1**5 - 1)
    assert max(abs(row.resolution) for row in found.values()) < 0.04
    assert max(abs(row.macs) for row in found.values()) < 0.16


def test_tables_are_printed_side_by_side_without_keras(capsys: Any) -> None:
    assert main(["scale", "tables", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["table3"]) == 14
    code = "from keras_effnet.cli import main; import sys; main(['scale', 'tables']); print('keras' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "False"
    for piece in ("66,347,960", "37.746", "38.326", "resnet50_v1.5", "16.7", "b7", "-13.5%"):
        assert piece in printed


def test_members_and_budgets_on_the_command_line(capsys: Any) -> None:
    assert main(["scale", "at", "1.5", "--json"]) == 0
    (member,) = json.loads(capsys.readouterr().out)
    assert member["name"] == "b0-phi1.5" and member["resolution"] == 280
    assert main(["scale", "fit", "--max-params", "3e6", "--baseline", "mobilenet_v2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["params"] <= 3e6 and found["exceeded"] == ["max_params"]
    assert main(["scale", "fit", "--max-macs", "5"]) == 2
    assert "smallest network" in capsys.readouterr().err
    assert main(["scale", "at", "0", "--alpha", "0.5"]) == 2


@pytest.mark.parametrize("phi", ["50", "1e3", "1e4", "-1e3"])
def test_phi_out_of_range_is_one_line(phi: str, capsys: Any) -> None:
    assert main(["scale", "at", phi]) == 2
    said = capsys.readouterr().err
    assert "Expected phi to be a number from -12 to 12" in said and said.count("\n") == 1


@pytest.mark.parametrize("phi", ["-1e-3", "-0.1E-2", "-.001e0"])
def test_small_negative_phi_is_a_number_and_no_option(phi: str, capsys: Any) -> None:
    assert main(["scale", "at", phi, "1", "--json"]) == 0
    assert [entry["phi"] for entry in json.loads(capsys.readouterr().out)] == [-0.001, 1]


def test_cost_on_the_command_line(tiny: Any, tmp_path: Path, capsys: Any) -> None:
    assert main(["cost", "b4", "--per-block"]) == 0
    out = capsys.readouterr().out
    assert "4.394 G" in out and "block7b" in out and "predictions" in out
    tiny.save(tmp_path / "tiny.keras")
    assert main(["cost", str(tmp_path / "tiny.keras"), "lite0", "--batch", "2", "--json"]) == 0
    mine, lite0 = json.loads(capsys.readouterr().out)
    assert mine["macs"] == 2 * cost(tiny).macs and lite0["params"] == 4_652_008
    assert main(["cost", "mobilenet_v2", "ResNet50", "--size", "96", "--json"]) == 0
    small, large = json.loads(capsys.readouterr().out)
    assert small["macs"] == cost_of("mobilenet_v2", resolution=96).macs
    assert (large["params"], large["input_shape"]) == (cost_of("resnet50").params, [96, 96, 3])


def test_wrong_networks_and_files_are_one_line(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "broken.keras").write_bytes(b"PK not a zip")
    for name, message in (
        ("b9", "Expected the network to be one of b0"),
        ("mobilenet_v3", "Did you mean 'mobilenet_v2'"),
        ("nothing.keras", "which does not exist"),
        (str(tmp_path / "broken.keras"), "It cannot be read"),
    ):
        assert main(["cost", name]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    pytest.importorskip("matplotlib")
    assert main(["scale", "figures", "--out", str(tmp_path / "broken.keras")]) == 2
    said = capsys.readouterr().err
    assert "Expected a folder to write" in said and said.count("\n") == 1


def test_latency_limit_on_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from keras_effnet.commands import scale

    asked: list[tuple[str, int]] = []

    def latency(target: str, *, threads: int) -> Any:
        asked.append((target, threads))
        return lambda model: cost(model).macs / 1e6  # a machine of a gigahertz, without noise

    monkeypatch.setattr(scale, "latency", latency)
    options = ["scale", "fit", "--baseline", "mobilenet_v1", "--max-params", "1.2e6", "--max-latency", "20"]
    assert main([*options, "--latency-of", "onnx:float32", "--threads", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["exceeded"] == ["max_latency_ms"] and found["latency_ms"] == found["macs"] / 1e6 <= 20
    assert asked == [("onnx:float32", 2)]
    assert main([*options, "--latency-of", "keras", "--threads", "2"]) == 2
    assert "Expected --threads with the latency of a tflite or onnx file" in capsys.readouterr().err


def test_mistakes_in_a_budget_are_told_before_tensorflow_is_loaded() -> None:
    code = (
        "import sys; from keras_effnet.cli import main\n"
        "mistakes = ['--max-macs 10', '--max-macs 1e9 --dimension height', '--max-latency 5 --dimension height']\n"
        "print([main(['scale', 'fit', *mistake.split()]) for mistake in mistakes], 'keras' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[2,", "2,", "2]", "False"]
    assert [line.split(".")[0] for line in done.stderr.splitlines()] == [
        "keras-effnet: Expected limits that the smallest network, phi -12, meets",
        "keras-effnet: Expected dimension to be one of compound, depth, width, resolution",
        "keras-effnet: Expected dimension to be one of compound, depth, width, resolution",
    ]


def test_figures_are_drawn_from_the_counts(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    from keras_effnet.scaling.figures import accuracy_figure

    assert main(["scale", "figures", "--out", str(tmp_path / "f")]) == 0
    files = sorted((tmp_path / "f").iterdir())
    assert [str(file) for file in files] == sorted(capsys.readouterr().out.split())
    for file in files:
        with Image.open(file) as picture:
            assert np.asarray(picture.convert("L")).std() > 5  # something is on it
    (axes,) = accuracy_figure("macs").axes
    line = next(line for line in axes.lines if line.get_label() == "EfficientNet, imagenet")
    np.testing.assert_allclose(line.get_xdata(), [row.macs / 1e9 for row in table2()])
    assert list(line.get_ydata()) == [77.1, 79.1, 80.1, 81.6, 82.9, 83.6, 84.0, 84.3]


@pytest.mark.parametrize("against", ["macs", "parameters"])
def test_labels_of_the_accuracy_figure_lie_on_nothing_else(against: str) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from keras_effnet.scaling.figures import PEERS, accuracy_figure

    figure = accuracy_figure(against)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    boxes = {text.get_text(): text.get_window_extent(canvas.get_renderer()) for text in axes.texts}
    assert len(boxes) >= len(PEERS) - 1 + 8
    boxes["legend"] = axes.get_legend().get_window_extent(canvas.get_renderer())
    names = list(boxes)
    touching = [
        (one, other)
        for index, one in enumerate(names)
        for other in names[index + 1 :]
        if boxes[one].overlaps(boxes[other])
    ]
    assert touching == []
    points = [axes.transData.transform(point) for line in axes.lines for point in line.get_xydata()]
    assert [name for name, box in boxes.items() for point in points if box.contains(*point)] == []


def test_activation_maps_stand_side_by_side_in_the_colours_of_explain(tiny: Any, pixels64: Any) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("keras_effnet.explain")
    from keras_effnet.errors import InvalidInputError
    from keras_effnet.explain import class_activation_map, overlay
    from keras_effnet.scaling.figures import cam_figure

    figure = cam_figure({"one": tiny, "two": tiny}, list(pixels64[:2]))
    assert [axes.get_title() for axes in figure.axes] == ["", "one", "two"] * 2
    (shown,) = figure.axes[1].images
    wanted = overlay(pixels64[0], class_activation_map(tiny, pixels64[0]))
    np.testing.assert_array_equal(shown.get_array(), wanted)
    with pytest.raises(InvalidInputError, match="at least one model and one picture"):
        cam_figure({}, pixels64)
    with pytest.raises(InvalidInputError, match=r"models as label → model.*Received: a list"):
        cam_figure([tiny], pixels64)
