"""Keeps NumPy's linear algebra from fighting over cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run OpenBLAS on one thread.

    Its idle threads spin; next to TensorFlow's own pool, or on a busy machine, that made the small
    factorizations here five to ten times slower than a single thread.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
