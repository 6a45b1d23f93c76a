"""`keras-effnet list`: variants, sizes, weight sets, published accuracy."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from keras_effnet.commands.flags import add_json
from keras_effnet.commands.printing import table
from keras_effnet.costs import cost_of_variant
from keras_effnet.network.variants import VARIANTS, architecture_of
from keras_effnet.weights.catalog import CATALOG, SET_NAMES, published

NAME = "list"
HELP = "variants, weight sets, sizes and published accuracy"
EXAMPLES = """\
  keras-effnet list
  keras-effnet list --json | jq '.[] | select(.resolution <= 260) | .variant'"""


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
                    for entry in CATALOG
                    if entry.variant == variant.name
                },
            }
        )
    if arguments.json:
        print(json.dumps(entries, indent=2))
        return 0
    told = {(entry.variant, entry.name): published(entry) for entry in CATALOG}
    rows = [
        [
            entry["variant"],
            f"{entry['resolution']} px",
            f"{entry['width']:.1f} / {entry['depth']:.1f}",
            str(entry["blocks"]),
            f"{entry['parameters'] / 1e6:.1f} M",
            *(told.get((entry["variant"], name), "–") for name in SET_NAMES),
        ]
        for entry in entries
    ]
    print(table(["variant", "input", "width / depth", "blocks", "parameters", *SET_NAMES], rows))
    print(
        "The last columns are weight sets, with their published ImageNet top-1 in percent; 'at' names the size of the "
        "input where it is another one."
    )
    return 0
