"""`keras-effnet scale search` and `scale architecture`: many short trainings, and what came of them."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_effnet.baselines import Baseline, cost_of, get_baseline
from keras_effnet.commands.flags import add_action, add_json, add_quiet, amount, whole_number
from keras_effnet.commands.printing import table
from keras_effnet.scaling import SEARCH_BASELINE, TrainOnFolder, search_architecture
from keras_effnet.scaling import search as grid_search
from keras_effnet.scaling.grid import GRID_STEP, TOLERANCE
from keras_effnet.scaling.study import check_storage
from keras_effnet.system.quiet import import_keras


def add_search(actions: Any) -> None:
    """The parser of the grid search."""
    search = add_action(
        actions,
        "search",
        "step 1 of the method: grid search for alpha, beta, gamma (extra 'search')",
        "  keras-effnet scale search pictures --epochs 5 --storage search.journal\n"
        "  keras-effnet scale search pictures --baseline mobilenet_v2 --workers 2",
    )
    _add_training(search)
    search.add_argument("--step", type=float, help="distance of the grid's points (default: 0.1)")
    search.add_argument("--tolerance", type=float, help="of alpha·beta²·gamma² ≈ 2 (default: 0.04)")
    search.add_argument(
        "--baseline",
        default="search64",
        help="search64 (default), b0, lite0, mobilenet_v1, mobilenet_v2, resnet50, resnet50_v1.5",
    )
    search.add_argument("--workers", type=whole_number(1), default=1, help="processes (default: 1)")
    search.add_argument(
        "--storage",
        default="scaling_search.journal",
        metavar="FILE|URL",
        help="journal or database that keeps the scores; the same again resumes, several machines share it "
        "(default: %(default)s)",
    )


def add_architecture(actions: Any) -> None:
    """The parser of the search over the stage table."""
    search = add_action(
        actions,
        "architecture",
        "a small re-enactment of how B0 was found (Optuna, extra 'search')",
        "  keras-effnet scale architecture pictures --trials 30 --storage architecture.journal\n"
        "  keras-effnet scale architecture pictures --target-macs 5M --epochs 5",
    )
    _add_training(search)
    search.add_argument("--trials", type=whole_number(1), default=20, help="networks in all (default: 20)")
    search.add_argument(
        "--target-macs",
        type=amount,
        metavar="MACS",
        help="multiply-adds that are wanted (default: those of the table that it starts from)",
    )
    search.add_argument(
        "--storage", metavar="URL|FILE", help="keeps the trials; the same again resumes (default: memory)"
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory", metavar="DIR", help="pictures: train/ and validation/, a folder per class"
    )
    parser.add_argument("--epochs", type=whole_number(1), default=15, help="for each network (default: 15)")
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N", help="of everything random (default: 0)"
    )
    add_quiet(parser)
    add_json(parser)


def _training(arguments: argparse.Namespace, baseline: Baseline) -> TrainOnFolder:
    return TrainOnFolder(
        directory=str(Path(arguments.directory).expanduser()),
        baseline=baseline,
        epochs=arguments.epochs,
        seed=arguments.seed,
    )


def check(arguments: argparse.Namespace) -> None:
    """Tell what is wrong with the arguments of either."""
    _training(arguments, _baseline(arguments)).root()
    if arguments.storage is not None:
        check_storage(_storage(arguments.storage))


def _baseline(arguments: argparse.Namespace) -> Baseline:
    """What is scaled, or where the search over tables begins."""
    given = getattr(arguments, "baseline", SEARCH_BASELINE.name)
    return SEARCH_BASELINE if given == SEARCH_BASELINE.name else get_baseline(given)


def _storage(given: str) -> str:
    return given if "://" in given else str(Path(given).expanduser())


def search(arguments: argparse.Namespace) -> int:
    """Run the grid search."""
    import_keras()
    baseline = _baseline(arguments)
    found = grid_search(
        _training(arguments, baseline),
        baseline=baseline,
        step=GRID_STEP if arguments.step is None else arguments.step,
        tolerance=TOLERANCE if arguments.tolerance is None else arguments.tolerance,
        workers=arguments.workers,
        storage=_storage(arguments.storage),
        quiet=arguments.quiet,
    )
    if arguments.json:
        print(json.dumps([asdict(row) for row in found.rows], indent=2))
        return 0
    rows = [
        [
            f"{row.candidate.alpha:g}",
            f"{row.candidate.beta:g}",
            f"{row.candidate.gamma:g}",
            f"{row.resolution} px",
            f"{row.macs / 1e6:.1f} M",
            f"{row.growth:.2f}×",
            f"{row.score:.4f}",
            f"{row.seconds:.0f} s",
        ]
        for row in found.rows
    ]
    header = ["alpha", "beta", "gamma", "input", "multiply-adds", "growth", "score", "time"]
    print(table(header, rows, left=0))
    built = len({row.network for row in found.rows})
    if built < len(rows):
        print(f"{len(rows)} candidates build {built} networks; the same ones were trained once")
    print(f"kept in {arguments.storage}")
    return 0


def architecture(arguments: argparse.Namespace) -> int:
    """Run the search over the stage table."""
    import_keras()
    found = search_architecture(
        _training(arguments, SEARCH_BASELINE).score,
        SEARCH_BASELINE,
        target_macs=cost_of(SEARCH_BASELINE).macs if arguments.target_macs is None else arguments.target_macs,
        trials=arguments.trials,
        seed=arguments.seed,
        storage=None if arguments.storage is None else _storage(arguments.storage),
        quiet=arguments.quiet,
    )
    if arguments.json:
        print(json.dumps([asdict(row) for row in found], indent=2))
        return 0
    rows = [
        [
            _stages(row.baseline),
            f"{row.macs / 1e6:.1f} M",
            f"{row.accuracy:.4f}",
            f"{row.objective:.4f}",
        ]
        for row in found
    ]
    print(table(["stages", "multiply-adds", "accuracy", "objective"], rows, left=1))
    print("a stage: repeats × kernel, expand ratio, s with squeeze-and-excite")
    return 0


def _stages(baseline: Any) -> str:
    return "  ".join(
        f"{stage.repeats}×k{stage.kernel_size}e{stage.expand_ratio:g}{'s' if stage.se_ratio else '-'}"
        for stage in baseline.stages
    )
