"""The grid search on several machines: Optuna's storage knows who evaluates what, and what came of it.

Every machine asks it for what is left, one network at a time. Only a finished evaluation counts: a
failed one is left for the next run, and one that a dead machine left unfinished is taken up when
nothing else is left (so the last networks of a live machine may be evaluated twice).
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from keras_effnet.errors import require
from keras_effnet.scaling.evaluating import Evaluation, Job
from keras_effnet.scaling.grid import Network
from keras_effnet.scaling.processes import pool_of
from keras_effnet.scaling.storage import claim, open_study


def evaluate_shared(
    job: Job,
    networks: Sequence[Network],
    known: Sequence[Evaluation],
    *,
    storage: str,
    study: str,
    workers: int,
    settings: Mapping[str, Any],
) -> Iterator[Evaluation]:
    """Evaluate what nobody else does until all is done; yield what anybody finished, as it is finished.

    Args:
        job: evaluates a network.
        networks: all of the search.
        known: what is in the local file already; shared with the others, and not yielded.
        storage: see `open_study`.
        study: name of the study.
        workers: processes on this machine.
        settings: what makes scores comparable.

    Raises:
        InvalidInputError: the study is of another search, or the storage cannot be opened.
        EffNetError: an evaluation failed.
    """
    opened = _open(storage, study)
    claim(opened, settings)
    seen = {evaluation.network for evaluation in known}
    there = _finished(opened)
    for evaluation in known:
        if evaluation.network not in there:
            _add(opened, evaluation)

    def fresh() -> Iterator[Evaluation]:
        for network, evaluation in _finished(opened).items():
            if network not in seen:
                seen.add(network)
                yield evaluation

    yield from fresh()
    asked = (job, tuple(networks), storage, study, uuid.uuid4().hex)
    if workers == 1:
        while _step(*asked):
            yield from fresh()
    elif len(seen) < len(networks):
        with pool_of(workers, job.evaluate) as pool:
            waiting: set[Future[bool]] = {pool.submit(_step, *asked) for _ in range(workers)}
            failed: BaseException | None = None
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    failed = failed or future.exception()
                    if not failed and future.result():
                        waiting.add(pool.submit(_step, *asked))
                yield from fresh()
            if failed:
                raise failed
    yield from fresh()


def _step(job: Job, networks: Sequence[Network], storage: str, study: str, owner: str) -> bool:
    """Evaluate one network; False where nothing is left for this machine."""
    states = require("optuna.trial", "search").TrialState
    opened = _open(storage, study)
    before = opened.get_trials(deepcopy=False)
    network = _choose(before, networks, owner)
    if network is None:
        return False
    trial = opened.ask()
    trial.set_user_attr("network", network.key)
    trial.set_user_attr("owner", owner)
    known = {each.number for each in before if each.user_attrs.get("network") == network.key}
    if any(
        each.number < trial.number and each.number not in known and not _failed(each)
        for each in opened.get_trials(deepcopy=False)
        if each.user_attrs.get("network") == network.key
    ):
        opened.tell(trial, state=states.PRUNED)  # somebody was a moment faster
        return True
    try:
        evaluation = job(network)
    except BaseException:  # an interrupt too: the next run takes it up at once
        opened.tell(trial, state=states.FAIL)
        raise
    trial.set_user_attr("seconds", evaluation.seconds)
    opened.tell(trial, evaluation.score)
    return True


def _choose(trials: Sequence[Any], networks: Sequence[Network], owner: str) -> Network | None:
    """A network that nobody has; else one that another machine began, which may be dead; else none."""
    done = {each.user_attrs.get("network") for each in trials if each.value is not None}
    begun: dict[str, set[str]] = {}
    for each in trials:
        if not each.state.is_finished():
            begun.setdefault(each.user_attrs.get("network", ""), set()).add(each.user_attrs.get("owner", ""))
    left = [network for network in networks if network.key not in done]
    free = [network for network in left if network.key not in begun]
    others = [network for network in left if owner not in begun.get(network.key, ())]
    # any of them: who takes the first one always meets the others there
    return random.choice(free or others) if free or others else None


def _failed(trial: Any) -> bool:
    return bool(trial.state.is_finished() and trial.value is None)


def _finished(opened: Any) -> dict[str, Evaluation]:
    found: dict[str, Evaluation] = {}
    for trial in opened.get_trials(deepcopy=False):
        if trial.state.is_finished() and trial.value is not None:
            key = trial.user_attrs["network"]
            row = Evaluation(network=key, score=trial.value, seconds=trial.user_attrs["seconds"])
            found.setdefault(key, row)
    return found


def _add(opened: Any, evaluation: Evaluation) -> None:
    create = require("optuna.trial", "search").create_trial
    attributes = {"network": evaluation.network, "seconds": evaluation.seconds}
    opened.add_trial(create(value=evaluation.score, user_attrs=attributes))


def _open(storage: str, study: str) -> Any:
    # what is evaluated is chosen here; the sampler has nothing to choose
    return open_study(storage, study, require("optuna.samplers", "search").RandomSampler())
