"""The grid search on several machines: Optuna's storage hands out the candidates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from keras_effnet.errors import InvalidInputError, require
from keras_effnet.scaling.results import Candidate, Row
from keras_effnet.scaling.search import Job


def evaluate_shared(
    job: Job,
    grid: Sequence[Candidate],
    storage: str,
    study: str,
    workers: int,
    settings: Mapping[str, Any],
) -> Iterator[Row]:
    """Evaluate candidates that nobody else has, until all are; yield the rows of everybody.

    A machine that dies leaves its candidate unfinished; the others take it up when nothing else is left.

    Raises:
        InvalidInputError: the study is of another search.
    """
    require("optuna", "search")
    opened = _open(storage, study, grid)
    text = json.dumps(dict(settings), sort_keys=True)
    known = opened.user_attrs.get("settings")
    if known is None:
        opened.set_user_attr("settings", text)
    elif known != text:
        raise InvalidInputError(
            f"Expected the study {study!r} to be of this search. Received: one with the settings {known}, "
            f"now {text}. Choose another study."
        )
    if workers == 1:
        _work(job, grid, storage, study)
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for future in [pool.submit(_work, job, grid, storage, study) for _ in range(workers)]:
                future.result()
    seen = set()
    for trial in opened.get_trials(deepcopy=False):
        if trial.state.is_finished() and trial.value is not None:
            candidate = grid[trial.params["candidate"]]
            if candidate not in seen:
                seen.add(candidate)
                yield Row(candidate=candidate, score=trial.value, **trial.user_attrs)


def _work(job: Job, grid: Sequence[Candidate], storage: str, study: str) -> None:
    def objective(trial: Any) -> float:
        row = job(grid[trial.suggest_int("candidate", 0, len(grid) - 1)])
        for name in ("depth", "width", "resolution", "seconds"):
            trial.set_user_attr(name, getattr(row, name))
        return row.score

    opened = _open(storage, study, grid)
    finished = {
        trial.params.get("candidate")
        for trial in opened.get_trials(deepcopy=False)
        if trial.value is not None
    }
    if len(finished) < len(grid):  # a grid sampler begins again where all is done
        opened.optimize(objective)


def open_storage(storage: str) -> Any:
    """An Optuna storage from its address: a database URL, or the path of a journal file."""
    optuna = require("optuna", "search")
    if "://" in storage:
        return optuna.storages.RDBStorage(storage)
    journal = require("optuna.storages.journal", "search")
    return optuna.storages.JournalStorage(journal.JournalFileBackend(storage))


def _open(storage: str, study: str, grid: Sequence[Candidate]) -> Any:
    optuna = require("optuna", "search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=open_storage(storage),
        sampler=optuna.samplers.GridSampler({"candidate": list(range(len(grid)))}, seed=0),
        study_name=study,
        direction="maximize",
        load_if_exists=True,
    )
