"""`engine="ray"`: the same rows from a cluster, whichever of its nodes dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from keras_effnet import export
from keras_effnet.errors import ExportError, InvalidInputError
from keras_effnet.export import scoring

ray = pytest.importorskip("ray")
pytest.importorskip("onnxruntime")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes on this machine with a core each, and the program connected to the first."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        started.second = started.add_node(num_cpus=1)
        ray.init(address=started.address, logging_level="ERROR", log_to_driver=False)
        started.wait_for_nodes()
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


def test_cluster_gives_the_same_rows_when_one_of_two_nodes_is_killed(
    cluster: Any, brightness: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "RUN", 2)
    for index in range(60):
        Image.new("RGB", (300, 300), (4 * index,) * 3).save(tmp_path / f"{index:02}.png")
    alone = list(export.score(brightness, tmp_path, workers=0))
    scores = export.score(brightness, tmp_path, engine="ray")
    assert scores.workers == 2
    rows = iter(scores)
    first = [next(rows)]
    cluster.remove_node(cluster.second, allow_graceful=False)
    assert [*first, *rows] == alone

    damaged = tmp_path / "m.onnx"
    damaged.write_bytes(brightness.read_bytes())
    scores = export.score(damaged, tmp_path, engine="ray")
    damaged.write_bytes(b"\x08\x07")
    with pytest.raises(
        ExportError, match=r"Expected an actor that scores photographs with 'm\.onnx'\. It did not"
    ):
        list(scores)


def test_cluster_that_is_not_there_is_one_line(
    brightness: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(
        InvalidInputError, match=r"Expected a Ray cluster at RAY_ADDRESS=127\.0\.0\.1:1\. It cannot"
    ):
        export.score(brightness, tmp_path, engine="ray")
