"""`keras-effnet cost`: parameters, multiply-adds and memory of a network."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_effnet.baselines import BASELINES, cost_of, get_baseline
from keras_effnet.commands.flags import add_json, whole_number
from keras_effnet.commands.models import NETWORKS, choose, load_keras
from keras_effnet.commands.printing import table
from keras_effnet.costs import cost, cost_of_variant
from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.variants import VARIANTS, get_variant

NAME = "cost"
HELP = "count parameters, multiply-adds and memory, without running the network"
EXAMPLES = """\
  keras-effnet cost b0 lite0 mobilenet_v2
  keras-effnet cost b3 --size 224 --per-block
  keras-effnet cost mine.keras --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="+",
        metavar="NETWORK|FILE.keras",
        help="b0 … l2, lite0 … lite4, mobilenet_v1, mobilenet_v2, resnet50, resnet50_v1.5, or a file",
    )
    parser.add_argument(
        "--size", type=whole_number(32), metavar="PIXELS", help="side of the input (default: its own)"
    )
    parser.add_argument("--batch", type=whole_number(1), default=1, help="pictures per call (default: 1)")
    detail = parser.add_mutually_exclusive_group()
    detail.add_argument("--per-block", action="store_true", help="one row for each block")
    detail.add_argument("--per-layer", action="store_true", help="one row for each layer")
    add_json(parser)


def check(arguments: argparse.Namespace) -> None:
    arguments.files = {}
    for name in arguments.models:
        if _is_path(name) and (path := choose(name, NETWORKS, flag="NETWORK").path) is not None:
            arguments.files[name] = path
        else:
            _cost_of_name(name, arguments)


def run(arguments: argparse.Namespace) -> int:
    costs = {name: _cost(name, arguments) for name in arguments.models}
    if arguments.json:
        print(
            json.dumps([{"model": name} | _fields(cost, arguments) for name, cost in costs.items()], indent=2)
        )
        return 0
    rows = [
        [
            Path(name).name,
            "×".join(map(str, cost.input_shape[:2])),
            f"{cost.params / 1e6:.2f} M",
            f"{cost.macs / 1e9:.3f} G",
            f"{cost.peak_activation_bytes / 1e6:.1f} MB",
            f"{cost.activation_bytes / 1e6:.1f} MB",
            f"{cost.file_bytes / 1e6:.1f} MB",
        ]
        for name, cost in costs.items()
    ]
    header = [
        "model",
        "input",
        "parameters",
        "multiply-adds",
        "peak activations",
        "all activations",
        "weights",
    ]
    print(table(header, rows))
    for name, counted in costs.items():
        if arguments.per_block or arguments.per_layer:
            print(f"\n{name}")
            print(_details(counted, counted.per_block() if arguments.per_block else counted.per_layer))
    print("Multiply-adds of convolutions and dense layers; activations and weights as float32.")
    return 0


def _cost(name: str, arguments: argparse.Namespace) -> Any:
    if name not in arguments.files:
        return _cost_of_name(name, arguments)
    model = load_keras(arguments.files[name])
    shape = None
    if arguments.size:
        if len(model.inputs) != 1:
            raise InvalidInputError(
                f"Expected a model with one picture as its input for --size. Received: {name!r} with "
                f"{len(model.inputs)} inputs. Leave --size out."
            )
        shape = (arguments.size, arguments.size, model.inputs[0].shape[-1])
    return cost(model, input_shape=shape, batch=arguments.batch)


def _is_path(name: str) -> bool:
    """Whether a name is meant for a file or folder: names of networks have no ending but `resnet50_v1.5`."""
    path = Path(name).expanduser()
    return name not in BASELINES and (bool(path.suffix) or path.name != name or path.exists())


def _cost_of_name(name: str, arguments: argparse.Namespace) -> Any:
    """Of a variant, or else of a baseline: neither needs Keras."""
    given = {"resolution": arguments.size, "batch": arguments.batch}
    try:
        variant = get_variant(name)
    except InvalidInputError:
        try:
            baseline = get_baseline(name)
        except InvalidInputError:
            raise unknown_name("the network", name, dict.fromkeys([*VARIANTS, *BASELINES])) from None
        return cost_of(baseline, **given)
    return cost_of_variant(variant, **given)


def _fields(cost: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    fields = asdict(cost)
    layers = fields.pop("per_layer")
    if arguments.per_layer:
        fields["per_layer"] = layers
    if arguments.per_block:
        fields["per_block"] = [asdict(block) for block in cost.per_block()]
    return fields


def _details(cost: Any, parts: Any) -> str:
    rows = [
        [
            part.name,
            part.kind,
            "×".join(map(str, part.output_shape)),
            f"{part.params:,}",
            f"{part.macs / 1e6:.2f} M",
            f"{part.macs / cost.macs:.1%}",
            f"{part.activation_bytes / 1e6:.2f} MB",
        ]
        for part in parts
    ]
    return table(
        ["name", "kind", "output", "parameters", "multiply-adds", "share", "activations"], rows, left=2
    )
