"""How the baseline itself was found, re-enacted on a small scale.

The paper (section 4) searched B0 with reinforcement learning on thousands of accelerators, in the
space of MnasNet, for the highest accuracy × (FLOPs / target)^w. This module has that objective and a
**small** search with it: Optuna instead of reinforcement learning, kernel, expand ratio, repeats and
squeeze-and-excite of each stage of a given table, a few dozen networks trained for a moment. It shows
the method; it does not reproduce B0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from keras_effnet.baselines import Baseline, Stage, cost_of
from keras_effnet.errors import InvalidInputError, require
from keras_effnet.scaling.study import claim, described, fingerprint, open_study

TRADE_OFF = -0.07  # the paper's w: twice the target must buy about five percent more accuracy

KERNEL_SIZES = (3, 5)
EXPAND_RATIOS = (2, 4, 6)
SE_RATIOS = (0.0, 0.25)
REPEAT_CHANGES = (-1, 0, 1)


def search_objective(accuracy: float, macs: float, target: float, trade_off: float = TRADE_OFF) -> float:
    """What the search for B0 maximised: accuracy × (MACs / target)^w.

    Args:
        accuracy: 0–1.
        macs: multiply-adds of the network, above 0.
        target: multiply-adds that are wanted, above 0; 400 M for B0.
        trade_off: w; 0 ignores the cost, −1 weighs it as much as the accuracy.

    Returns:
        The accuracy at the target; more for a cheaper network, less for a dearer one.

    Raises:
        InvalidInputError: a value outside its range.

    Source: arXiv:1905.11946, section 4, after MnasNet (arXiv:1807.11626).
    """
    if not (
        0 <= accuracy <= 1 and 0 < macs < math.inf and 0 < target < math.inf and math.isfinite(trade_off)
    ):
        raise InvalidInputError(
            "Expected an accuracy from 0 to 1, macs and target above 0, and a finite trade-off. "
            f"Received: accuracy={accuracy!r}, macs={macs!r}, target={target!r}, trade_off={trade_off!r}."
        )
    return float(accuracy * (macs / target) ** trade_off)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A table that was tried: accuracy as `evaluate` returned it, multiply-adds with 1,000 classes, the objective of both."""

    baseline: Baseline
    accuracy: float
    macs: int
    objective: float


def search_architecture(
    evaluate: Callable[[Baseline], float],
    start: Baseline,
    *,
    target_macs: float,
    trials: int = 30,
    seed: int = 0,
    storage: str | None = None,
    study: str = "architecture",
    trade_off: float = TRADE_OFF,
    quiet: bool = False,
) -> tuple[Found, ...]:
    """Search the stage table around `start`; a small-scale re-enactment, see the module.

    Args:
        evaluate: from a table to an accuracy, 0–1, for example `TrainOnFolder(…).score`.
        start: the first network tried; its strides and filters stay. Its stages must be inverted.
        target_macs: of the objective.
        trials: networks to try in all; a study that is resumed tries what is missing.
        seed: of the sampler, together with the number of trials that a resumed study has.
        storage: an Optuna storage to keep trials in and to resume from; None for memory.
        study: its name there.
        trade_off: w of the objective.
        quiet: no progress bar.

    Returns:
        Every table that was tried, best objective first.

    Raises:
        InvalidInputError: no trials, a target or trade-off that cannot be used, stages that are not
            inverted, a storage that cannot be opened, or a study of another search.
        MissingExtraError: Optuna is not installed, or the driver of the database.
    """
    optuna = require("optuna", "search")
    if not (0 < target_macs < math.inf and math.isfinite(trade_off)):  # before one is trained for nothing
        raise InvalidInputError(
            "Expected target_macs to be a number above 0, and a finite trade_off. Received: "
            f"target_macs={target_macs!r}, trade_off={trade_off!r}. Pass the multiply-adds that are wanted, like 20e6."
        )
    if trials < 1 or any(stage.block != "inverted" for stage in start.stages):
        raise InvalidInputError(
            f"Expected at least one trial and a table of inverted stages. Received: trials={trials}, "
            f"{sorted({stage.block for stage in start.stages})}."
        )
    opened = open_study(storage, study, None)
    compared = {
        "start": start.name,
        "table": fingerprint(start),
        "target_macs": target_macs,
        "trade_off": trade_off,
        **described(evaluate),
    }
    claim(opened, compared)
    # a sampler that begins with the same seed again would try the same tables again
    opened.sampler = optuna.samplers.TPESampler(seed=seed + len(opened.trials))
    if not opened.trials:
        opened.enqueue_trial(_parameters(start))

    def objective(trial: Any) -> float:
        table = _table(start, trial.suggest_categorical)
        macs = cost_of(table).macs
        accuracy = float(evaluate(table))
        trial.set_user_attr("accuracy", accuracy)
        trial.set_user_attr("macs", macs)
        trial.set_user_attr("stages", json.dumps([asdict(stage) for stage in table.stages]))
        return search_objective(accuracy, macs, target_macs, trade_off)

    _optimize(opened, objective, trials, quiet=quiet)
    finished = [trial for trial in opened.trials if trial.value is not None]
    return tuple(_found(start, trial) for trial in sorted(finished, key=lambda trial: -trial.value))


def _optimize(opened: Any, objective: Callable[[Any], float], trials: int, *, quiet: bool) -> None:
    """Try what is missing, and show how far the search is."""
    from tqdm import tqdm

    done = sum(trial.value is not None for trial in opened.trials)
    with tqdm(total=trials, initial=min(done, trials), unit="net", disable=True if quiet else None) as bar:
        for _ in range(trials - done):
            opened.optimize(objective, n_trials=1)
            bar.update()
            bar.set_postfix(best=f"{opened.best_value:.4g}")


def _parameters(baseline: Baseline) -> dict[str, Any]:
    """The point of the search space where `baseline` lies, as near as the space has one."""
    parameters: dict[str, Any] = {}
    for number, stage in enumerate(baseline.stages, start=1):
        parameters |= {
            f"kernel{number}": min(KERNEL_SIZES, key=lambda kernel: abs(kernel - stage.kernel_size)),
            f"expand{number}": min(EXPAND_RATIOS, key=lambda ratio: abs(ratio - stage.expand_ratio)),
            f"se{number}": min(SE_RATIOS, key=lambda ratio: abs(ratio - stage.se_ratio)),
            f"repeats{number}": 0,
        }
    return parameters


def _table(start: Baseline, choose: Callable[[str, Any], Any]) -> Baseline:
    stages: list[Stage] = []
    for number, stage in enumerate(start.stages, start=1):
        stages.append(
            replace(
                stage,
                kernel_size=choose(f"kernel{number}", KERNEL_SIZES),
                expand_ratio=choose(f"expand{number}", EXPAND_RATIOS),
                se_ratio=choose(f"se{number}", SE_RATIOS),
                repeats=max(1, stage.repeats + choose(f"repeats{number}", REPEAT_CHANGES)),
            )
        )
    return replace(start, name=f"{start.name}-searched", stages=tuple(stages))


def _found(start: Baseline, trial: Any) -> Found:
    stages = tuple(Stage(**row) for row in json.loads(trial.user_attrs["stages"]))
    return Found(
        baseline=replace(start, name=f"{start.name}-searched", stages=stages),
        accuracy=trial.user_attrs["accuracy"],
        macs=trial.user_attrs["macs"],
        objective=trial.value,
    )
