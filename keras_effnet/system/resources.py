"""Memory that large networks leave behind, and threads that fight over cores."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
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


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run OpenBLAS on one thread.

    Its idle threads spin; next to TensorFlow's own pool, or on a busy machine, that made the small
    factorizations here five to ten times slower than a single thread.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
