"""The one comparison that decides whether an artefact is good. It knows nothing of formats."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, VerificationError, counted
from keras_effnet.pictures.reading import check_pixels

from .precision import in_float32, plain_keras
from .quantization.accuracy import sqnr_db
from .runners import Runner, load
from .targets import Tolerance, tolerance_of

REFERENCE_BATCH = 8
CONFIDENT = 1.6449  # standard deviations that 95 % of a normal distribution lie above
NEAR_TIE = 0.75  # probability of the other class as a share of its own; another crop changes more
SECOND_BATCH = 3  # differs from the first and from 1, so a batch that was baked in shows


@dataclass(frozen=True, kw_only=True)
class Report:
    """How close an artefact is to its model.

    Attributes:
        file: the artefact.
        recipe: its recipe.
        images: how many pictures were compared.
        top1_agreement: share of pictures with the same best class, 0–1.
        sqnr_db: 10·log10(signal power / error power) of the outputs; inf when equal.
        max_abs_error: largest difference of any probability (for other outputs: relative to the
            largest output).
        mean_cosine: mean cosine between the outputs, −1–1.
        near_ties: on how many pictures the best class is another, but one that the model itself finds at least
            `NEAR_TIE` times as probable as its own. Where there are too few pictures to judge a share by, these
            are no failure.
        failures: what was missed, in words; empty when good.
    """

    file: str
    recipe: str
    images: int
    top1_agreement: float
    sqnr_db: float
    max_abs_error: float
    mean_cosine: float
    near_ties: int = 0
    failures: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was missed."""
        return not self.failures

    def row(self) -> dict[str, Any]:
        """All of it for a program, with `ok`; an infinite SQNR becomes None."""
        exact = not math.isfinite(self.sqnr_db)
        return asdict(self) | {"ok": self.ok, "sqnr_db": None if exact else self.sqnr_db}

    def to_json(self) -> str:
        """`row` as a JSON object."""
        return json.dumps(self.row())

    def raise_if_failed(self) -> None:
        """Raise when the artefact is not good.

        Raises:
            VerificationError: holds this report as `report`.
        """
        if not self.ok:
            raise VerificationError(
                f"Expected {self.file!r} ({self.recipe}) to agree with its model on {counted(self.images, 'picture')}. "
                f"{' '.join(self.failures)} Do not use this file.",
                self,
            )


def verify(
    model: Any,
    path: str | os.PathLike[str],
    images: Any,
    *,
    tolerance: Tolerance | None = None,
    raise_on_failure: bool = True,
) -> Report:
    """Compare an artefact with the Keras model it came from.

    Where the artefact's batch is dynamic, a second batch size is tried too.

    Args:
        model: the Keras model. One that computes in half precision is compared as it computes in float32.
        path: an artefact of any format.
        images: photographs, uint8 or float32 0–255 `[N, H, W, C]`; for integer artefacts other ones
            than those of the calibration.
        tolerance: default: the one of the artefact's target, see `targets`.
        raise_on_failure: False to get the failed report instead of the exception.

    Returns:
        The `Report`.

    Raises:
        VerificationError: the artefact is not good.
        InvalidInputError: pictures or a path that cannot be used.
    """
    runner = load(path)
    pixels = check_pixels(_as_array(images), size=runner.size, channels=runner.channels)
    _check_fits(model, pixels, runner)
    exact = in_float32(model)  # an artefact has the model's weights, not the precision it was trained in
    reference = reference_outputs(exact, pixels)
    report = compare(runner, reference, pixels, tolerance or tolerance_of(runner.format, runner.recipe))
    if raise_on_failure:
        report.raise_if_failed()
    return report


def _check_fits(model: Any, pixels: npt.NDArray[Any], runner: Runner) -> None:
    """Make sure that a model takes the pictures of an artefact."""
    wanted = tuple(model.inputs[0].shape[1:]) if len(model.inputs) == 1 else ()
    if len(wanted) == 3 and any(
        own not in (None, given) for own, given in zip(wanted, pixels.shape[1:], strict=True)
    ):
        raise InvalidInputError(
            f"Expected pictures of {_by(wanted)} for the model, which takes no others. Received: "
            f"{_by(pixels.shape[1:])}, for {str(runner.path)!r}. Compare it with the model it was exported from."
        )


def _by(shape: Iterable[int | None]) -> str:
    return " × ".join("any" if side is None else str(side) for side in shape)


def reference_outputs(model: Any, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """What the Keras model itself says, float32 `[N, classes]`."""
    with plain_keras():
        return np.asarray(model.predict(pixels, batch_size=REFERENCE_BATCH, verbose=0), dtype=np.float32)


def compare(
    runner: Runner, reference: npt.NDArray[np.float32], pixels: npt.NDArray[Any], tolerance: Tolerance
) -> Report:
    """Compare an open artefact with the model's own outputs for the same pictures."""
    outputs = np.concatenate(
        [runner(pixels[start : start + REFERENCE_BATCH]) for start in range(0, len(pixels), REFERENCE_BATCH)]
    )
    failures: list[str] = []
    if outputs.shape != reference.shape:
        raise InvalidInputError(
            f"Expected {str(runner.path)!r} to have outputs {list(reference.shape)}, as the model has. "
            f"Received: {list(outputs.shape)}. Compare it with the model it was exported from."
        )
    if not np.isfinite(outputs).all():
        failures.append("The outputs hold NaN or infinity.")
        outputs = np.nan_to_num(outputs, posinf=0.0, neginf=0.0)
    figures = _figures(reference, outputs)
    if runner.dynamic_batch and len(pixels) >= SECOND_BATCH:
        other = runner(pixels[:SECOND_BATCH])
        second = _figures(reference[:SECOND_BATCH], other)
        figures["max_abs_error"] = max(figures["max_abs_error"], second["max_abs_error"])
    near_ties = _near_ties(reference, outputs)
    failures += _missed(figures, tolerance, len(pixels), near_ties)
    return Report(
        file=runner.path.name,
        recipe=runner.recipe,
        images=len(pixels),
        near_ties=near_ties,
        failures=tuple(failures),
        **figures,
    )


def _figures(reference: npt.NDArray[Any], outputs: npt.NDArray[Any]) -> dict[str, float]:
    reference = reference.reshape(len(reference), -1).astype(np.float64)
    outputs = outputs.reshape(len(outputs), -1).astype(np.float64)
    error = outputs - reference
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(outputs, axis=1)
    cosines = np.sum(reference * outputs, axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
    probabilities = _are_probabilities(reference)
    scale = 1.0 if probabilities else float(np.abs(reference).max(initial=0)) or 1.0
    best, found = (_best(values, probabilities=probabilities) for values in (reference, outputs))
    return {
        "top1_agreement": float(np.mean(best == found)),
        "sqnr_db": sqnr_db(reference, outputs),
        "max_abs_error": float(np.abs(error).max(initial=0)) / scale,
        "mean_cosine": float(cosines.mean()),
    }


def _best(outputs: npt.NDArray[Any], *, probabilities: bool) -> npt.NDArray[Any]:
    """The class that each picture gets. A single output decides by its side of 0.5, or of 0 where it is a logit."""
    if outputs.shape[1] == 1:
        return np.asarray(outputs[:, 0] > (0.5 if probabilities else 0.0))
    return np.asarray(outputs.argmax(axis=1))


def _are_probabilities(outputs: npt.NDArray[Any]) -> bool:
    if outputs.shape[1] == 1:  # of a single sigmoid
        return bool(((outputs >= 0) & (outputs <= 1)).all())
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1.0, atol=1e-2))


def _near_ties(reference: npt.NDArray[Any], outputs: npt.NDArray[Any]) -> int:
    """See `Report`. What are no probabilities are taken for logits."""
    reference, outputs = reference.reshape(len(reference), -1), outputs.reshape(len(outputs), -1)
    own, chosen = (np.argmax(each, axis=1)[:, None] for each in (reference, outputs))
    best, given = (np.take_along_axis(reference, each, axis=1) for each in (own, chosen))
    probable = given >= NEAR_TIE * best
    near = probable if _are_probabilities(reference) else given - best >= math.log(NEAR_TIE)
    return int(np.sum(near & (own != chosen)))


def _missed(figures: dict[str, float], tolerance: Tolerance, images: int, near_ties: int = 0) -> list[str]:
    missed = []
    error, agreement, sqnr = figures["max_abs_error"], figures["top1_agreement"], figures["sqnr_db"]
    if tolerance.max_abs_error is not None and not error <= tolerance.max_abs_error:
        missed.append(f"Largest error {error:.2g}, allowed {tolerance.max_abs_error:g}.")
    required = tolerance.top1_agreement
    if required is not None and agreement < required:
        remark = _too_few(required, images)
        if not remark or agreement + near_ties / images < required:
            missed.append(f"Top-1 agreement {agreement:.3f}, required {required:g}.{remark}")
    if tolerance.sqnr_db is not None and not sqnr >= tolerance.sqnr_db:
        missed.append(f"SQNR {sqnr:.1f} dB, required {tolerance.sqnr_db:g} dB.")
    return missed


def shown_agreement(agreement: float, images: int) -> float:
    """The top-1 agreement on all such pictures that these ones show, with 95 % confidence, 0–1.

    The lower end of Wilson's interval (1927): 8 of 8 show 0.75, 52 of 52 or 99 of 100 show 0.95.

    Args:
        agreement: share of the pictures that agree, 0–1.
        images: how many there are.
    """
    noise = CONFIDENT**2 / images
    spread = CONFIDENT * math.sqrt(agreement * (1 - agreement) / images + noise / (4 * images))
    return (agreement + noise / 2 - spread) / (1 + noise)


def near_ties_of(report: Report) -> str:
    """A remark behind a report's agreement, empty where there are none: `; 1 of the others is a near-tie`."""
    if not report.near_ties:
        return ""
    others = (
        f"{report.near_ties} of the others {'is a near-tie' if report.near_ties == 1 else 'are near-ties'}"
    )
    return f"; {others}"


def _too_few(required: float, images: int) -> str:
    """A remark where even an agreement on all pictures would not show what is required of all such pictures."""
    if required >= 1:
        return ""
    enough = math.ceil(CONFIDENT**2 * required / (1 - required))
    if images >= enough:
        return ""
    few = f"{counted(images, 'picture')} {'is' if images == 1 else 'are'} few"
    return f" {few} to judge a share by: verify on {enough} or more."


def _as_array(images: Any) -> Any:
    """An array, or an iterable of batches, as one array."""
    if hasattr(images, "shape"):
        return images
    if isinstance(images, str) or not isinstance(images, Iterable):
        raise InvalidInputError(
            f"Expected photographs to verify on, [N, H, W, C] or an iterable of such batches. Received: {images!r}. "
            "Read them with keras_effnet.load_image and stack them."
        )
    batches = [np.asarray(batch) for batch in images]
    return np.concatenate(batches) if batches and batches[0].ndim == 4 else np.asarray(batches)
