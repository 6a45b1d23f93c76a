"""Step 1 of the paper's method: find α, β, γ for a baseline by a small grid search.

    found = search(TrainOnFolder(directory="pictures", baseline=my_table), results="search.json")
    found.best           # a CompoundScaling

Candidates are the multiples of a step, each at least 1, with α·β²·γ² ≈ 2 (section 3.3, equation 3).
Where the search ran is no matter of its result: one process, several, or several machines.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_effnet.baselines import EFFICIENTNET_B0, Baseline
from keras_effnet.errors import EffNetError, InvalidInputError
from keras_effnet.scaling.compound import CompoundScaling
from keras_effnet.scaling.evaluating import Evaluate, Evaluation, Job
from keras_effnet.scaling.grid import CLASSES, STEP, TOLERANCE, Network, candidates, networks
from keras_effnet.scaling.identity import described, fingerprint
from keras_effnet.scaling.processes import pool_of
from keras_effnet.scaling.results import ResultsFile, Row, best_first, locked


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
    step: float = STEP,
    tolerance: float = TOLERANCE,
    results: str | os.PathLike[str] = "scaling_search.json",
    workers: int = 1,
    storage: str | None = None,
    study: str = "compound-scaling",
    settings: Mapping[str, Any] | None = None,
    merge: bool = True,
    quiet: bool = False,
) -> SearchResult:
    """Evaluate every candidate of the grid at φ = 1.

    Args:
        evaluate: (depth, width, resolution) → score. With `workers` above 1 it must be picklable.
        baseline: what is scaled; its resolution times γ, rounded to a multiple of 8, is passed. None
            for that of `evaluate`, as `TrainOnFolder` has one, or else B0.
        step: distance of the grid's points; 0.05 has the paper's 1.2, 1.1, 1.15 among them.
        tolerance: how far α·β²·γ² may be from 2, relative. What is built may be further away:
            `Row.growth` says how far.
        results: file to keep results in, and to resume from.
        workers: processes that evaluate. A script must then call this under
            `if __name__ == "__main__":`.
        storage: an Optuna storage, such as `"postgresql://…"` (install its driver) or the path of a
            journal file on a shared disk, that several machines running the same call share. Needs
            the extra `search`.
        study: name of the study in that storage.
        settings: what else makes scores comparable, such as a data set; kept in the file and compared,
            with the name of `evaluate` and what its method `settings()` says. A whole number under
            `classes`, as `TrainOnFolder` gives, is that of `Row.macs`; without one it is 1,000.
        merge: evaluate only one of the candidates that build the same network, and give all its
            score. False where `evaluate` builds otherwise than `keras_effnet.baselines.build`.
        quiet: no progress bar.

    Returns:
        The `SearchResult`.

    Raises:
        InvalidInputError: an unusable grid, the results file or study of another search, a storage
            that cannot be opened, or an `evaluate` that workers cannot import.
        EffNetError: `evaluate` failed or a worker died; what was finished stays in the file.
        MissingExtraError: `storage` without Optuna, or without the driver of its database.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise InvalidInputError(
            f"Expected workers to be a whole number of at least 1. Received: {workers!r}."
        )
    grid = candidates(step, tolerance)
    baseline = _baseline(evaluate, baseline)
    compared = {
        "step": step,
        "tolerance": tolerance,
        "merge": merge,
        "baseline": baseline.name,
        "table": fingerprint(baseline),
        **described(evaluate, settings),
    }
    classes = compared.get("classes")
    every = networks(baseline, grid, merge=merge, classes=classes if isinstance(classes, int) else CLASSES)
    with locked(Path(results)):
        file = ResultsFile(results, compared)
        known = [_evaluation(network, file) for network in every if network.candidates[0] in file.rows]
        todo = [network for network in every if network.candidates[0] not in file.rows]
        job = Job(evaluate)
        if storage is not None:
            from keras_effnet.scaling.shared_search import evaluate_shared

            evaluated = evaluate_shared(
                job, every, known, storage=storage, study=study, workers=workers, settings=compared
            )
        elif workers > 1:
            evaluated = _in_processes(job, todo, workers)
        else:
            evaluated = map(job, todo)
        _keep(evaluated, every, file, quiet=quiet)
        missing = [candidate for candidate in grid if candidate not in file.rows]
    if missing:
        raise EffNetError(
            f"Expected a score for each of {len(grid)} candidates. Received: none for {len(missing)}. "
            "Run the search again: what is finished is kept."
        )
    return SearchResult(rows=best_first(file.rows.values()), baseline=baseline)


def _keep(
    evaluated: Iterator[Evaluation], every: Sequence[Network], file: ResultsFile, *, quiet: bool
) -> None:
    """Write rows as they come, and show how far the search is."""
    from tqdm import tqdm

    by_key = {network.key: network for network in every}
    total = sum(len(network.candidates) for network in every)
    with tqdm(total=total, initial=len(file.rows), unit="net", disable=True if quiet else None) as bar:
        for evaluation in evaluated:
            rows = _rows(by_key[evaluation.network], evaluation)
            file.add(rows)
            bar.update(len(rows))
            bar.set_postfix(best=f"{best_first(file.rows.values())[0].score:.4g}")


def _rows(network: Network, evaluation: Evaluation) -> list[Row]:
    return [
        Row(
            candidate=candidate,
            depth=candidate.alpha,
            width=candidate.beta,
            resolution=network.resolution,
            network=network.key,
            macs=network.macs,
            growth=network.growth,
            score=evaluation.score,
            seconds=evaluation.seconds,
        )
        for candidate in network.candidates
    ]


def _evaluation(network: Network, file: ResultsFile) -> Evaluation:
    row = file.rows[network.candidates[0]]
    return Evaluation(network=network.key, score=row.score, seconds=row.seconds)


def _baseline(evaluate: Evaluate, given: Baseline | None) -> Baseline:
    """The table that both the grid and `evaluate` mean."""
    own = getattr(evaluate, "baseline", None)
    if given is not None and isinstance(own, Baseline) and own != given:
        raise InvalidInputError(
            f"Expected evaluate to train the baseline of the search, {given.name!r}. Received: one that trains "
            f"{own.name!r}. Pass the same baseline to both, or none to the search."
        )
    return given or (own if isinstance(own, Baseline) else EFFICIENTNET_B0)


def _in_processes(job: Job, todo: Sequence[Network], workers: int) -> Iterator[Evaluation]:
    """Evaluations as they are finished; after a failure those that are running, and no others."""
    if not todo:
        return
    with pool_of(min(workers, len(todo)), job.evaluate) as pool:
        waiting: set[Future[Evaluation]] = {pool.submit(job, network) for network in todo}
        failed: BaseException | None = None
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                if future.cancelled():
                    continue
                error = future.exception()
                if error is None:
                    yield future.result()
                elif failed is None:
                    failed = error
                    for pending in waiting:
                        pending.cancel()
        if failed:
            raise failed
