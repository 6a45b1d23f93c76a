"""Memory goes back to the operating system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from keras_effnet.system.resources import release


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_release_returns_freed_blocks_between_kept_ones() -> None:
    before = _resident()
    blocks = [bytes(100_000) + bytes([1]) for _ in range(2000)]  # below the size that is always returned
    kept = blocks[::200]
    del blocks
    release()
    assert _resident() - before < 60e6, len(kept)
