"""What finer means could still bring to an integer network, simulated: a bound for each.

    python benchmarks/int8_limits.py b0        or lite0, lite1, lite2

Weights that are not rounded at all bound every other way of rounding them (AdaRound, gradient
reconstruction). Tensors that are not rounded bound 16 bits for them; the ones that matter most are
found on calibration photographs, and judged, like everything, on the others (see `int8_table.py`).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
from int8_table import subject_of

SEARCHED = 20  # calibration photographs on which tensors are ranked


def main() -> None:
    from keras_effnet.export.quantization import accuracy
    from keras_effnet.export.quantization.layerwise import Method
    from keras_effnet.export.quantization.prepare import prepare

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help="b0, lite0, lite1 or lite2")
    parser.add_argument("--swap", action="store_true", help="let the judging photographs calibrate")
    arguments = parser.parse_args()
    model, calibration, held_out, _ = subject_of(arguments.network, swap=arguments.swap)
    images = held_out.astype(np.float32)

    def show(name: str, network: Any) -> None:
        goal, logits = network.logits(images, integer=False), network.logits(images)
        agreement = np.mean(logits.argmax(1) == goal.argmax(1))
        print(f"| {name} | {accuracy.sqnr_db(goal, logits):.2f} | {agreement:.3f} |", flush=True)

    print("| network | logits SQNR dB | agreement |")
    print("|---|---|---|")
    network = prepare(model, calibration)
    show("int8", network)
    show("weights not rounded", prepare(model, calibration, method=Method(rounding="none")))
    ranked = most_sensitive(network)
    for count in (1, 2, 4):
        show(f"not rounded: {', '.join(ranked[:count])}", without(network, *ranked[:count]))


def without(network: Any, *keys: str) -> Any:
    """The network with some tensors as fine as float."""
    ranges = {key: value for key, value in network.quantized.ranges.items() if key not in keys}
    return replace(network, quantized=replace(network.quantized, ranges=ranges))


def most_sensitive(network: Any) -> list[str]:
    """Tensors by how much their rounding costs, the costliest first."""
    from keras_effnet.export.quantization.accuracy import sqnr_db

    few = network.images[:: max(1, len(network.images) // SEARCHED)]
    goal = network.logits(few, integer=False)
    gains = {key: sqnr_db(goal, without(network, key).logits(few)) for key in network.quantized.ranges}
    return sorted(gains, key=lambda key: -gains[key])


if __name__ == "__main__":
    main()
