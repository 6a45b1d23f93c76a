"""Memory goes back to the operating system; files are computed on the cores that a process may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from keras_effnet.export import load
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


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux lets a process keep to some cores")
def test_onnx_file_runs_on_the_cores_of_the_process_when_these_are_few(
    brightness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    threads, opened = [], onnxruntime.InferenceSession

    def noting(path: str, options: Any, **settings: Any) -> Any:
        threads.append(options.intra_op_num_threads)
        return opened(path, options, **settings)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noting)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    load(brightness)
    assert threads == [len(os.sched_getaffinity(0))]
