"""Memory that large networks leave behind, and threads and processes that share cores."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


def release() -> None:
    """Give memory that nobody uses back to the operating system, between two large pieces of work.

    Converters make and drop many blocks of a network's size. glibc keeps such memory for later, in pieces that
    the next, larger request does not fit into, so a process grows with each piece of work.
    """
    gc.collect()
    name = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(name), "malloc_trim", None) if name else None
    if trim is not None:  # glibc alone has it
        trim(0)


def cores() -> int:
    """The cores that this process may use."""
    known = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(known(0)) if known is not None else os.cpu_count() or 1


def thread_settings(threads: int) -> dict[str, str]:
    """Environment variables for a process that has this many threads, to be set before it loads TensorFlow.

    Processes that each take all cores spend a good part of their time waiting for each other.
    """
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")  # NumPy's take the last
    return dict.fromkeys(names, str(threads))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run OpenBLAS on one thread.

    Its idle threads spin; next to TensorFlow's own pool, or on a busy machine, that made the small
    factorizations here five to ten times slower than a single thread.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
