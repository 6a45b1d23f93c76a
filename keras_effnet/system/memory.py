"""Memory that large networks leave behind."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc


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
