"""FixRes: accuracy against size, before and after the last layers got used to another size.

    python benchmarks/fix_resolution.py trained DATA_DIR --size 160 --fix-size 224 --runs DIR [--seeds 0 1 2]
    python benchmarks/fix_resolution.py published labels.csv [--variant lite0] [--fix-size 288]

`trained`: a run of `keras-effnet train` at `--size` for each seed, kept in `--runs` and used again; then `fix` with the
run's photographs. `published`: ImageNet's own network on labelled photographs (CSV with the columns `file` and
`class_index`), in two halves, each judged by the network that was fixed with the other one. The test photographs are
the same before and after, so the differences are paired. `--try` names what learns: `top_bn` alone with the classifier,
or `top_conv` too.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (128, 160, 192, 224, 256, 288, 320)
NONE = ("before", 0.0)


def right_at(model: Any, listing: Any, indices: Any, framing: Any, sizes: list[int]) -> dict[int, Any]:
    """Whether each photograph is right, by size."""
    from keras_effnet.network.resizing import at_size
    from keras_effnet.train.batches import evaluation_batches

    found = {}
    for size in sizes:
        batches = evaluation_batches(listing, indices, size, framing, batch_size=32)
        guesses = at_size(model, size).predict(batches, verbose=0).argmax(axis=1)
        found[size] = guesses == listing.labels[indices]
    return found


def fixed_as(model: Any, listing: Any, settings: Any, framing: Any, way: str, rate: float) -> tuple[Any, int]:
    """The network after `fix`, and its best epoch."""
    from keras_effnet.train.batches import Course
    from keras_effnet.train.checkpoints import EpochCheckpoint
    from keras_effnet.train.fixing import fix

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = EpochCheckpoint(
            Path(folder), patience=settings.patience if settings.patience < 99 else None
        )
        made = fix(
            model,
            Course(listing),
            checkpoint,
            settings,
            framing=framing,
            top_conv=way == "top_conv",
            learning_rate=rate,
        )
        return made, checkpoint.best_epoch


def trained(arguments: argparse.Namespace) -> dict[tuple[str, float], list[dict[int, Any]]]:
    """What is right before and after, a row for each seed."""
    from keras_effnet.pictures.framing import framing_of
    from keras_effnet.system.progress import Progress
    from keras_effnet.train import RunFolder, Settings, train

    found: dict[tuple[str, float], list[dict[int, Any]]] = {}
    for seed in arguments.seeds:
        place = arguments.runs / f"{arguments.size}-{seed}"
        settings = Settings(data=str(arguments.data.resolve()), image_size=arguments.size, seed=seed)
        folder = RunFolder.resume(place) if place.exists() else RunFolder.create(place, settings)
        outcome = train(folder, Progress(quiet=True))
        framing, test = framing_of(outcome.model), outcome.listing.of("test")
        sizes = [size for size in SIZES if size <= arguments.fix_size * 1.3]
        found.setdefault(NONE, []).append(right_at(outcome.model, outcome.listing, test, framing, sizes))
        asked = replace(settings, fix_size=arguments.fix_size, fix_epochs=arguments.epochs)
        for way in arguments.ways:
            for rate in arguments.rates:
                made, epoch = fixed_as(outcome.model, outcome.listing, asked, framing, way, rate)
                right = right_at(made, outcome.listing, test, framing, sizes)
                found.setdefault((way, rate), []).append(right)
                print(
                    seed,
                    way,
                    rate,
                    "best epoch",
                    epoch,
                    {s: round(float(r.mean()), 4) for s, r in right.items()},
                    flush=True,
                )
    return found


def published(arguments: argparse.Namespace) -> dict[tuple[str, float], list[dict[int, Any]]]:
    """What is right before and after, in one row: each half by the network that the other one fixed."""
    from keras_effnet import EfficientNet
    from keras_effnet.pictures.framing import framing_of
    from keras_effnet.pictures.labels import imagenet_labels
    from keras_effnet.pictures.listing import Listing
    from keras_effnet.train import Settings

    with arguments.data.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    model = EfficientNet(arguments.variant)
    framing = framing_of(model)
    found: dict[tuple[str, float], list[dict[int, Any]]] = {}
    for half in (0, 1):
        splits = np.where(np.random.default_rng(0).permutation(len(rows)) % 2 == half, 0, 2).astype(np.int8)
        listing = Listing(
            root=arguments.data.parent,
            files=[row["file"] for row in rows],
            labels=np.array([int(row["class_index"]) for row in rows], np.int32),
            splits=splits,
            classes=imagenet_labels(),
        )
        judged = listing.of("test")
        found.setdefault(NONE, []).append(right_at(model, listing, judged, framing, list(SIZES)))
        settings = Settings(data="", fix_size=arguments.fix_size, fix_epochs=arguments.epochs, patience=99)
        for way in arguments.ways:
            for rate in arguments.rates:
                made, _ = fixed_as(model, listing, settings, framing, way, rate)
                found.setdefault((way, rate), []).append(
                    right_at(made, listing, judged, framing, list(SIZES))
                )
    return {
        key: [{size: np.concatenate([row[size] for row in halves]) for size in halves[0]}]
        for key, halves in found.items()
    }


def told(found: dict[tuple[str, float], list[dict[int, Any]]]) -> list[dict[str, Any]]:
    """Mean accuracy by size, and the paired difference from before with its standard error over photographs."""
    rows = []
    for key, seeds in found.items():
        for size in seeds[0]:
            right = np.stack([row[size] for row in seeds]).astype(float)
            gain = (right - np.stack([row[size] for row in found[NONE]])).mean(axis=0)
            rows.append(
                {
                    "way": key[0],
                    "rate": key[1],
                    "size": size,
                    "accuracy": float(right.mean()),
                    "of_seeds": [float(row.mean()) for row in right],
                    "gain": float(gain.mean()),
                    "standard_error": float(gain.std(ddof=1) / np.sqrt(len(gain))),
                }
            )
            row = rows[-1]
            seeds_told = " ".join(f"{value:.4f}" for value in row["of_seeds"])
            print(
                f"{key[0]:9} {key[1]:<7g} {size:4d} px  {row['accuracy']:.4f}  {row['gain']:+.4f} ± {row['standard_error']:.4f}"
                f"  ({seeds_told})"
            )
    return rows


def main() -> None:
    """Print a line for each size, before and after."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("trained", "published"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--fix-size", type=int, default=224)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--variant", default="lite0")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--try", dest="ways", nargs="+", default=["top_bn"], choices=("top_bn", "top_conv"))
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-2])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = told((trained if arguments.what == "trained" else published)(arguments))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
