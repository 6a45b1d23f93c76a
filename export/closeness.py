"""How close one output of an artefact is to the model's: figures by its kind, and what they must reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import counted
from keras_effnet.pictures.labels import both_sides

from .kinds import CLASSES, KINDS, LOGITS, MAP, SIGMOID, Kind
from .outputs import Output
from .quantization.accuracy import sqnr_db
from .targets import Tolerance

Array = npt.NDArray[Any]

CONFIDENCE = 0.95  # of what photographs show of others like them
NEAR_TIE = 0.75  # probability of the other class as a share of its own; another crop changes more
LOW = 5.0  # percentile of the photographs below which a tail is judged
SHOWN_WORST = 3  # pictures that reports show
NOTICEABLE = 60.0  # dB: a thousandth of the signal; what is closer differs by the order of additions
FEWEST_NEIGHBOURS = 8  # pictures among which a nearest one says something: chance is right in one of seven


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """How close one output is.

    Attributes:
        name: of the output.
        kind: what it is, see `outputs.KINDS`.
        agreement: share of the same best class, or of the same yes or no, 0–1; None where nothing is decided.
        near_ties: see `verification.Report`.
        agreement_but_near_ties: the agreement if these counted as the same.
        sqnr_db: 10·log10(signal power / error power) over all pictures; inf when equal.
        median_sqnr_db, low_sqnr_db, worst_sqnr_db: the same of each picture: their median, the 5th percentile
            and the smallest.
        max_abs_error: largest difference of any probability (for other outputs: relative to the largest value).
        mean_cosine: mean cosine between the outputs, −1–1.
        same_neighbour: share of the pictures whose nearest other picture, by the cosine of this output, is the
            same, 0–1; None for outputs that decide, or of few pictures.
        columns: values of one picture.
        thresholds: at which sigmoids decide, where the file has them; else 0.5.
        judged_by: how many decisions the agreement rests on: pictures, or of many sigmoids the rarer of yes and no.
        worst_pictures: places of the pictures that differ most, the worst first, each with its SQNR; none of
            those that differ by less than `NOTICEABLE`.
    """

    name: str
    kind: str
    agreement: float | None
    near_ties: int
    agreement_but_near_ties: float | None
    sqnr_db: float
    median_sqnr_db: float
    low_sqnr_db: float
    worst_sqnr_db: float
    max_abs_error: float
    mean_cosine: float
    same_neighbour: float | None
    worst_pictures: tuple[tuple[int, float], ...]
    columns: int = 1
    thresholds: tuple[float, ...] = ()
    judged_by: int = 0

    @property
    def has_classes(self) -> bool:
        """Whether there is a best class: one among several columns."""
        return KINDS[self.kind].has_best_class(self.columns)


def kind_by_values(values: Array) -> Kind:
    """What an output most likely is by what it says: for those of which nothing else is known."""
    if values.ndim > 2:
        return MAP
    inside = bool(((values >= 0) & (values <= 1)).all())
    if values.shape[1] == 1:
        return SIGMOID if inside else LOGITS
    return CLASSES if inside and np.allclose(values.sum(axis=1), 1.0, atol=1e-2) else LOGITS


def measure(output: Output, reference: Array, values: Array) -> Closeness:
    """The figures of one output.

    Args:
        output: which one.
        reference: what the model says, `[N, ...]`.
        values: what the artefact says.
    """
    kind = output.meaning.at(output.thresholds)
    reference, values = reference.reshape(len(reference), -1), values.reshape(len(values), -1)
    each = np.array([sqnr_db(one, other) for one, other in zip(reference, values, strict=True)])
    scale = 1.0 if kind.is_probability else float(np.abs(reference).max(initial=0)) or 1.0
    near = _near_ties(kind, reference, values)
    few = kind.decides or len(reference) < FEWEST_NEIGHBOURS
    return Closeness(
        name=output.name,
        kind=kind.name,
        agreement=kind.agreement(reference, values),
        near_ties=int(np.sum(near)) if kind.has_one_decision else 0,
        agreement_but_near_ties=kind.agreement(reference, values, near),
        sqnr_db=sqnr_db(reference, values),
        # without interpolation: of equal pictures it is infinite
        median_sqnr_db=float(np.percentile(each, 50, method="lower")),
        low_sqnr_db=float(np.percentile(each, LOW, method="lower")),
        worst_sqnr_db=float(each.min()),
        max_abs_error=float(np.abs(values - reference).max(initial=0)) / scale,
        mean_cosine=float(
            np.mean([_cosine(one, other) for one, other in zip(reference, values, strict=True)])
        ),
        same_neighbour=None if few else float(np.mean(_nearest(reference) == _nearest(values))),
        worst_pictures=tuple(
            (int(place), float(each[place]))
            for place in np.argsort(each, kind="stable")[:SHOWN_WORST]
            if each[place] < NOTICEABLE
        ),
        columns=reference.shape[1],
        thresholds=kind.accepts,
        judged_by=_cases(kind, reference),
    )


def _cases(kind: Kind, reference: Array) -> int:
    """How many decisions an agreement rests on."""
    if not kind.decides or kind.has_one_decision:
        return len(reference)
    yes = int(np.sum(kind.decisions(reference)))
    return min(count for count in (yes, reference.size - yes) if count)


def _cosine(one: Array, other: Array) -> float:
    one, other = one.astype(np.float64), other.astype(np.float64)
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / max(norms, float(np.finfo(np.float64).tiny))


def _nearest(values: Array) -> Array:
    """For each picture the place of the other one with the largest cosine."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    rows = (values / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32)
    similar = rows @ rows.T
    np.fill_diagonal(similar, -np.inf)
    return np.asarray(similar.argmax(axis=1))


def _near_ties(kind: Kind, reference: Array, values: Array) -> Array:
    """Where another decision is taken, but one that the model finds nearly as probable as its own.

    In the shape of `Kind.decisions`.
    """
    if not kind.decides:
        return np.zeros(len(reference), bool)
    if kind.threshold is not None:
        sides = both_sides(reference, 2) if kind.has_one_decision else reference
        least = np.asarray(kind.accepts or (kind.threshold,), np.float32)
        yes, no = sides * (1 - least), (1 - sides) * least  # equal at the threshold
        other = np.minimum(yes, no) >= NEAR_TIE * np.maximum(yes, no)
        if kind.has_one_decision:
            other = np.asarray(other.any(axis=1, keepdims=True))
        return np.asarray(other & (kind.decisions(reference) != kind.decisions(values)))
    if reference.shape[1] == 1:  # a logit against 0
        near = np.abs(reference) <= -math.log(NEAR_TIE)
        return np.asarray(near & (kind.decisions(reference) != kind.decisions(values)))
    own, chosen = (np.argmax(each, axis=1)[:, None] for each in (reference, values))
    best, given = (np.take_along_axis(reference, each, axis=1) for each in (own, chosen))
    near = given >= NEAR_TIE * best if kind.is_probability else given - best >= math.log(NEAR_TIE)
    return np.asarray(near & (own != chosen))[:, 0]


def missed(found: Closeness, tolerance: Tolerance) -> list[str]:
    """What an output does not reach, in words; empty when good."""
    sentences = []
    if tolerance.max_abs_error is not None and not found.max_abs_error <= tolerance.max_abs_error:
        sentences.append(f"Largest error {found.max_abs_error:.2g}, allowed {tolerance.max_abs_error:g}.")
    required, agreement = tolerance.top1_agreement, found.agreement
    if required is not None and agreement is not None and agreement < required:
        what = "picture" if KINDS[found.kind].has_one_decision else "case"
        remark = _too_few(required, found.judged_by, what)
        if not remark or (found.agreement_but_near_ties or 0.0) < required:
            sentences.append(f"{_called(found)} {agreement:.3f}, required {required:g}.{remark}")
            if found.kind == LOGITS.name:
                sentences.append("If these are features and no scores of classes, say so: kinds='embedding'.")
    for what, value, least in (
        ("SQNR", found.sqnr_db, tolerance.sqnr_db),
        ("Median SQNR of a picture", found.median_sqnr_db, tolerance.median_sqnr_db),
        ("5th percentile of the SQNR of a picture", found.low_sqnr_db, tolerance.low_sqnr_db),
    ):
        if least is not None and not value >= least:
            sentences.append(f"{what} {value:.1f} dB, required {least:g} dB.")
    for what, share, least in (
        ("Mean cosine", found.mean_cosine, tolerance.mean_cosine),
        ("Share of pictures with the same nearest neighbour", found.same_neighbour, tolerance.same_neighbour),
    ):
        if least is not None and share is not None and not share >= least:
            sentences.append(f"{what} {share:.3f}, required {least:g}.")
    return sentences


# what the agreement is called where there is no best class
_AGREEMENT = {
    "classes": "Agreement",
    "logits": "Agreement at the threshold 0:",
    "sigmoid": "Agreement at {}:",
    "sigmoids": "Agreement of the decisions at {}:",
}


def _called(found: Closeness) -> str:
    if found.has_classes:
        return "Top-1 agreement"
    least = found.thresholds or (0.5,)
    at = f"the threshold {least[0]:g}" if len(least) == 1 else "the thresholds of the classes"
    return _AGREEMENT[found.kind].format(at)


def shown_agreement(agreement: float, images: int) -> float:
    """The agreement on all such pictures that these ones show, with 95 % confidence, 0–1.

    The exact bound of Clopper and Pearson (1934), one-sided: the share with which so many or more would agree
    in one of twenty tries. 8 of 8 show 0.69, 59 of 59 or 99 of 100 show 0.95.

    Args:
        agreement: share of the pictures that agree, 0–1; of several decisions each, the part of a picture
            that is left over counts as another answer.
        images: how many there are; of several decisions each, how many these rest on (`Closeness.judged_by`).
    """
    agreeing = math.floor(agreement * images + 1e-6)  # 0.29 × 100 is less than 29
    if agreeing == 0:
        return 0.0
    differing = np.arange(images - agreeing + 1)
    steps = np.log((images - differing[:-1]) / differing[1:])
    ways = np.concatenate([[0.0], np.cumsum(steps)])  # logarithms of the binomial coefficients
    low, high = 0.0, 1.0
    for _ in range(50):
        share = (low + high) / 2
        chances = ways + (images - differing) * math.log(share) + differing * math.log1p(-share)
        if np.exp(chances).sum() < 1 - CONFIDENCE:
            low = share
        else:
            high = share
    return low


def shown_by(outputs: Sequence[Closeness]) -> float | None:
    """What the photographs show of the agreement of all outputs that decide: of the worst one, None without any.

    Of many sigmoids it rests on fewer cases than there are photographs where hardly anything is a yes.
    """
    shown = [
        shown_agreement(each.agreement, each.judged_by) for each in outputs if each.agreement is not None
    ]
    return min(shown, default=None)


def _too_few(required: float, cases: int, what: str) -> str:
    """A remark where even an agreement on all pictures would not show what is required of all such pictures."""
    if required >= 1:
        return ""
    enough = math.ceil(math.log(1 - CONFIDENCE) / math.log(required))
    if cases >= enough:
        return ""
    few = f"{counted(cases, what)} {'is' if cases == 1 else 'are'} few"
    return f" {few} to judge a share by: verify on {enough} or more."
