"""A small, fixed share of `benchmarks/weights_fuzz.py` on every run."""

from __future__ import annotations

import contextlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_effnet.errors import EffNetError
from keras_effnet.network.variants import Variant
from keras_effnet.weights.checkpoint import guarded
from keras_effnet.weights.readers import open_checkpoint, pytorch
from keras_effnet.weights.readers.keras_network import facts_of_config
from tests.weights import foreign

TINY = Variant(name="tiny", title="Tiny", width=0.25, depth=0.3, resolution=32, dropout=0.1)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small valid files, by format."""
    folder = tmp_path_factory.mktemp("originals")
    layers = foreign.random_layers_of(TINY, classes=2)
    kinds = ("timm", "lukemelas", "torchvision", "safetensors", "tar")
    found = {kind: foreign.write_of(folder, TINY, layers, kind).read_bytes() for kind in kinds}
    foreign.write_torch_legacy(folder / "legacy", foreign.state_dict(TINY, layers, "timm"))
    return {**found, "legacy": (folder / "legacy").read_bytes()}


@pytest.fixture(autouse=True)
def every_legacy_file_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the hash would keep the mutants from the reader."""
    monkeypatch.setattr(pytorch, "recognize", lambda _: "published")


@pytest.mark.parametrize("kind", ["timm", "lukemelas", "torchvision", "safetensors", "tar", "legacy"])
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_mutated_file_is_read_or_refused_with_the_packages_own_error(
    originals: dict[str, bytes], tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    content = bytearray(originals[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        near_an_end = st.one_of(
            st.integers(0, 2000), st.integers(-2000, -1), st.integers(0, len(content) - 1)
        )
        at = data.draw(near_an_end) % len(content)
        content[at : at + 1] = data.draw(st.binary(max_size=8))
    path = tmp_path / "mutant"
    path.write_bytes(bytes(content))
    try:
        with open_checkpoint(path) as checkpoint:
            for weights in checkpoint.layers.values():
                for array in weights.values():
                    assert array.read().shape == array.shape
    except EffNetError as error:
        assert str(path) in str(error) or "checkpoint" in str(error)


def test_odd_description_of_a_keras_model_is_read_or_refused_with_the_packages_own_error(tiny: Any) -> None:
    text = tiny.to_json()
    rng = random.Random(5)
    odd = ("null", '"x"', "[]", "{}", "-1", "1e999", '[["a", 0, 0, {}]]', "true", '{"config": 3}')
    values = [
        found.span() for found in re.finditer(r'(?<=: )("[^"]*"|-?[\d.e-]+|null|true|false|\[\]|\{\})', text)
    ]
    clear = 0
    for _ in range(400):
        mutant = text
        for start, end in sorted(rng.sample(values[:400], rng.randint(1, 4)), reverse=True):
            mutant = mutant[:start] + rng.choice(odd) + mutant[end:]
        with contextlib.suppress(EffNetError), guarded(Path("m.keras"), "Keras"):
            facts = facts_of_config(json.loads(mutant), {})
            clear += facts.preprocessing is not None
            assert facts.preprocessing is not None or facts.doubt
    assert 0 < clear < 400
