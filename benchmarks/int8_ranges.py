"""Draws docs/int8_ranges.png: channel ranges around a trained B0's first swishes, before and after.

python benchmarks/int8_ranges.py [--out docs/int8_ranges.png]
"""

from __future__ import annotations

import argparse

import numpy as np
from int8_table import photographs, trained_b0


def main() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from keras_effnet.export.quantization import equalization
    from keras_effnet.export.quantization.fold import fold

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="docs/int8_ranges.png")
    arguments = parser.parse_args()
    pixels, _ = photographs(224)
    images = pixels[:32:2].astype(np.float32)
    graph = equalization.absorb_preprocessing(fold(trained_b0()))
    samples = equalization.sample(graph, images)
    names = equalization.swishes(graph)[:3]
    equal = equalization.equalize_swishes(graph, samples, equalization.importance(graph, samples), names)
    after = equalization.sample(equal, images)
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(names), sharex="col")
    for column, name in enumerate(names):
        order = np.argsort(samples[name].max(0))
        for row, (title, values) in enumerate((("before", samples[name]), ("after", after[name]))):
            panel = axes[row, column]
            heights = values.max(0)[order] - values.min(0)[order]
            panel.bar(range(len(order)), heights / heights.max(), width=1.0, color="#4269d0")
            panel.set_ylim(0, 1)
            panel.set_title(f"{name}, {title}", fontsize=9)
    axes[0, 0].set_ylabel("share of the tensor's range")
    axes[1, 0].set_ylabel("share of the tensor's range")
    axes[1, 1].set_xlabel("channels, narrowest first")
    figure.savefig(arguments.out)


if __name__ == "__main__":
    main()
