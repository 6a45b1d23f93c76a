"""Step 1 of the paper's method: find α, β, γ for a baseline by a small grid search.

    found = search(TrainOnFolder("pictures/"), baseline=my_table, results="search.json", workers=2)
    found.best           # a CompoundScaling

Candidates are the multiples of a step, each at least 1, with α·β²·γ² ≈ 2 (section 3.3, equation 3).
Where the search ran is no matter of its result: one process, several, or several machines.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from keras_effnet.baselines import EFFICIENTNET_B0, Baseline
from keras_effnet.errors import EffNetError, InvalidInputError
from keras_effnet.scaling.compound import CompoundScaling, round_resolution
from keras_effnet.scaling.results import Candidate, ResultsFile, Row, best_first, locked

Evaluate = Callable[[float, float, int], float]
"""(depth, width, resolution in pixels) → score, higher is better."""

GROWTH = 2.0  # the paper's constraint: twice the multiply-adds


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
        """The rule with the highest score."""
        top = self.rows[0].candidate
        return CompoundScaling(top.alpha, top.beta, top.gamma, self.baseline)


def candidates(step: float = 0.05, tolerance: float = 0.05, growth: float = GROWTH) -> tuple[Candidate, ...]:
    """The grid: multiples of `step` from 1 with |α·β²·γ² / growth − 1| ≤ tolerance.

    Args:
        step: distance of the points, above 0, up to 1.
        tolerance: relative, 0–1.
        growth: of the multiply-adds, above 1.

    Raises:
        InvalidInputError: an argument outside its range, or a grid without points.
    """
    if not (0 < step <= 1 and 0 <= tolerance < 1 and 1 < growth < math.inf):
        raise InvalidInputError(
            "Expected 0 < step ≤ 1, 0 ≤ tolerance < 1 and growth > 1. "
            f"Received: step={step!r}, tolerance={tolerance!r}, growth={growth!r}."
        )
    limit = growth * (1 + tolerance)
    points = [round(1 + index * step, 10) for index in range(int((limit - 1) / step + 1e-9) + 1)]
    grid = tuple(
        Candidate(alpha=alpha, beta=beta, gamma=gamma)
        for alpha in points
        for beta in points
        for gamma in points
        if abs(alpha * beta**2 * gamma**2 / growth - 1) <= tolerance + 1e-9
    )
    if not grid:
        raise InvalidInputError(
            f"Expected a grid with points. Received: step={step}, tolerance={tolerance}, which leave none. "
            "Raise the tolerance or lower the step."
        )
    return grid


def search(
    evaluate: Evaluate,
    *,
    baseline: Baseline | None = None,
    step: float = 0.05,
    tolerance: float = 0.05,
    results: str | os.PathLike[str] = "scaling_search.json",
    workers: int = 1,
    storage: str | None = None,
    study: str = "compound-scaling",
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> SearchResult:
    """Evaluate every candidate of the grid at φ = 1.

    Args:
        evaluate: (depth, width, resolution) → score. With `workers` above 1 it must be picklable.
        baseline: what is scaled; its resolution times γ, rounded to a multiple of 8, is passed. None
            for that of `evaluate`, as `TrainOnFolder` has one, or else B0.
        step: distance of the grid's points.
        tolerance: how far α·β²·γ² may be from 2, relative.
        results: file to keep results in, and to resume from.
        workers: processes that evaluate.
        storage: an Optuna storage, such as `"postgresql://…"` or the path of a journal file on a
            shared disk, that several machines running the same call share. Needs the extra `search`.
        study: name of the study in that storage.
        settings: what else makes scores comparable, such as a data set; kept in the file and compared.
        quiet: no progress bar.

    Returns:
        The `SearchResult`.

    Raises:
        InvalidInputError: an unusable grid, or a results file of another search.
        EffNetError: `evaluate` failed; what was finished stays in the file.
        MissingExtraError: `storage` without Optuna.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise InvalidInputError(
            f"Expected workers to be a whole number of at least 1. Received: {workers!r}."
        )
    grid = candidates(step, tolerance)
    baseline = _baseline(evaluate, baseline)
    described = {
        "step": step,
        "tolerance": tolerance,
        "baseline": baseline.name,
        "table": _fingerprint(baseline),
        **_described(evaluate, settings),
    }
    with locked(Path(results)):
        file = ResultsFile(results, described)
        todo = [candidate for candidate in grid if candidate not in file.rows]
        if storage is not None:
            from keras_effnet.scaling.shared_search import evaluate_shared

            evaluated = evaluate_shared(Job(evaluate, baseline), grid, storage, study, workers, described)
        elif workers > 1:
            evaluated = _in_processes(Job(evaluate, baseline), todo, workers)
        else:
            evaluated = map(Job(evaluate, baseline), todo)
        from tqdm import tqdm

        with tqdm(
            total=len(grid), initial=len(file.rows), unit="net", disable=True if quiet else None
        ) as bar:
            for row in evaluated:
                bar.update(row.candidate not in file.rows)
                file.add(row)
                bar.set_postfix(best=f"{best_first(file.rows.values())[0].score:.4g}")
    return SearchResult(rows=best_first(file.rows.values()), baseline=baseline)


@dataclass(frozen=True)
class Job:
    """Evaluates one candidate; picklable, so that other processes can."""

    evaluate: Evaluate
    baseline: Baseline

    def __call__(self, candidate: Candidate) -> Row:
        resolution = round_resolution(self.baseline.resolution * candidate.gamma)
        start = time.perf_counter()
        try:
            score = float(self.evaluate(candidate.alpha, candidate.beta, resolution))
        except Exception as error:
            raise EffNetError(
                f"Expected evaluate({candidate.alpha}, {candidate.beta}, {resolution}) to return a score. "
                f"Received: {type(error).__name__}: {error}. Run the search again to resume behind the others."
            ) from error
        if not math.isfinite(score):
            raise EffNetError(
                f"Expected evaluate({candidate.alpha}, {candidate.beta}, {resolution}) to return a finite "
                f"score. Received: {score}."
            )
        return Row(
            candidate=candidate,
            depth=candidate.alpha,
            width=candidate.beta,
            resolution=resolution,
            score=score,
            seconds=round(time.perf_counter() - start, 3),
        )


def _baseline(evaluate: Evaluate, given: Baseline | None) -> Baseline:
    """The table that both the grid and `evaluate` mean."""
    own = getattr(evaluate, "baseline", None)
    if given is not None and isinstance(own, Baseline) and own != given:
        raise InvalidInputError(
            f"Expected evaluate to train the baseline of the search, {given.name!r}. Received: one that trains "
            f"{own.name!r}. Pass the same baseline to both, or none to the search."
        )
    return given or (own if isinstance(own, Baseline) else EFFICIENTNET_B0)


def _fingerprint(baseline: Baseline) -> str:
    """Changes with the table, whatever it is called."""
    return hashlib.sha256(repr(baseline).encode()).hexdigest()[:12]


def _described(evaluate: Evaluate, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    describe = getattr(evaluate, "settings", None)
    own = dict(describe()) if callable(describe) else {}
    return {**own, **(settings or {})}


def _in_processes(job: Job, todo: Sequence[Candidate], workers: int) -> Iterator[Row]:
    """Rows as they are finished. Fresh processes: TensorFlow does not survive a fork."""
    if not todo:
        return
    pool = ProcessPoolExecutor(min(workers, len(todo)), mp_context=get_context("spawn"))
    try:
        waiting: set[Future[Row]] = {pool.submit(job, candidate) for candidate in todo}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            failed = [future for future in done if future.exception()]
            yield from (future.result() for future in done if not future.exception())
            for future in failed:
                future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
