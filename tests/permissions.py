"""File permissions that count in tests even where they run as root."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_VERSION = 0x20080522  # of the call: capabilities as two sets of 32
_ANY_FILE = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: what lets root read everything


@contextmanager
def counting(probe: Path) -> Iterator[None]:
    """Within the block this thread has no more rights than the owner of a file.

    Args:
        probe: a file of mode 000, or a folder that may not be listed.

    Skips the test where the system does not allow that.
    """
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    before, fewer = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "capget") or libc.capget(header, before):
        pytest.skip("needs Linux")
    fewer[:] = before[:]
    fewer[0] &= ~_ANY_FILE  # the effective ones; those that may be taken back follow
    libc.capset(header, fewer)
    try:
        if os.access(probe, os.R_OK, effective_ids=True):
            pytest.skip("permissions do not count here")
        yield
    finally:
        libc.capset(header, before)
