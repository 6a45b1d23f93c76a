"""Step 1 of the paper's method: find α, β, γ for a baseline by a small grid search.

    found = search(TrainOnFolder(directory="pictures", baseline=my_table), storage="search.journal")
    found.best           # a CompoundScaling

Candidates are the multiples of a step, each at least 1, with α·β²·γ² ≈ 2 (section 3.3, equation 3).
Optuna's storage knows what is tried and what came of it, so where the search ran is no matter of its
result: one process, several, or several machines.
"""

from __future__ import annotations

import math
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import filelock

from keras_effnet.baselines import EFFICIENTNET_B0, Baseline
from keras_effnet.errors import EffNetError, InvalidInputError, require
from keras_effnet.network.builder import is_whole
from keras_effnet.scaling.compound import CompoundScaling
from keras_effnet.scaling.grid import CLASSES, GRID_STEP, TOLERANCE, Candidate, Network, candidates, networks
from keras_effnet.scaling.processes import pool_of
from keras_effnet.scaling.study import claim, described, fingerprint, open_study

Evaluate = Callable[[float, float, int], float]
"""(depth, width, resolution in pixels) → score, higher is better."""

NETWORK, MACHINE = "network", "machine"  # a trial's one parameter; who began it


@dataclass(frozen=True, kw_only=True)
class Row:
    """A candidate that was evaluated.

    Attributes:
        candidate: the coefficients.
        depth, width: factors that the candidate was evaluated with.
        resolution: side of its input, in pixels.
        network: key of the network that it builds; candidates with the same key were evaluated
            once and share score and seconds.
        macs: multiply-adds of that network, with the classes of the search.
        growth: these over the baseline's; α·β²·γ² before filters, repeats and pixels are rounded.
        score: what `evaluate` returned; higher is better.
        seconds: how long it took.
    """

    candidate: Candidate
    depth: float
    width: float
    resolution: int
    network: str
    macs: int
    growth: float
    score: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        rows: every candidate, best first.
        baseline: what was scaled.
    """

    rows: tuple[Row, ...]
    baseline: Baseline

    @property
    def best(self) -> CompoundScaling:
        """The rule with the highest score; of equal ones the one with the smaller coefficients."""
        top = self.rows[0].candidate
        return CompoundScaling(top.alpha, top.beta, top.gamma, self.baseline)


def search(
    evaluate: Evaluate,
    *,
    baseline: Baseline | None = None,
    step: float = GRID_STEP,
    tolerance: float = TOLERANCE,
    storage: str = "scaling_search.journal",
    study: str = "compound-scaling",
    workers: int = 1,
    settings: Mapping[str, Any] | None = None,
    merge: bool = True,
    quiet: bool = False,
) -> SearchResult:
    """Evaluate every candidate of the grid at φ = 1; needs the extra `search` (Optuna).

    Args:
        evaluate: (depth, width, resolution) → score. With `workers` above 1 it must be picklable.
        baseline: what is scaled; its resolution times γ, rounded to a multiple of 8, is passed. None
            for that of `evaluate`, as `TrainOnFolder` has one, or else B0.
        step: distance of the grid's points; 0.05 has the paper's 1.2, 1.1, 1.15 among them.
        tolerance: how far α·β²·γ² may be from 2, relative. What is built may be further away:
            `Row.growth` says how far.
        storage: journal file to keep scores in and to resume from, or a database such as
            `"postgresql://…"` (install its driver). Several machines running the same call share the
            work through a file on a shared disk or a database.
        study: name of the search in that storage.
        workers: processes that evaluate. A script must then call this under
            `if __name__ == "__main__":`.
        settings: what else makes scores comparable, such as a data set; kept in the storage and
            compared, with the name of `evaluate` and what its method `settings()` says. A whole number
            under `classes`, as `TrainOnFolder` gives, is that of `Row.macs`; without one it is 1,000.
        merge: evaluate only one of the candidates that build the same network, and give all its
            score. False where `evaluate` builds otherwise than `keras_effnet.baselines.build`.
        quiet: no progress bar.

    Returns:
        The `SearchResult`.

    Raises:
        InvalidInputError: an unusable grid, the study of another search, a storage that cannot be
            opened, or an `evaluate` that workers cannot import.
        EffNetError: `evaluate` failed or a worker died; what was finished stays in the storage.
        MissingExtraError: Optuna is not installed, or the driver of the database.
    """
    if not is_whole(workers) or workers < 1:
        raise InvalidInputError(
            f"Expected workers to be a whole number of at least 1. Received: {workers!r}."
        )
    grid = candidates(step, tolerance)
    table = _baseline(evaluate, baseline)
    compared = {
        "step": step,
        "tolerance": tolerance,
        "merge": merge,
        "baseline": table.name,
        "table": fingerprint(table),
        **described(evaluate, settings),
    }
    classes = compared.get("classes")
    every = networks(table, grid, merge=merge, classes=classes if isinstance(classes, int) else CLASSES)
    by_key = {network.key: network for network in every}
    with tempfile.TemporaryDirectory(prefix="keras_effnet-") as folder:
        lock = f"{folder}/draw.lock"
        worker = _Worker(evaluate, by_key, storage, study, uuid.uuid4().hex, lock)
        opened = worker.open()
        claim(opened, compared)
        _enqueue_failed(opened)
        return SearchResult(rows=_evaluated(worker, opened, workers, quiet=quiet), baseline=table)


@dataclass(frozen=True)
class _Worker:
    """Evaluates a network that nobody has; picklable where `evaluate` is, so that other processes can.

    Attributes:
        evaluate: the score.
        networks: of the grid, by key.
        storage, study: where the work is shared.
        machine: the same for all processes of one search.
        lock: file that they hold while one of them draws a network: Optuna's storage lets two draw the same.
    """

    evaluate: Evaluate
    networks: Mapping[str, Network]
    storage: str
    study: str
    machine: str
    lock: str

    def open(self) -> Any:
        """The study; its sampler gives out what nobody began, then what nobody finished."""
        samplers = require("optuna.samplers", "search")
        return open_study(self.storage, self.study, samplers.GridSampler({NETWORK: list(self.networks)}))

    def __call__(self) -> bool:
        """Evaluate one network; False where nothing is left for this machine.

        Raises:
            EffNetError: `evaluate` failed, or returned something else than a finite number.
        """
        opened = self.open()
        with ExitStack() as drawing:
            drawing.enter_context(filelock.FileLock(self.lock))
            if not self._left(opened):
                return False
            opened.optimize(lambda trial: self._objective(trial, drawing), n_trials=1)
        return True

    def _left(self, opened: Any) -> bool:
        """Whether a network is not begun, waiting, or begun by another machine, which may be dead."""
        state = require("optuna.trial", "search").TrialState
        found: dict[str, set[Any]] = {key: set() for key in self.networks}
        here = set()
        for trial in opened.get_trials(deepcopy=False):
            found.setdefault(_network_of(trial), set()).add(trial.state)
            if trial.state == state.RUNNING and trial.user_attrs.get(MACHINE) == self.machine:
                here.add(_network_of(trial))
        left = [found[key] for key in self.networks if key not in here and state.COMPLETE not in found[key]]
        return any(not states or states & {state.WAITING, state.RUNNING} for states in left)

    def _is_taken(self, trial: Any) -> bool:
        """Whether the network has a score by now, or a worker of this search has it: Optuna lets both happen."""
        states = require("optuna.trial", "search").TrialState
        return any(
            other.state == states.COMPLETE
            or (
                other.state == states.RUNNING
                and other.number != trial.number
                and other.user_attrs.get(MACHINE) == self.machine
            )
            for other in trial.study.get_trials(deepcopy=False)
            if _network_of(other) == trial.params[NETWORK]
        )

    def _objective(self, trial: Any, drawing: ExitStack) -> float:
        trial.set_user_attr(MACHINE, self.machine)
        network = self.networks[trial.suggest_categorical(NETWORK, list(self.networks))]
        if self._is_taken(trial):
            raise require("optuna", "search").TrialPruned
        drawing.close()  # the next may draw
        asked = f"evaluate({network.depth}, {network.width}, {network.resolution})"
        try:
            score = float(self.evaluate(network.depth, network.width, network.resolution))
        except Exception as error:
            raise EffNetError(
                f"Expected {asked} to return a score. Received: {type(error).__name__}: {error}. "
                "Mend that and run the search again: what is finished is kept."
            ) from error
        if not math.isfinite(score):
            raise EffNetError(
                f"Expected {asked} to return a finite score. Received: {score}. "
                "Mend that and run the search again: what is finished is kept."
            )
        return score

    def rows(self, opened: Any) -> tuple[Row, ...]:
        """What anybody finished, best first; the smaller coefficients first where scores are equal."""
        finished: dict[str, Any] = {}
        for trial in opened.get_trials(deepcopy=False):
            if trial.value is not None:
                finished.setdefault(_network_of(trial), trial)
        rows = [
            Row(
                candidate=candidate,
                depth=candidate.alpha,
                width=candidate.beta,
                resolution=network.resolution,
                network=key,
                macs=network.macs,
                growth=network.growth,
                score=finished[key].value,
                seconds=round(finished[key].duration.total_seconds(), 3),
            )
            for key, network in self.networks.items()
            if key in finished
            for candidate in network.candidates
        ]
        return tuple(sorted(rows, key=lambda row: (-row.score, row.candidate)))


def _network_of(trial: Any) -> str:
    return str(trial.params.get(NETWORK, ""))


def _enqueue_failed(opened: Any) -> None:
    """Let failed evaluations be tried again: the sampler takes them for done."""
    trials = require("optuna.trial", "search")
    failed: dict[str, Any] = {}
    for trial in opened.get_trials(deepcopy=False):
        if trial.state == trials.TrialState.FAIL and trial.params:
            failed.setdefault(_network_of(trial), trial)
    for trial in opened.get_trials(deepcopy=False):
        if trial.state not in (trials.TrialState.FAIL, trials.TrialState.PRUNED):
            failed.pop(_network_of(trial), None)
    for trial in failed.values():
        opened.add_trial(
            trials.create_trial(
                state=trials.TrialState.WAITING,
                params=trial.params,
                distributions=trial.distributions,
                system_attrs=trial.system_attrs,
            )
        )


def _evaluated(worker: _Worker, opened: Any, workers: int, *, quiet: bool) -> tuple[Row, ...]:
    """Work until nothing is left, and show how far the search is; the rows of all candidates."""
    from tqdm import tqdm

    rows = worker.rows(opened)
    total = sum(len(network.candidates) for network in worker.networks.values())
    if len(rows) < total:
        steps = iter(worker, False) if workers == 1 else _in_processes(worker, workers)
        with tqdm(total=total, initial=len(rows), unit="net", disable=True if quiet else None) as bar:
            for _ in steps:
                rows = worker.rows(opened)
                bar.update(len(rows) - bar.n)
                bar.set_postfix(best=f"{rows[0].score:.4g}" if rows else "none")
        rows = worker.rows(opened)
    if len(rows) < total:
        raise EffNetError(
            f"Expected a score for each of {total} candidates. Received: none for {total - len(rows)}. "
            "Run the search again: what is finished is kept."
        )
    return rows


def _in_processes(worker: _Worker, workers: int) -> Iterator[bool]:
    """One item for each evaluation; after a failure those that are running end, and no others begin."""
    with pool_of(min(workers, len(worker.networks)), worker.evaluate) as pool:
        waiting: set[Future[bool]] = {pool.submit(worker) for _ in range(workers)}
        failed: BaseException | None = None
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                failed = failed or future.exception()
                if not failed and future.result():
                    waiting.add(pool.submit(worker))
            yield True
        if failed:
            raise failed


def _baseline(evaluate: Evaluate, given: Baseline | None) -> Baseline:
    """The table that both the grid and `evaluate` mean."""
    own = getattr(evaluate, "baseline", None)
    if given is not None and isinstance(own, Baseline) and own != given:
        raise InvalidInputError(
            f"Expected evaluate to train the baseline of the search, {given.name!r}. Received: one that trains "
            f"{own.name!r}. Pass the same baseline to both, or none to the search."
        )
    return given or (own if isinstance(own, Baseline) else EFFICIENTNET_B0)
