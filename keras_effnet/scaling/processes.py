"""Worker processes that end with the process that started them, and say plainly why they cannot start."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process

from keras_effnet.errors import EffNetError, InvalidInputError
from keras_effnet.system.resources import cores, thread_settings


@contextmanager
def pool_of(workers: int, evaluate: Callable[..., object]) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, which `evaluate` will be sent to: TensorFlow does not survive a fork. They share the cores.

    Args:
        workers: how many at a time.
        evaluate: what they will be asked.

    Raises:
        InvalidInputError: `evaluate` cannot be sent to another process.
        EffNetError: a worker died.
    """
    _check_sendable(evaluate)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(max(1, cores() // workers),),
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise EffNetError(
            "Expected the workers to stay alive. Received: one that ended by itself. In a script, put the call "
            "under if __name__ == '__main__':, since workers import the script; else the memory may have been "
            "short. Run the search again: what is finished is kept."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_sendable(evaluate: Callable[..., object]) -> None:
    try:
        pickle.dumps(evaluate)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidInputError(
            "Expected an evaluate that other processes can import, such as a function of a module. "
            f"Received: {evaluate!r} ({error}). Define it at the top of a module, or use workers=1."
        ) from error


def _begin(threads: int) -> None:
    for name, value in thread_settings(threads).items():
        os.environ.setdefault(name, value)  # what the user has set stays
    _end_with_parent()


def _end_with_parent() -> None:
    """Nobody would tell a worker whose parent was killed: it would train on, and start the next one."""
    parent = parent_process()
    if parent is None:  # not a worker
        return
    sentinel = parent.sentinel

    def watch() -> None:
        connection.wait([sentinel])
        os._exit(1)  # the main thread may be inside a training step for minutes

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
