"""`keras-effnet scale`: the paper's scaling method and its tables."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from keras_effnet.baselines import get_baseline
from keras_effnet.commands import searches
from keras_effnet.commands.flags import add_action, add_json, amount, folder_path, whole_number
from keras_effnet.commands.printing import table
from keras_effnet.errors import InvalidInputError
from keras_effnet.export import latency
from keras_effnet.scaling import CompoundScaling
from keras_effnet.scaling.budget import call_latency_ms
from keras_effnet.scaling.figures import write_figures
from keras_effnet.scaling.published import deviations, table2, table3, table7
from keras_effnet.system.files import check_writable
from keras_effnet.system.quiet import import_keras, quiet_native

NAME = "scale"
HELP = "compound scaling: members, budgets, grid search, the paper's tables and figures"
EXAMPLES = """\
  keras-effnet scale at 0 1 2
  keras-effnet scale fit --max-macs 800M --max-params 8M
  keras-effnet scale fit --max-latency 20 --latency-of tflite:float32 --threads 4
  keras-effnet scale tables"""
THREADED = ("tflite", "onnx")  # the others take the threads that TensorFlow was started with
TIMED = ("keras", "saved_model", "tflite:float32", "tflite:float16", "onnx:float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    tables = add_action(
        actions,
        "tables",
        "Tables 2, 3 and 7 of the paper beside our counts",
        "  keras-effnet scale tables\n  keras-effnet scale tables --json",
    )
    add_json(tables)
    at = add_action(
        actions,
        "at",
        "members at given values of phi",
        "  keras-effnet scale at 0 0.5 1.5\n  keras-effnet scale at 1 2 --baseline mobilenet_v2 --alpha 1.3",
    )
    at.add_argument(
        "phi", nargs="+", type=float, help="from -12 to 12; 0 is the baseline, negative is smaller"
    )
    _add_rule(at)
    add_json(at)
    fit = add_action(
        actions,
        "fit",
        "the largest network within a budget",
        "  keras-effnet scale fit --max-macs 800M --max-params 8M\n"
        "  keras-effnet scale fit --max-latency 20 --latency-of tflite:float32 --threads 4",
    )
    fit.add_argument("--max-macs", type=amount, metavar="N", help="multiply-adds, for example 800M")
    fit.add_argument("--max-params", type=amount, metavar="N", help="trained weights, for example 8M")
    fit.add_argument("--max-memory", type=amount, metavar="BYTES", help="activations alive at once, float32")
    fit.add_argument("--max-latency", type=float, metavar="MS", help="time for one picture")
    fit.add_argument(
        "--latency-of", choices=TIMED, default="tflite:float32", help="what to time (default: %(default)s)"
    )
    fit.add_argument(
        "--threads", type=whole_number(1), metavar="N", help="for the latency of tflite and onnx (default: 1)"
    )
    fit.add_argument("--dimension", default="compound", help="compound, or depth, width, resolution alone")
    fit.add_argument(
        "--classes",
        type=whole_number(1),
        default=1000,
        metavar="N",
        help="that the network tells apart (default: 1000)",
    )
    _add_rule(fit)
    add_json(fit)
    searches.add_search(actions)
    searches.add_architecture(actions)
    figures = add_action(
        actions,
        "figures",
        "the paper's figures as PNG files (extra 'report')",
        "  keras-effnet scale figures --out figures",
    )
    figures.add_argument(
        "--out", default="figures", type=folder_path, metavar="DIR", help="folder for them (default: figures)"
    )


def _add_rule(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alpha", type=float, help="depth (default: 1.2)")
    parser.add_argument("--beta", type=float, help="width (default: 1.1)")
    parser.add_argument("--gamma", type=float, help="resolution (default: 1.15)")
    parser.add_argument(
        "--baseline",
        default="b0",
        help="b0 (default), lite0, mobilenet_v1, mobilenet_v2, resnet50, resnet50_v1.5",
    )


def check(arguments: argparse.Namespace) -> None:
    if arguments.action in ("at", "fit"):
        _rule(arguments)
    if arguments.action == "fit":
        _check_fit(arguments)
    if arguments.action in ("search", "architecture"):
        searches.check(arguments)
    if arguments.action == "figures":
        check_writable(arguments.out / "figure.png")


def _check_fit(arguments: argparse.Namespace) -> None:
    if arguments.threads is not None and not arguments.latency_of.startswith(THREADED):
        raise InvalidInputError(
            f"Expected --threads with the latency of a tflite or onnx file. Received: --latency-of "
            f"{arguments.latency_of}, which uses TensorFlow's threads. Leave --threads out."
        )
    limits = ("max_macs", "max_params", "max_memory", "max_latency")
    if all(getattr(arguments, limit) is None for limit in limits):
        named = ", ".join(f"--{limit.replace('_', '-')}" for limit in limits)
        raise InvalidInputError(f"Expected at least one of {named}. Received: none.")


def run(arguments: argparse.Namespace) -> int:
    actions = {
        "tables": _tables,
        "at": _at,
        "fit": _fit,
        "search": searches.search,
        "architecture": searches.architecture,
        "figures": _figures,
    }
    return actions[arguments.action](arguments)


def _rule(arguments: argparse.Namespace) -> Any:
    given = {name: getattr(arguments, name) for name in ("alpha", "beta", "gamma")}
    coefficients = {name: value for name, value in given.items() if value is not None}
    return CompoundScaling(**coefficients, baseline=get_baseline(arguments.baseline))


def _tables(arguments: argparse.Namespace) -> int:
    family, others, own, formula = table2(), table3(), table7(), deviations()
    if arguments.json:
        rows = {
            "table2": [asdict(row) for row in family],
            "table3": [asdict(row) | {"macs": row.macs, "deviation": row.deviation} for row in others],
            "table7": [asdict(row) | {"macs": row.macs, "deviation": row.deviation} for row in own],
            "formula": [
                {"name": row.published.name, "phi": row.phi}
                | {key: getattr(row, key) for key in ("depth", "width", "resolution", "macs")}
                for row in formula
            ],
        }
        print(json.dumps(rows, indent=2))
        return 0
    _print_family(family)
    for title, scaled in (("Table 3", others), ("Table 7", own)):
        _print_scaled(title, scaled)
    _print_deviations(formula)
    return 0


def _print_family(rows: Any) -> None:
    print("Table 2: G multiply-adds. timm's count charges two for every value behind a batch normalization.")
    header = ["", "parameters", "ours", "paper", "", "ours + 2 per norm", "timm", ""]
    lines = [
        [
            row.name,
            f"{row.params:,}",
            f"{row.macs / 1e9:.3f}",
            f"{row.paper_gmacs:g}",
            f"{row.macs / row.paper_gmacs / 1e9 - 1:+.1%}",
            f"{row.macs_with_norm / 1e9:.3f}",
            f"{row.timm_gmacs:.2f}",
            f"{row.macs_with_norm / row.timm_gmacs / 1e9 - 1:+.1%}",
        ]
        for row in rows
    ]
    print(table(header, lines))


def _print_scaled(title: str, rows: Any) -> None:
    print(f"\n{title}: G multiply-adds of scaled networks.")
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    lines = []
    for row in rows:
        remark = "the same at one decimal" if row.within_rounding else ""
        lines.append(
            [
                row.network,
                row.scale,
                f"{row.macs / 1e9:.2f}",
                f"{row.paper_gmacs:g}",
                f"{row.deviation:+.1%}",
                f"[{notes.index(row.note) + 1}]" if row.note else remark,
            ]
        )
    print(table(["network", "scale", "ours", "paper", "", ""], lines, left=2))
    for number, note in enumerate(notes, start=1):
        print(f"  [{number}] {note}")


def _print_deviations(rows: Any) -> None:
    print("\nThe published members beside the formula 1.2^phi, 1.1^phi, 1.15^phi.")
    lines = [
        [
            row.published.name,
            f"{row.phi:g}",
            *(f"{getattr(row, key):+.1%}" for key in ("depth", "width", "resolution", "macs")),
        ]
        for row in rows
    ]
    print(table(["", "phi", "depth", "width", "resolution", "multiply-adds"], lines))


def _at(arguments: argparse.Namespace) -> int:
    rule = _rule(arguments)
    entries = []
    for phi in arguments.phi:
        member, cost = rule.at(phi), rule.cost(phi)
        growth = {"predicted": rule.predicted_growth(phi), "actual": rule.actual_growth(phi)}
        entries.append(
            _member_fields(member) | {"phi": phi, "params": cost.params, "macs": cost.macs, "growth": growth}
        )
    if arguments.json:
        print(json.dumps(entries, indent=2))
        return 0
    rows = [
        [
            entry["name"],
            f"{entry['depth']:.2f}",
            f"{entry['width']:.2f}",
            f"{entry['resolution']} px",
            f"{entry['dropout']:.2f}",
            f"{entry['params'] / 1e6:.2f} M",
            f"{entry['macs'] / 1e9:.3f} G",
            f"{entry['growth']['predicted']:.2f}",
            f"{entry['growth']['actual']:.2f}",
        ]
        for entry in entries
    ]
    header = [
        "member",
        "depth",
        "width",
        "input",
        "dropout",
        "parameters",
        "multiply-adds",
        "growth: formula",
        "built",
    ]
    print(table(header, rows))
    return 0


def _member_fields(member: Any) -> dict[str, Any]:
    """A member for programs: its baseline by its name."""
    fields = {field.name: getattr(member, field.name) for field in dataclasses.fields(member)}
    return fields | {"baseline": member.baseline.name}


def _fit(arguments: argparse.Namespace) -> int:
    # Keras is imported when the first network is built; most mistakes are told before
    with quiet_native():
        found = _rule(arguments).fit(
            max_macs=arguments.max_macs,
            max_params=arguments.max_params,
            max_memory=arguments.max_memory,
            max_latency_ms=arguments.max_latency,
            dimension=arguments.dimension,
            classes=arguments.classes,
            measure=_stopwatch(arguments.latency_of, arguments.threads or 1),
        )
    cost = found.cost
    if arguments.json:
        fields = {
            "phi": found.phi,
            **_member_fields(found.member),
            "params": cost.params,
            "macs": cost.macs,
            "peak_activation_bytes": cost.peak_activation_bytes,
            "latency_ms": found.latency_ms,
            "next_phi": found.next_phi,
            "exceeded": found.exceeded,
        }
        print(json.dumps(fields, indent=2))
        return 0
    member = found.member
    print(
        f"{member.name}: depth {member.depth:.3f}, width {member.width:.3f}, {member.resolution} px, "
        f"dropout {member.dropout:g}\n{cost.params / 1e6:.2f} M parameters, {cost.macs / 1e9:.3f} G multiply-adds, "
        f"{cost.peak_activation_bytes / 1e6:.1f} MB of activations at once"
        + (f", {found.latency_ms:.1f} ms" if found.latency_ms is not None else "")
        + f"\nphi {found.next_phi:g} breaks {', '.join(found.exceeded)}"
    )
    return 0


def _stopwatch(latency_of: str, threads: int) -> Callable[[Any], float]:
    """From a Keras model to milliseconds; what it times with is imported when the first model is there."""

    @functools.cache
    def timer() -> Callable[[Any], float]:
        import_keras()
        if latency_of == "keras":
            return call_latency_ms
        return latency(latency_of, threads=threads)

    def measure(model: Any) -> float:
        return timer()(model)

    return measure


def _figures(arguments: argparse.Namespace) -> int:
    for path in write_figures(arguments.out):
        print(path)
    return 0
