"""The one comparison that decides whether an artefact is good. It knows nothing of formats."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, VerificationError, counted, warn
from keras_effnet.pictures.decoding import Source
from keras_effnet.pictures.folders import sample_paths
from keras_effnet.pictures.reading import at_most, check_batches

from .closeness import Closeness, kind_by_values, measure, missed
from .onnx_pictures import checked
from .outputs import ONLY_OUTPUT, Output, SaidKinds, by_name, output_names, outputs_of, tensors_of
from .precision import in_float32, plain_keras
from .runners import Runner, load
from .soundness import check_same_answer
from .targets import FEATURES, READING, Tolerance, tolerance_of

REFERENCE_BATCH = 8
OUTPUT_BYTES = 1 << 30  # of a model's outputs for all pictures; an artefact's are as many
SECOND_BATCH = 3  # differs from the first and from 1, so a batch that was baked in shows


@dataclass(frozen=True, kw_only=True)
class Report:
    """How close an artefact is to its model; of several outputs each figure is that of the worst one.

    Attributes:
        file: the artefact.
        recipe: its recipe.
        images: how many pictures were compared.
        top1_agreement: share of pictures with the same best class, 0–1; None where no output has classes.
        sqnr_db: 10·log10(signal power / error power) of the outputs; inf when equal.
        max_abs_error: largest difference of any probability (for other outputs: relative to the
            largest output).
        mean_cosine: mean cosine between the outputs, −1–1.
        near_ties: on how many pictures the best class is another, but one that the model itself finds at least
            `NEAR_TIE` times as probable as its own. Where there are too few pictures to judge a share by, these
            are no failure.
        agreement: share of the decisions that are the same, of classes and of a yes or no; None where nothing is
            decided.
        outputs: the same for each output, and its distribution over the pictures.
        reading: of an artefact that reads photographs itself: for each output, how close its answers for
            photographs' files are to those for the pixels that `load_image` reads from them.
        failures: what was missed, in words; empty when good.
    """

    file: str
    recipe: str
    images: int
    top1_agreement: float | None
    sqnr_db: float
    max_abs_error: float
    mean_cosine: float
    near_ties: int = 0
    agreement: float | None = None
    outputs: tuple[Closeness, ...] = ()
    reading: tuple[Closeness, ...] = ()
    failures: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was missed."""
        return not self.failures

    def row(self) -> dict[str, Any]:
        """All of it for a program, with `ok`; an infinite SQNR becomes None."""
        told = asdict(self) | {"ok": self.ok}
        for figures in (told, *told["outputs"], *told["reading"]):
            for key, value in figures.items():
                if key.endswith("sqnr_db") and not math.isfinite(value):
                    figures[key] = None
        return told

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
    kinds: SaidKinds = None,
    tolerance: Tolerance | None = None,
    photographs: Sequence[Source] = (),
    raise_on_failure: bool = True,
) -> Report:
    """Compare an artefact with the Keras model it came from, each output by what it is.

    Classes and logits must keep the best class, sigmoids their yes or no, embeddings and maps their direction and
    their nearest neighbours; see `targets` for how far. Where the artefact's batch is dynamic, a second batch size
    is tried too.

    Args:
        model: the Keras model. One that computes in half precision is compared as it computes in float32.
        path: an artefact of any format.
        images: photographs, uint8 or float32 0–255 `[N, H, W, C]`; for integer artefacts other ones
            than those of the calibration.
        kinds: what the outputs are, see `to_saved_model`; default: what the artefact says, or the model's layers.
        tolerance: default: the one of the artefact's target, see `targets`.
        photographs: files or their bytes, JPEG or PNG, for an artefact that reads them itself; default: the eight
            that ship with the package.
        raise_on_failure: False to get the failed report instead of the exception.

    Returns:
        The `Report`.

    Raises:
        VerificationError: the artefact is not good.
        InvalidInputError: pictures or a path that cannot be used.
    """
    runner = load(path)
    pixels = check_batches(images, size=runner.size, channels=runner.channels)
    _check_fits(model, pixels, runner)
    outputs = _outputs(model, runner, kinds)
    asked = tolerance or tolerance_of(runner.format, runner.recipe)
    _check_tolerance(asked, outputs)
    exact = in_float32(model)  # an artefact has the model's weights, not the precision it was trained in
    pixels = held_in_memory(exact, pixels)
    reference = reference_outputs(exact, pixels)
    report = with_reading(compare(runner, reference, pixels, asked, outputs), runner, photographs, outputs)
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


def _outputs(model: Any, runner: Runner, kinds: SaidKinds) -> tuple[Output, ...]:
    """The outputs of a model, with the thresholds that its artefact tells, and its kinds where nobody says others."""
    told = runner.info.outputs if runner.info is not None else ()
    if kinds is None:
        kinds = {output.name: output.kind for output in told} or None
    names = output_names(model)
    if len(names) != len(runner.names) or (len(names) > 1 and set(names) != set(runner.names)):
        raise InvalidInputError(
            f"Expected {str(runner.path)!r} to have the outputs {', '.join(names)}, as the model has. Received: "
            f"{', '.join(runner.names)}. Compare it with the model it was exported from."
        )
    if isinstance(kinds, Mapping) and len(names) == 1:  # a file that was not made here may call it otherwise
        kinds = dict(zip(names, kinds.values(), strict=False))
    found = outputs_of(model, kinds)
    thresholds = {output.name: output.thresholds for output in told}
    return tuple(
        replace(output, thresholds=thresholds.get(output.name, output.thresholds)) for output in found
    )


def _check_tolerance(tolerance: Tolerance, outputs: Sequence[Output]) -> None:
    """Make sure that there is something to judge each output by."""
    for output in outputs:
        if tolerance.of_kind(output.meaning) == Tolerance():
            raise InvalidInputError(
                f"Expected a tolerance that says something of {output.name!r}, {output.kind} ({output.meaning.words})."
                f" Received: {tolerance}. Ask for example for max_abs_error or mean_cosine."
            )


def held_in_memory(model: Any, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As many pictures, from all over the set, as the outputs of a model can be held of: maps are large."""
    if all(len(tensor.shape) <= 2 for tensor in tensors_of(model)):
        return pixels
    made = by_name(output_names(model), model(pixels[:1], training=False)).values()
    count = max(REFERENCE_BATCH, OUTPUT_BYTES // sum(4 * int(np.prod(tensor.shape)) for tensor in made))
    if count >= len(pixels):
        return pixels
    warn(
        f"Compares {count} of {len(pixels)} pictures: the outputs of {model.name!r} would exceed "
        f"{OUTPUT_BYTES >> 30} GiB with more."
    )
    return at_most(pixels, count)


def reference_outputs(model: Any, pixels: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
    """What the Keras model itself says, float32 `[N, ...]` by output.

    Raises:
        InvalidInputError: it says something else when it is asked again.
    """
    names = output_names(model)

    def answers(pictures: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        made = by_name(names, model.predict(pictures, batch_size=REFERENCE_BATCH, verbose=0))
        return {name: np.asarray(values, np.float32) for name, values in made.items()}

    with plain_keras():
        reference, again = answers(pixels), answers(pixels[:REFERENCE_BATCH])
    first = [values[:REFERENCE_BATCH] for values in reference.values()]
    check_same_answer(model, first, list(again.values()))
    return reference


def compare(
    runner: Runner,
    reference: Any,
    pixels: npt.NDArray[Any],
    tolerance: Tolerance,
    outputs: Sequence[Output] = (),
) -> Report:
    """Compare an open artefact with the model's own outputs for the same pictures.

    Args:
        runner: the artefact.
        reference: of `reference_outputs`, or the array of the only output.
        pixels: the pictures, `[N, H, W, C]`.
        tolerance: what to ask of it.
        outputs: what the outputs are; of what is not named here, the values decide.
    """
    batches = [
        _named(runner(pixels[start : start + REFERENCE_BATCH]), reference)
        for start in range(0, len(pixels), REFERENCE_BATCH)
    ]
    second = None
    if getattr(runner, "dynamic_batch", False) and len(pixels) >= SECOND_BATCH:
        second = _named(runner(pixels[:SECOND_BATCH]), reference)
    known = {output.name: output for output in outputs}
    failures: list[str] = []
    found: list[Closeness] = []
    several = isinstance(reference, Mapping) and len(reference) > 1
    for name, wanted in _named(reference, reference).items():
        values = np.concatenate([batch[name] for batch in batches])
        _check_shape(runner, name, wanted, values)
        output = known.get(name) or Output(name=name, kind=kind_by_values(wanted).name)
        figures, sentences = _judged(
            output, wanted, values, None if second is None else second[name], tolerance
        )
        found.append(figures)
        failures += [f"{name}: {sentence}" if several else sentence for sentence in sentences]
    return Report(
        file=runner.path.name,
        recipe=runner.recipe,
        images=len(pixels),
        failures=tuple(failures),
        **_worst(found),
    )


def with_reading(
    report: Report, runner: Runner, photographs: Sequence[Source], outputs: Sequence[Output] = ()
) -> Report:
    """The report of an artefact that reads photographs itself, with how it reads these, see `Report.reading`.

    Args:
        report: how close it is for pixels; returned as it is for an artefact that takes nothing else.
        runner: the artefact.
        photographs: files or their bytes, JPEG or PNG; none for the eight that ship with the package.
        outputs: what the outputs are; of what is not named here, the values decide.

    Raises:
        InvalidInputError: its decoder cannot be given any of the photographs.

    Warns:
        EffNetWarning: it cannot be given some.
    """
    if runner.read is None:
        return report
    sources, size = photographs or sample_paths(), int(runner.size[0] or 0)
    wanted, found = [], []
    left_out: list[InvalidInputError] = []
    for source in sources:
        try:
            content, _ = checked(source, runner.framing, size)
        except InvalidInputError as error:
            left_out.append(error)
            continue
        wanted.append(runner.answers(runner.framing.read(content, size, silent=True)[np.newaxis]))
        found.append(runner.answers_to_files([content]))
    if left_out and not found:
        raise left_out[0]
    if left_out:
        warn(f"Reads {len(found)} of {len(sources)} photographs. {left_out[0]}")
    known = {output.name: output for output in outputs}
    reading, failures = [], list(report.failures)
    for name in runner.names:
        expected, values = (np.concatenate([answers[name] for answers in each]) for each in (wanted, found))
        output = known.get(name) or Output(name=name, kind=kind_by_values(expected).name)
        tolerance = READING.of_kind(output.meaning) if output.meaning.decides else FEATURES
        figures, sentences = _judged(output, expected, values, None, tolerance)
        reading.append(figures)
        failures += [f"Photographs are read otherwise than by load_image. {each}" for each in sentences]
    return replace(report, reading=tuple(reading), failures=tuple(failures))


def _judged(
    output: Output,
    wanted: npt.NDArray[Any],
    values: npt.NDArray[Any],
    second: npt.NDArray[Any] | None,
    tolerance: Tolerance,
) -> tuple[Closeness, list[str]]:
    """The figures of one output and what it misses; `second` is what a batch of the first pictures alone gave."""
    parts = [values] if second is None else [values, second]
    sentences = (
        [] if all(np.isfinite(part).all() for part in parts) else ["The outputs hold NaN or infinity."]
    )
    values, *others = (np.nan_to_num(part, posinf=0.0, neginf=0.0) for part in parts)
    figures = measure(output, wanted, values)
    for other in others:
        error = measure(output, wanted[: len(other)], other).max_abs_error
        figures = replace(figures, max_abs_error=max(figures.max_abs_error, error))
    return figures, sentences + missed(figures, tolerance.of_kind(output.meaning))


def _named(made: Any, reference: Any) -> dict[str, npt.NDArray[Any]]:
    """What an artefact says, by the names that the reference has."""
    names = list(reference) if isinstance(reference, Mapping) else [ONLY_OUTPUT]
    return by_name(names, made)


def _check_shape(runner: Runner, name: str, wanted: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    if values.shape != wanted.shape:
        of = "" if name == ONLY_OUTPUT else f" {name!r}"
        raise InvalidInputError(
            f"Expected {str(runner.path)!r} to have outputs{of} {list(wanted.shape)}, as the model has. "
            f"Received: {list(values.shape)}. Compare it with the model it was exported from."
        )


def _worst(found: Sequence[Closeness]) -> dict[str, Any]:
    """The figures of a report: of each the worst output."""
    decided = [(each.agreement, each) for each in found if each.agreement is not None]
    classes = [share for share, each in decided if each.has_classes]
    return {
        "top1_agreement": min(classes, default=None),
        "agreement": min((share for share, _ in decided), default=None),
        "near_ties": min(decided, key=lambda pair: pair[0])[1].near_ties if decided else 0,
        "sqnr_db": min(each.sqnr_db for each in found),
        "max_abs_error": max(each.max_abs_error for each in found),
        "mean_cosine": min(each.mean_cosine for each in found),
        "outputs": tuple(found),
    }


def near_ties_of(report: Report) -> str:
    """A remark behind a report's agreement, empty where there are none: `; 1 of the others is a near-tie`."""
    if not report.near_ties:
        return ""
    others = (
        f"{report.near_ties} of the others {'is a near-tie' if report.near_ties == 1 else 'are near-ties'}"
    )
    return f"; {others}"
