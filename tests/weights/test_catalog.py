"""The catalog against golden facts."""

from __future__ import annotations

import collections
import re
from pathlib import Path

import pytest

from keras_effnet.network.conventions import CONVENTIONS
from keras_effnet.network.variants import VARIANTS
from keras_effnet.pictures.framing import Framing
from keras_effnet.weights.catalog import CATALOG, SET_NAMES, WeightSet, markdown, sets_of

ENTRIES = [pytest.param(entry, id=f"{entry.variant}-{entry.name}") for entry in CATALOG]


def test_catalog_holds_every_published_file() -> None:
    assert len(CATALOG) == 57
    files = collections.Counter(source.format for entry in CATALOG for source in entry.sources)
    # h5: 16 of keras.applications, 16 NoisyStudent; PyTorch: 36 of timm's ports and B8's RandAugment, 9 of torchvision,
    # timm's own B1–B4 twice and its Lite0, 3 on PyPI; safetensors: timm's B0, B1 and B5
    assert files == {"keras-h5": 32, "pytorch": 57, "tensorflow": 40, "safetensors": 3}


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("imagenet", "b0 b1 b2 b3 b4 b5 b6 b7 lite0 lite1 lite2 lite3 lite4"),
        ("baseline", "b0 b1 b2 b3 b4 b5"),
        ("randaugment", "b5 b7 b8"),
        ("advprop", "b0 b1 b2 b3 b4 b5 b6 b7 b8"),
        ("noisy-student", "b0 b1 b2 b3 b4 b5 b6 b7 l2"),
        ("noisy-student-475", "l2"),
        ("torchvision", "b0 b1 b2 b3 b4 b5 b6 b7"),
        ("torchvision-v2", "b1"),
        ("timm", "b0 b1 b2 b3 b4 b5 lite0"),
    ],
)
def test_set_exists_for_exactly_its_variants(name: str, variants: str) -> None:
    assert [entry.variant for entry in CATALOG if entry.name == name] == variants.split()
    assert name in SET_NAMES


@pytest.mark.parametrize(
    ("variant", "name", "top1", "preprocessing", "resolution"),
    [
        ("b0", "imagenet", 77.1, "imagenet", 224),
        ("b7", "imagenet", 84.3, "imagenet", 600),
        ("b5", "baseline", 83.1, "imagenet", 456),
        ("b7", "randaugment", 84.7, "imagenet", 600),
        ("b8", "advprop", 85.5, "advprop", 672),
        ("l2", "noisy-student", 88.4, "imagenet", 800),
        ("l2", "noisy-student-475", 88.2, "imagenet", 475),
        ("lite4", "imagenet", 81.5, "lite", 300),
        ("b8", "randaugment", 85.34, "imagenet", 672),
        ("b0", "timm", 78.57, "advprop", 224),
        ("b1", "timm", 80.40, "advprop", 240),
        ("b5", "timm", 85.89, "imagenet", 448),
        ("lite0", "timm", 75.49, "imagenet", 224),
    ],
)
def test_entry_has_its_published_figures(
    variant: str, name: str, top1: float, preprocessing: str, resolution: int
) -> None:
    entry = next(entry for entry in sets_of(variant) if entry.name == name)
    assert (entry.top1, entry.preprocessing, entry.resolution) == (top1, preprocessing, resolution)


KERAS = "https://storage.googleapis.com/keras-applications"
QUBVEL = "https://github.com/qubvel/efficientnet/releases/download/v0.0.1"
TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights"
HUB = "https://huggingface.co/timm"
TORCHVISION = "https://download.pytorch.org/models"
GOOGLE = "https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet"


@pytest.mark.parametrize(
    ("entry", "address", "digest"),
    [
        ("b0 imagenet", f"{KERAS}/efficientnetb0.h5", "md5:902e53a9f72be733fc0bcb005b3ebbac"),
        ("b7 imagenet", f"{KERAS}/efficientnetb7_notop.h5", "md5:cbcfe4450ddf6f3ad90b1b398090fe4a"),
        (
            "b3 noisy-student",
            f"{QUBVEL}/efficientnet-b3_noisy-student_notop.h5",
            "md5:47da5b154de1372b557a65795d3e6135",
        ),
        ("b2 baseline", f"{TIMM}/tf_efficientnet_b2-e393ef04.pth", "sha256:e393ef04"),
        ("b6 imagenet", f"{TIMM}/tf_efficientnet_b6_aa-80ba17e4.pth", "sha256:80ba17e4"),
        ("b8 advprop", f"{TIMM}/tf_efficientnet_b8_ap-00e169fa.pth", "sha256:00e169fa"),
        ("b7 noisy-student", f"{TIMM}/tf_efficientnet_b7_ns-1dbc32de.pth", "sha256:1dbc32de"),
        ("lite4 imagenet", f"{TIMM}/tf_efficientnet_lite4-741542c3.pth", "sha256:741542c3"),
        (
            "b0 torchvision",
            f"{TORCHVISION}/efficientnet_b0_rwightman-7f5810bc.pth",
            "sha256:7f5810bc96def8f7552d5b7e68d53c4786f81167d28291b21c0d90e1fca14934",
        ),
        ("b1 torchvision", f"{TORCHVISION}/efficientnet_b1_rwightman-bac287d4.pth", "sha256:bac287d4"),
        ("b4 torchvision", f"{TIMM}/efficientnet_b4_ra2_320-7eb33cd5.pth", "sha256:7eb33cd5"),
        (
            "b7 torchvision",
            f"{TORCHVISION}/efficientnet_b7_lukemelas-c5b4e57e.pth",
            "sha256:c5b4e57e0da1a10bb4f8a5b410dd3b7b6e7461f9b757209be29409707c3d87dd",
        ),
        ("b1 torchvision-v2", f"{TORCHVISION}/efficientnet_b1-c27df63c.pth", "sha256:c27df63c"),
        ("b2 timm", f"{TIMM}/efficientnet_b2_ra-bcdf34b7.pth", "sha256:bcdf34b7"),
        ("lite0 timm", f"{TIMM}/efficientnet_lite0_ra-37913777.pth", "sha256:37913777"),
        ("b0 timm", f"{HUB}/efficientnet_b0.ra4_e3600_r224_in1k/resolve/main/model.safetensors", ""),
        ("b8 randaugment", f"{TIMM}/tf_efficientnet_b8_ra-572d5dd9.pth", "sha256:572d5dd9"),
        ("b0 baseline", f"{GOOGLE}/ckpts/efficientnet-b0.tar.gz", ""),
        ("b7 imagenet", f"{GOOGLE}/ckptsaug/efficientnet-b7.tar.gz", ""),
        ("b5 randaugment", f"{GOOGLE}/randaug/efficientnet-b5-randaug.tar.gz", ""),
        ("b8 advprop", f"{GOOGLE}/advprop/efficientnet-b8.tar.gz", ""),
        ("l2 noisy-student-475", f"{GOOGLE}/noisystudent/noisy_student_efficientnet-l2_475.tar.gz", ""),
        ("lite3 imagenet", f"{GOOGLE}/lite/efficientnet-lite3.tar.gz", ""),
    ],
)
def test_source_has_its_published_address_and_hash(entry: str, address: str, digest: str) -> None:
    variant, name = entry.split()
    sources = [source for found in sets_of(variant) if found.name == name for source in found.sources]
    assert (address, digest) in [(source.address, source.hash) for source in sources]


@pytest.mark.parametrize("entry", ENTRIES)
def test_entry_is_complete_and_consistent(entry: WeightSet) -> None:
    assert entry.variant in VARIANTS
    assert entry.preprocessing in CONVENTIONS
    assert 0.85 < entry.crop <= 1
    assert entry.licence in ("Apache-2.0", "BSD-3-Clause")
    assert any(source.top for source in entry.sources)
    for source in entry.sources:
        assert bool(source.address) != bool(source.module)
        assert re.fullmatch(r"(md5:[0-9a-f]{32}|sha256:([0-9a-f]{8}|[0-9a-f]{64}))?", source.hash)


def test_every_file_has_its_own_place_in_the_cache() -> None:
    distinct = {source for entry in CATALOG for source in entry.sources}  # a training may stand in two sets
    assert len({source.file for source in distinct}) == len(distinct)


@pytest.mark.parametrize(
    ("variant", "name", "sizes"),
    [
        # side, pixels that the crop leaves out, top-1
        ("b0", "timm", [(224, 24, 78.57), (256, 0, 79.36)]),
        ("b1", "timm", [(240, 26, 80.40), (288, 0, 81.44)]),
        ("b3", "timm", [(288, 41, 81.47), (320, 0, 82.30)]),
        ("b4", "timm", [(320, 45, 82.66), (384, 0, 83.47)]),
        ("b1", "torchvision", [(240, 16, 78.642)]),
        ("b4", "torchvision", [(380, 4, 83.384)]),
        ("b1", "torchvision-v2", [(240, 15, 79.838)]),
        ("b0", "imagenet", [(224, 32, 77.1)]),
        ("l2", "noisy-student", [(800, 32, 88.4)]),
    ],
)
def test_set_was_judged_at_these_sizes(variant: str, name: str, sizes: list[tuple[int, int, float]]) -> None:
    entry = next(entry for entry in sets_of(variant) if entry.name == name)
    assert [(each.resolution, each.margin, each.top1) for each in entry.evaluations] == sizes


def test_photographs_are_read_as_at_the_nearest_published_size() -> None:
    entry = next(entry for entry in sets_of("b0") if entry.name == "timm")
    assert [entry.framing(size) for size in (192, 236, 244, 300)] == [
        Framing("bicubic", 24),
        Framing("bicubic", 24),
        Framing("bicubic", 0),
        Framing("bicubic", 0),
    ]


@pytest.mark.parametrize(
    ("index", "crop"), list(enumerate((0.875, 0.882, 0.890, 0.904, 0.922, 0.934, 0.942, 0.949)))
)
def test_crop_is_that_of_the_reference(index: int, crop: float) -> None:
    assert sets_of(f"b{index}")[0].crop == pytest.approx(crop, abs=1e-3)


def test_documented_table_is_that_of_the_catalog() -> None:
    text = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
    assert markdown() in text
    assert "| EfficientNetB8 | – | – | 85.3 | 85.5 | – | – | – | – | – |" in text
