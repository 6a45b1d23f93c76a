"""What a really trained network keeps in integers, photograph by photograph.

    python benchmarks/int8_real.py backbone.weights.h5 photographs/
    python benchmarks/int8_real.py backbone.weights.h5 photographs/ --judge others/ --equalize 0.5 --json found.json
    python benchmarks/int8_real.py classifier.keras photographs/ --swap

The weights are those of a B0 without classifier in torchvision's conventions; any other network comes as a
`.keras` file. Photographs with even places among the sorted ones calibrate; the odd ones judge, or every one in
`--judge`. Per photograph, `10·log10(Σ ref² / Σ (out − ref)²)` of what the float model gives; of these the
median, the 5th percentile and the worst, because a total over photographs is the figure of its largest. A
nearest neighbour is the most alike (cosine) of the others' float features. Latency as in `int8_table.py`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from int8_table import latencies, partitions

SUFFIXES = (".jpg", ".jpeg", ".png")
PERCENTILE = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help=".weights.h5 of a B0 backbone, or a .keras file")
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--judge", type=Path, help="other photographs to judge, in folders or not")
    parser.add_argument(
        "--swap", action="store_true", help="let the odd places calibrate, the even ones judge"
    )
    parser.add_argument(
        "--equalize", type=float, help="share of the swishes' values; default: the exporter's"
    )
    parser.add_argument("--recipes", nargs="+", default=["weight_int8", "int8"])
    parser.add_argument("--output-type", default="uint8", choices=("uint8", "int8", "float32"))
    parser.add_argument("--threads", type=int, default=0, help="one: CPU time is measured; default: all")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    from keras_effnet.export.model_facts import facts_of

    model = opened(arguments.model)
    size = facts_of(model).height
    pictures = read(arguments.photographs, size)
    first, second = (1, 0) if arguments.swap else (0, 1)
    judged = read(arguments.judge, size) if arguments.judge else pictures[second::2]
    found = []
    print(
        f"| file | median dB | 5th percentile | worst | same nearest neighbour | same best | size | latency "
        f"| partitions | float tensors | seconds |  {len(judged)} photographs\n|" + "---|" * 11
    )
    for row in rows(model, pictures[first::2], judged, arguments):
        found.append(row)
        print(
            f"| {row['recipe']} | {row['median']:.1f} | {row['p5']:.1f} | {row['worst']:.1f} "
            f"| {row['neighbour']:.3f} | {row['best']:.3f} | {row['size']:.3f} | {row['latency']:.2f} "
            f"| {row['partitions']} | {row['floats']} | {row['seconds']:.0f} |",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def opened(path: Path) -> Any:
    """The float model."""
    if path.suffix == ".keras":
        import keras

        return keras.saving.load_model(path, compile=False)
    from keras_effnet import EfficientNet

    conventions: dict[str, Any] = {"padding": "symmetric", "epsilon": 1e-5}
    return EfficientNet("b0", weights=path, include_top=False, pooling="avg", **conventions)


def read(folder: Path, size: int) -> Any:
    """All photographs of a folder, sorted by name, as uint8 `[N, size, size, 3]`."""
    from keras_effnet import load_image

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return np.stack([load_image(path, size) for path in files])


def rows(model: Any, calibration: Any, judged: Any, arguments: Any) -> Iterator[dict[str, Any]]:
    """One file after the other, with its figures."""
    from keras_effnet.export import load, to_tflite

    goal = np.asarray(model.predict(judged.astype(np.float32), verbose=0))
    with tempfile.TemporaryDirectory() as folder:
        plain = to_tflite(model, Path(folder) / "float32.tflite", "float32")
        for recipe in arguments.recipes:
            start = time.perf_counter()
            options: dict[str, Any] = {}
            if recipe.startswith("int8"):
                options = {"calibration": calibration, "output_type": arguments.output_type}
            if recipe == "int8" and arguments.equalize is not None:
                from keras_effnet.export.quantization.prepare import prepare

                options["network"] = prepare(model, options.pop("calibration"), equalize=arguments.equalize)
            path = to_tflite(model, Path(folder) / f"{recipe}.tflite", recipe, **options)
            seconds = time.perf_counter() - start
            contents = [plain.read_bytes(), path.read_bytes()]
            float_time, own_time = latencies(contents, arguments.threads)
            yield {
                "recipe": recipe,
                **figures(goal, np.asarray(load(path)(judged))),
                "size": len(contents[1]) / len(contents[0]),
                "latency": own_time / float_time,
                "partitions": partitions(contents[1]),
                "floats": float_tensors(contents[1]),
                "seconds": seconds,
            }


def figures(goal: Any, outputs: Any) -> dict[str, Any]:
    """What is left of the float model's outputs, `[N, features]`."""
    decibels = per_photograph(goal, outputs)
    return {
        "median": float(np.median(decibels)),
        "p5": float(np.percentile(decibels, PERCENTILE)),
        "worst": float(decibels.min()),
        "neighbour": float(np.mean(neighbours(goal, goal) == neighbours(goal, outputs))),
        "best": float(np.mean(goal.argmax(1) == outputs.argmax(1))),
        "decibels": decibels.round(2).tolist(),
    }


def per_photograph(goal: Any, outputs: Any) -> Any:
    """Signal to noise of each photograph, in dB."""
    exact = goal.astype(np.float64)
    return 10 * np.log10((exact**2).sum(1) / np.maximum(((exact - outputs) ** 2).sum(1), 1e-30))


def neighbours(goal: Any, outputs: Any) -> Any:
    """For each photograph, the other one whose float features are most like its outputs."""
    unit, seen = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (goal, outputs))
    alike = seen @ unit.T
    np.fill_diagonal(alike, -np.inf)
    return alike.argmax(1)


def float_tensors(content: bytes) -> int:
    """How many tensors of a file are float; 0 where everything is computed in integers."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    return sum(detail["dtype"] is np.float32 for detail in interpreter.get_tensor_details())


if __name__ == "__main__":
    main()
