"""Multiply-adds of our counter beside two others: fvcore on PyTorch ports, and TensorFlow's profiler.

    python benchmarks/macs.py --torch-python build/torch/bin/python   # with torch, timm and fvcore
    python benchmarks/macs.py                                         # TensorFlow's profiler only

fvcore charges two for every value of a batch normalization and one for every pooled value; its
convolutions and dense layers alone are compared with ours, its whole count is shown beside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

# ours: timm's
TIMM = {
    **{f"b{index}": f"tf_efficientnet_b{index}" for index in range(8)},
    **{f"lite{index}": f"tf_efficientnet_lite{index}" for index in range(5)},
    "mobilenet_v1": "mobilenetv1_100",
    "mobilenet_v2": "mobilenetv2_100",
    "resnet50_v1.5": "resnet50",
}
NO_PORT = ("resnet50",)  # strides in the 1×1 convolutions, as only keras.applications does


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch-python", help="a Python with torch, timm and fvcore")
    parser.add_argument("--no-tensorflow", action="store_true", help="leave TensorFlow's profiler out")
    parser.add_argument("--count-torch", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.count_torch is not None:
        print(json.dumps(_count_torch(arguments.count_torch)))
        return
    from keras_effnet.commands.printing import table

    costs = {name: _ours(name) for name in (*TIMM, *NO_PORT)}
    torch = _ask_torch(arguments.torch_python, costs) if arguments.torch_python else {}
    rows = []
    for name, cost in costs.items():
        profiled = None if arguments.no_tensorflow else _count_tensorflow(name)
        port = torch.get(name)
        rows.append(
            [
                name,
                f"{cost.macs / 1e9:.4f}",
                f"{port['layers'] / 1e9:.4f}" if port else "–",
                f"{cost.macs / port['layers'] - 1:+.2%}" if port else "–",
                f"{port['all'] / 1e9:.4f}" if port else "–",
                f"{profiled / 1e9:.4f}" if profiled else "–",
                f"{cost.macs / profiled - 1:+.2%}" if profiled else "–",
            ]
        )
        print(" ".join(rows[-1]), file=sys.stderr)
    print(
        table(
            ["G multiply-adds", "ours", "fvcore", "ours / it", "fvcore, all", "TensorFlow", "ours / it"], rows
        )
    )


def _ours(name: str) -> Any:
    from keras_effnet.baselines import BASELINES, cost_of
    from keras_effnet.costs import cost_of_variant

    return cost_of(name) if name in BASELINES and name != "b0" else cost_of_variant(name)


def _count_tensorflow(name: str) -> int:
    import keras

    from keras_effnet import EfficientNet, baselines

    keras.backend.clear_session()
    known = name in baselines.BASELINES and name != "b0"
    model = baselines.build(name) if known else EfficientNet(name, weights=None)
    return profiled_macs(model)


def profiled_macs(model: Any) -> int:
    """Multiply-adds of convolutions and matrix products, as TensorFlow's profiler sees the frozen graph."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    concrete = tf.function(lambda x: model(x, training=False)).get_concrete_function(signature)
    frozen = convert_variables_to_constants_v2(concrete)
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(frozen.graph.as_graph_def(), name="")
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        profile = tf.compat.v1.profiler.profile(graph, cmd="op", options=options)
    products = ("Conv2D", "DepthwiseConv2dNative", "MatMul")
    total = 0
    node = profile
    while node.children:  # a chain: each child is the next kind of operation
        node = node.children[0]
        if node.name in products:
            total += node.float_ops
    return int(total) // 2  # the profiler counts a product and a sum


def _ask_torch(python: str, costs: Any) -> dict[str, dict[str, int]]:
    wanted = [f"{name}={TIMM[name]}={costs[name].input_shape[0]}" for name in TIMM]
    command = [python, __file__, "--count-torch", *wanted]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(answer.splitlines()[-1]))


def _count_torch(wanted: list[str]) -> dict[str, dict[str, int]]:
    """Runs in the Python with torch; knows nothing of this package."""
    import logging

    import torch

    for operator in (
        "nms(Tensor dets, Tensor scores, float t) -> Tensor",
        "qnms(Tensor d, Tensor s, float t) -> Tensor",
    ):
        try:
            torch.library.define(
                f"torchvision::{operator.partition('(')[0]}", "(" + operator.partition("(")[2]
            )
        except RuntimeError:
            continue  # torchvision is complete
    import timm
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    counts = {}
    for entry in wanted:
        name, timm_name, size = entry.split("=")
        model = timm.create_model(timm_name, pretrained=False).eval()
        with torch.no_grad():
            analysis = FlopCountAnalysis(model, torch.zeros(1, 3, int(size), int(size)))
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            by_operator = analysis.by_operator()
        counts[name] = {
            "layers": int(by_operator["conv"] + by_operator["linear"]),
            "all": int(analysis.total()),
        }
        print(name, counts[name], file=sys.stderr, flush=True)
    return counts


if __name__ == "__main__":
    main()
