"""The catalog as a Markdown table: `python -m keras_effnet.weights.table`."""

from __future__ import annotations

from keras_effnet.network.variants import VARIANTS
from keras_effnet.weights.catalog import SET_NAMES, sets_of


def markdown() -> str:
    """One row for each variant, one column for each set, cells with the published top-1 in percent."""
    lines = [
        f"| | {' | '.join(f'`{name}`' for name in SET_NAMES)} |",
        f"|---|{'---|' * len(SET_NAMES)}",
    ]
    for variant in VARIANTS.values():
        top1 = {entry.name: f"{entry.top1:.1f}" for entry in sets_of(variant.name)}
        lines.append(f"| {variant.title} | {' | '.join(top1.get(name, '–') for name in SET_NAMES)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
