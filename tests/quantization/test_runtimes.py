"""Integer ONNX files for each runtime: what it refuses is not in them, what it computes fastest is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_effnet.errors import InvalidInputError
from keras_effnet.export import load, to_onnx
from keras_effnet.export.quantization import accuracy, placement
from keras_effnet.export.quantization.fold import fold
from keras_effnet.export.quantization.prepare import prepare
from keras_effnet.export.quantization.runtimes import RUNTIMES, get_runtime
from keras_effnet.export.quantization.steps import Product, Sum
from keras_effnet.export.quantization.weighted import Depthwise

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CONVOLUTIONS = ("Conv", "Gemm", "MatMul")


@pytest.fixture(scope="module")
def networks(tiny_swish: Any, calibration: Any) -> dict[str, Any]:
    """The tiny swish network for each runtime, all in integers."""
    return {
        name: prepare(tiny_swish, calibration, target="onnx", runtime=name, first_integer="stem")
        for name in RUNTIMES
    }


@pytest.fixture(scope="module")
def files(networks: dict[str, Any], tiny_swish: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("runtimes")
    return {
        name: to_onnx(tiny_swish, folder / f"{name}.onnx", "int8", network=network, runtime=name)
        for name, network in networks.items()
    }


class Reader:
    """An ONNX graph by its tensors."""

    def __init__(self, path: Path) -> None:
        self.graph = onnx.load(path).graph
        self.made = {name: node for node in self.graph.node for name in node.output}
        self.stored = {each.name: onnx.numpy_helper.to_array(each) for each in self.graph.initializer}

    def nodes(self, *kinds: str) -> Iterator[Any]:
        return (node for node in self.graph.node if node.op_type in kinds)

    def maker(self, tensor: str) -> str:
        """Kind of the node that makes a tensor; empty for what is stored or comes from outside."""
        return self.made[tensor].op_type if tensor in self.made else ""

    def points(self) -> Iterator[tuple[Any, Any, Any]]:
        for node in self.nodes("QuantizeLinear", "DequantizeLinear"):
            yield node, self.stored[node.input[1]], self.stored[node.input[2]]


# What TensorRT demands. The first four are checks of its ONNX parser (onnx-tensorrt 10.1, onnxOpImporters.cpp,
# QuantDequantLinearHelper; docs/operators.md), which refuses a file that breaks one of them.


def zero_points_are_zero_and_signed(file: Reader) -> bool:
    """'TensorRT only supports symmetric quantization. The zero point … must be all zeros'; UINT8 is refused."""
    return all(zero.dtype == np.int8 and not zero.any() for _, _, zero in file.points())


def scales_are_positive(file: Reader) -> bool:
    """'Scale coefficients must all be positive'."""
    return all((scale > 0).all() for _, scale, _ in file.points())


def nothing_of_32_bits_is_dequantized(file: Reader) -> bool:
    """'TensorRT only allows FP8, INT8, and INT4 quantization': biases are float."""
    return all(
        file.stored[node.input[0]].dtype == np.int8
        for node in file.nodes("DequantizeLinear")
        if node.input[0] in file.stored
    ) and all(
        file.stored[node.input[2]].dtype == np.float32 for node in file.nodes("Conv") if len(node.input) > 2
    )


def only_weights_have_a_scale_per_channel(file: Reader) -> bool:
    """'Activations-quantization does not support per-axis quantization'; for weights, one per output channel."""
    return all(
        scale.ndim == 0
        or (
            node.input[0] in file.stored
            and scale.shape == file.stored[node.input[0]].shape[:1]
            and node.attribute[0].i == 0
        )
        for node, scale, _ in file.points()
    )


def integers_are_never_cast(file: Reader) -> bool:
    """Its Cast takes no INT8."""
    return not any(True for _ in file.nodes("Cast"))


def inputs_of_kernels_are_quantized(file: Reader) -> bool:
    """Developer Guide, Q/DQ Layer-Placement Recommendations: 'Quantize all inputs of weighted operations'."""
    return all(
        file.maker(name) == "DequantizeLinear"
        for node in file.nodes(*CONVOLUTIONS)
        for name in node.input[:2]
    )


def inputs_of_sums_are_quantized(file: Reader) -> bool:
    """Same place: 'Quantize the residual input in skip connections', else the sum, and what it is fused with,
    computes in float."""
    sums = [node for node in file.nodes("Add") if all(name not in file.stored for name in node.input)]
    return bool(sums) and all(file.maker(name) == "DequantizeLinear" for node in sums for name in node.input)


def activations_are_float(file: Reader) -> bool:
    """Same place: 'By default, do not quantize the outputs of weighted operations': a swish is fused behind."""
    return all(
        file.maker(name) != "DequantizeLinear" for node in file.nodes("Sigmoid", "Mul") for name in node.input
    )


TENSORRT_RULES = (
    zero_points_are_zero_and_signed,
    scales_are_positive,
    nothing_of_32_bits_is_dequantized,
    only_weights_have_a_scale_per_channel,
    integers_are_never_cast,
    inputs_of_kernels_are_quantized,
    inputs_of_sums_are_quantized,
    activations_are_float,
)


@pytest.mark.parametrize("rule", TENSORRT_RULES, ids=lambda rule: rule.__name__)
def test_tensorrt_file_keeps_the_rule(files: dict[str, Path], rule: Any) -> None:
    assert rule(Reader(files["tensorrt"]))


def test_rules_of_tensorrt_find_what_it_refuses_in_a_file_for_onnx_runtime(files: dict[str, Path]) -> None:
    broken = {rule for rule in TENSORRT_RULES if not rule(Reader(files["onnxruntime"]))}
    assert {
        zero_points_are_zero_and_signed,
        nothing_of_32_bits_is_dequantized,
        activations_are_float,
    } <= broken


@pytest.mark.parametrize("name", RUNTIMES)
def test_file_computes_what_was_simulated(
    networks: dict[str, Any], files: dict[str, Path], held_out: Any, name: str
) -> None:
    logits = networks[name].logits(held_out)
    wanted = np.exp(logits - logits.max(1, keepdims=True))
    wanted /= wanted.sum(1, keepdims=True)
    assert np.sqrt(np.mean((load(files[name])(held_out) - wanted) ** 2)) < 0.06


def test_ranges_chosen_symmetric_lose_less_than_ranges_made_symmetric(
    networks: dict[str, Any], held_out: Any
) -> None:
    chosen, free = networks["tensorrt"], networks["openvino"]
    halves = {
        key: type(range_).symmetric(max(range_.high, -range_.low))
        for key, range_ in free.quantized.ranges.items()
    }
    made = replace(free, quantized=replace(free.quantized, ranges=halves))
    goal = free.logits(held_out, integer=False)
    ours, theirs = (accuracy.sqnr_db(goal, each.logits(held_out)) for each in (chosen, made))
    assert ours > theirs


def test_openvino_file_rounds_only_what_kernels_and_sums_read(files: dict[str, Path]) -> None:
    file = Reader(files["openvino"])
    assert inputs_of_kernels_are_quantized(file) and inputs_of_sums_are_quantized(file)
    assert activations_are_float(file)
    assert {zero.dtype for node, _, zero in file.points() if node.op_type == "QuantizeLinear"} == {
        np.dtype(np.uint8)
    }


def test_openvino_computes_every_convolution_in_integers(files: dict[str, Path]) -> None:
    """And fuses the swishes behind them: none is left to compute by itself."""
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(files["openvino"]), "CPU")
    kinds = [
        (facts["layerType"].astype(str), facts["runtimePrecision"].astype(str))
        for facts in (op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops())
    ]
    assert {precision for kind, precision in kinds if kind == "Convolution"} == {"u8"}
    products = sum(step.op_type == "Sigmoid" for step in onnx.load(files["openvino"]).graph.node)
    assert len([kind for kind, _ in kinds if kind == "Eltwise"]) < products


def test_tensorrt_file_shifts_what_only_kernels_without_padding_read(
    networks: dict[str, Any], files: dict[str, Path]
) -> None:
    """All levels for what is hardly ever negative, with the zero point 0: the biases behind take the shift back."""
    graph = networks["tensorrt"].quantized.graph
    shifted = {
        name.removesuffix("/shift") for name in Reader(files["tensorrt"]).stored if name.endswith("/shift")
    }
    products = {step.name for step in graph if isinstance(step, Product)}
    assert products <= shifted
    assert not [
        name for name in shifted for reader in graph.consumers(name) if isinstance(reader, Depthwise | Sum)
    ]


@pytest.mark.parametrize(
    ("name", "equalized"), [("onnxruntime", False), ("openvino", True), ("tensorrt", True)]
)
def test_channels_are_balanced_where_the_product_behind_a_swish_is_fused(
    networks: dict[str, Any], files: dict[str, Path], name: str, equalized: bool
) -> None:
    """The swish stays one that runtimes know, x · sigmoid(x), and a product by channel follows."""
    graph, file = networks[name].quantized.graph, Reader(files[name])
    gains = [step.name for step in graph.weighted if getattr(step.activation, "gain", None) is not None]
    assert bool(gains) is equalized
    for step in gains:
        assert graph.consumers(step) and all(isinstance(each, Depthwise) for each in graph.consumers(step))
        divided = file.made[f"{step}/divided"]
        swish = file.made[divided.input[0]]
        gate = next(file.made[each] for each in swish.input if file.maker(each) == "Sigmoid")
        assert gate.input[0] in swish.input and file.maker(gate.input[0]) == "Conv"
        assert file.stored[divided.input[1]].shape == (1, graph[step].channels, 1, 1)


def test_network_of_another_runtime_is_refused_for_tensorrt(
    tiny_swish: Any, networks: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=r"zero points are 0.*runtime='tensorrt' to prepare\(\)"):
        to_onnx(tiny_swish, tmp_path / "a.onnx", "int8", network=networks["openvino"], runtime="tensorrt")
    assert not list(tmp_path.iterdir())


def test_unknown_runtime_is_refused(tiny_swish: Any, calibration: Any) -> None:
    with pytest.raises(InvalidInputError, match="runtime to be one of onnxruntime, openvino, tensorrt"):
        prepare(tiny_swish, calibration, target="onnx", runtime="openvine")


def test_layer_that_is_not_there_cannot_be_the_first(tiny_swish: Any, calibration: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"beginning of a layer's name. Received: 'blok3'.*stem_conv"):
        prepare(tiny_swish, calibration, target="onnx", first_integer="blok3")


@pytest.mark.parametrize(
    ("ratios", "chosen"),
    [
        ({"all": (0.9, 0.6), "block3": (0.8, 0.9), "block5": (0.9, 0.9)}, ""),
        ({"all": (1.2, 0.8), "block3": (1.0, 0.8), "block5": (0.9, 0.9)}, "block5"),
        ({"all": (1.0, 1.0), "block3": (0.97, 1.0), "block5": (1.2, 1.2)}, "block3"),
    ],
)
def test_integers_begin_late_unless_that_costs_time(ratios: Any, chosen: str) -> None:
    """Of what is about equally fast, the most accurate."""
    assert placement.fastest(ratios) == chosen


def test_place_is_measured_and_told(
    tiny_swish: Any, calibration: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "ROUNDS", 3)
    graph = fold(tiny_swish)
    found = placement.place(graph, calibration, get_runtime("onnxruntime"), None)
    assert list(found.ratios) == ["all", "block3"]  # the small network has three stages
    assert all(len(each) == 2 and min(each) > 0 for each in found.ratios.values())
    assert found.first_integer == placement.fastest(found.ratios)


@pytest.mark.parametrize(
    ("runtime", "first"), [("onnxruntime", "block3"), ("openvino", None), ("tensorrt", None)]
)
def test_nothing_is_measured_when_it_is_clear_where_integers_begin(
    tiny_swish: Any, calibration: Any, monkeypatch: pytest.MonkeyPatch, runtime: str, first: str | None
) -> None:
    monkeypatch.setattr(placement, "measured", lambda *_: pytest.fail("measured"))
    found = placement.place(fold(tiny_swish), calibration, get_runtime(runtime), first)
    assert not found.ratios and (first is None or found.first_integer == first)


def test_embedding_is_not_rounded_on_its_way_out(tiny_lite: Any, calibration: Any, tmp_path: Path) -> None:
    """Eight bits of the largest photograph's range leave nothing of a faint one."""
    import keras

    features = keras.Model(tiny_lite.input, tiny_lite.get_layer("avg_pool").output)
    network = prepare(features, calibration, target="onnx")
    file = Reader(to_onnx(features, tmp_path / "a.onnx", "int8", network=network))
    last = file.graph.output[0].name
    while file.maker(last) in ("Flatten", "Reshape"):
        last = file.made[last].input[0]
    assert file.maker(last) == "GlobalAveragePool"
    assert not network.serves_all  # TFLite's output is an integer
