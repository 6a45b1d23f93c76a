"""Ctrl-C and SIGTERM end a command in order, wherever in the libraries they arrive."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

DELAY = 0.05  # seconds until an interrupt that was lost is sent again


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated` where the program is."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def not_swallowed() -> Iterator[None]:
    """Within the block an interrupt is not lost in a place that cannot raise.

    A destructor or a garbage collector's callback (JAX installs one) has nobody to raise to: Python prints
    "Exception ignored" and the program goes on as if nobody had pressed Ctrl-C. The signal is sent again, until
    it arrives where it can be raised.
    """

    def again(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            terminated = isinstance(unraisable.exc_value, Terminated)
            number = signal.SIGTERM if terminated else signal.SIGINT
            # from another thread and later: sent here and now, it would be raised in this hook, and lost again
            threading.Timer(DELAY, _thread.interrupt_main, [number]).start()
        else:
            before(unraisable)

    before = sys.unraisablehook
    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
