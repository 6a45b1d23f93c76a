"""`keras-effnet list`: variants, sizes, weight sets, published accuracy."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from keras_effnet.commands.flags import add_json
from keras_effnet.commands.printing import table
from keras_effnet.costs import cost_of_variant
from keras_effnet.network.variants import VARIANTS, architecture_of
from keras_effnet.weights.catalog import published, sets_of

NAME = "list"
HELP = "variants, weight sets, sizes and published accuracy"
EXAMPLES = """\
  keras-effnet list
  keras-effnet list --json | jq '.[] | select(.resolution <= 260) | .variant'"""

WIDTH = 120  # where there is no terminal
NARROWEST = 20  # of the weight sets
GAP = "   "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def check(arguments: argparse.Namespace) -> None:
    del arguments  # nothing can be wrong with them


def run(arguments: argparse.Namespace) -> int:
    entries: list[dict[str, Any]] = []
    for variant in VARIANTS.values():
        architecture = architecture_of(variant)
        entries.append(
            {
                "variant": variant.name,
                "resolution": variant.resolution,
                "width": variant.width,
                "depth": variant.depth,
                "blocks": len(architecture.blocks),
                "parameters": cost_of_variant(variant).params,
                "weights": {
                    entry.name: {
                        "top1": entry.top1,
                        "resolution": entry.resolution,
                        "crop": round(entry.crop, 4),
                        "licence": entry.licence,
                        "larger": entry.larger and asdict(entry.larger),
                    }
                    for entry in sets_of(variant.name)
                },
            }
        )
    if arguments.json:
        print(json.dumps(entries, indent=2))
        return 0
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    print(_shown(entries, width))
    print()
    print(
        textwrap.fill(
            "Behind a weight set stands its published ImageNet top-1 in percent; 'at' names the size of the input where "
            "it is another one.",
            min(width, WIDTH),
        )
    )
    return 0


def _shown(entries: Sequence[dict[str, Any]], width: int) -> str:
    """A row for each variant, its weight sets folded within so many columns."""
    rows = [
        [
            entry["variant"],
            f"{entry['resolution']} px",
            f"{entry['width']:.1f} / {entry['depth']:.1f}",
            str(entry["blocks"]),
            f"{entry['parameters'] / 1e6:.1f} M",
        ]
        for entry in entries
    ]
    head, rule, *lines = table(
        ["variant", "input", "width / depth", "blocks", "parameters"], rows
    ).splitlines()
    room = max(width - len(rule) - len(GAP), NARROWEST)
    found = [f"{head.ljust(len(rule))}{GAP}weight sets", f"{rule}{GAP}{'─' * room}"]
    for entry, line in zip(entries, lines, strict=True):
        sets = [f"{each.name} {published(each)}" for each in sets_of(entry["variant"])]
        folded = _folded(sets, room)
        found += [f"{line.ljust(len(rule))}{GAP}{folded[0]}".rstrip()]
        found += [" " * (len(rule) + len(GAP)) + more for more in folded[1:]]
    return "\n".join(found)


def _folded(sets: Sequence[str], room: int) -> list[str]:
    """Weight sets in lines of at most `room` characters; one that is longer than that goes on in the next."""
    lines = [""]
    for text in sets:
        if lines[-1] and len(lines[-1]) + len(GAP) + len(text) <= room:
            lines[-1] += GAP + text
        else:
            lines += textwrap.wrap(text, room)
    return lines[1:]
