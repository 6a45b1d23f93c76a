"""One model to many verified artefacts."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.decoding import Source
from keras_effnet.reports import page
from keras_effnet.system.files import (
    check_writable,
    compressed_size_of,
    files_of,
    reachable,
    remove_empty,
    size_of,
    staged,
)
from keras_effnet.system.resources import release

from . import timing
from .model_facts import ModelFacts, facts_of
from .options import Options
from .outputs import SaidKinds, SaidLabels, check_decides
from .precision import plain_keras
from .runners import load
from .targets import Target, check_options, write_artefact
from .verification import Report, compare, held_in_memory, reference_outputs, with_reading

# fields of an `Artefact` that its integer network knows, which itself is not kept: it is large
Told = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Artefact(Report):
    """A report, and what else there is to say about the file: one row of `report.json`.

    Attributes:
        model: name of the model, first part of the file's.
        format: of the file.
        bytes: its size.
        compressed_bytes: its size as a zip archive, which is how stores deliver it.
        sha256: see `sha256_of`.
        latency_ms: median of one picture at a time.
        kept: whether it has its final name.
        lifted: steps of an integer file that stayed float to meet `min_agreement`.
        held_out_agreement: what the calibration photographs held out for that showed.
        pictures: those that differ most, by their places, for the page: `src` of an image.
        runtime: what an integer ONNX file is made for.
        first_integer: where the integers of such a file begin, `all` for the first layer.
        first_integer_ratios: for each place that was tried: the time of one picture and of a batch, as a share
            of what the network takes in float; empty when nothing was measured.
        islands: layers that compute in float because integers are not known for them, and what each costs: see
            `quantization.accuracy.island_costs`.
    """

    model: str
    format: str
    bytes: int
    compressed_bytes: int
    sha256: str
    latency_ms: float
    kept: bool
    lifted: tuple[str, ...] = ()
    held_out_agreement: float | None = None
    islands: tuple[dict[str, Any], ...] = ()
    runtime: str | None = None
    first_integer: str | None = None
    first_integer_ratios: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    pictures: Mapping[int, str] = field(default_factory=dict, repr=False)

    def row(self) -> dict[str, Any]:
        told = super().row()
        del told["pictures"]  # a program has the photographs
        return told


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to export, and how to judge it.

    Attributes:
        model: the Keras model.
        name: first part of the file names.
        targets: what to write.
        out: directory for the artefacts.
        images: photographs to verify on, uint8 or float32 0–255 `[N, H, W, C]`.
        photographs: files of such, for artefacts that read them themselves; none for the eight built-in ones.
        calibration: photographs to choose integer ranges from, or None.
        labels: class names; None for the model's own, or ImageNet's.
        kinds: what its outputs are, see `to_saved_model`.
        size: side of the input in pixels, for a model that leaves it open.
        options: for the targets that follow them.
        overwrite: replace existing artefacts.
        keep_failed: leave artefacts that failed verification under their final names.
        rounds: timing rounds; fewer, but three, where they would take longer than `timing.SECONDS`.
    """

    model: Any
    name: str
    targets: Sequence[Target]
    out: Path
    images: npt.NDArray[Any]
    photographs: Sequence[Source] = ()
    calibration: npt.NDArray[Any] | None = None
    labels: SaidLabels = None
    kinds: SaidKinds = None
    size: int | None = None
    options: Options = field(default_factory=Options)
    overwrite: bool = False
    keep_failed: bool = False
    rounds: int = timing.ROUNDS


def final_path(out: Path, name: str, target: Target) -> Path:
    """Where an artefact ends up: `b0_saved_model`, `b0_int8.tflite`, `b0_float32.onnx`."""
    return out / f"{name}_{target.recipe if target.suffix else target.format}{target.suffix}"


def check_paths(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Make sure that nothing would be lost, before the first minute of work.

    Raises:
        InvalidInputError: a path exists and `overwrite` is False, or cannot be reached or written.
    """
    taken = []
    for path in paths:
        with reachable(path, "a path that can be written"):
            if path.exists():
                taken.append(str(path))
    if taken and not overwrite:
        raise InvalidInputError(
            f"Expected paths that do not exist yet. Received: {', '.join(taken)}. "
            "Choose another --out, or pass --force to replace them."
        )
    for path in {path.parent: path for path in paths}.values():
        check_writable(path)


def export_job(job: Job, progress: Callable[[str], None] = lambda _: None) -> list[Artefact]:
    """Export, verify, time, and only then put the artefacts under their final names.

    Returns:
        One `Artefact` for each target, in their order; the failed ones too. `progress` is called with the name
        of each step as it begins.

    Raises:
        InvalidInputError: a path that exists, an option that no target follows, or calibration that cannot
            be used.
        ExportError: a converter failed; nothing of this job is left.
    """
    check_options(job.targets, job.options)
    finals = [final_path(job.out, job.name, target) for target in job.targets]
    check_paths(finals, overwrite=job.overwrite)
    facts = facts_of(job.model, job.size, job.labels, job.kinds)
    if job.options.min_agreement is not None:
        check_decides(facts.outputs)
    job = replace(job, images=held_in_memory(facts.model, job.images))
    with _workspace(job.out) as workspace:
        paths = [workspace / final.name for final in finals]
        held = _write_all(job, facts, paths, progress)
        progress(f"{job.name}: verifying")
        reports = _verify(job, facts, paths)
        progress(f"{job.name}: timing")
        latencies = timing.median_latencies_ms(
            [load(path) for path in paths], job.images[:1], rounds=job.rounds, seconds=timing.SECONDS
        )
        artefacts = [
            _artefact(job, *row) for row in zip(job.targets, paths, reports, latencies, held, strict=True)
        ]
        for artefact, path, final in zip(artefacts, paths, finals, strict=True):
            if artefact.kept:
                with staged(final, overwrite=job.overwrite) as temporary:
                    path.replace(temporary)
    return artefacts


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """A folder beside the final names, gone afterwards; `out` too if nothing came of it."""
    with reachable(out, "a folder that can be written"):
        missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        context = tempfile.TemporaryDirectory(prefix=".export-", dir=out)
    except OSError as error:
        raise InvalidInputError(
            f"Expected a folder that can be written to. Received: {str(out)!r} ({error.strerror or error}). "
            "Choose another --out."
        ) from error
    try:
        with context as folder:
            yield Path(folder)
    finally:
        remove_empty(missing)


def _write_all(
    job: Job, facts: ModelFacts, paths: Sequence[Path], progress: Callable[[str], None]
) -> list[Told]:
    """Write all files; for each what its integer network has to tell.

    A network that is the best for every format is prepared once.
    """
    network: Any = None
    held: list[Told] = []
    for target, path in zip(job.targets, paths, strict=True):
        release()
        progress(f"{job.name} → {target.name}")
        options = job.options
        if target.prepare is not None:
            if network is not None and not (network.serves_all and target.takes_any_network(options)):
                network = None  # before the next one takes its memory
            network = network or _prepared(target, facts, job)
            options = replace(options, network=network)
        write_artefact(target, facts, path, options, job.calibration)
        held.append(_told(options.network))
    return held


def _told(network: Any) -> Told:
    if network is None:
        return {}
    from .quantization.accuracy import island_costs

    placement = network.placement
    return {
        "lifted": network.lifted,
        "held_out_agreement": network.agreement,
        "islands": island_costs(network),
        "first_integer": placement and placement.place,
        "first_integer_ratios": placement.ratios if placement else {},
    }


def _prepared(target: Target, facts: ModelFacts, job: Job) -> Any:
    """The network of an int8 file; None for a model that cannot be taken apart."""
    from .quantization.fold import UnsupportedModelError

    if target.prepare is None or job.calibration is None:
        return None  # the writer has the word for it
    try:
        with plain_keras():
            return target.prepare(facts, job.calibration, job.options)
    except UnsupportedModelError:
        return None  # the writer takes the plain path where there is one, and says so


def _verify(job: Job, facts: ModelFacts, paths: Sequence[Path]) -> list[Report]:
    """One file at a time: runtimes keep the memory of the largest batch that they have seen."""
    reference = reference_outputs(facts.model, job.images)
    reports = []
    for target, path in zip(job.targets, paths, strict=True):
        release()
        runner = load(path)
        asked = job.options.min_agreement if "min_agreement" in target.options else None
        report = compare(runner, reference, job.images, target.tolerance.at_least(asked), facts.outputs)
        reports.append(with_reading(report, runner, job.photographs, facts.outputs))
        del runner
    release()
    return reports


def _artefact(
    job: Job, target: Target, path: Path, report: Report, latency_ms: float, told: Told
) -> Artefact:
    return Artefact(
        **vars(report),
        model=job.name,
        format=target.format,
        bytes=size_of(path),
        compressed_bytes=compressed_size_of(path),
        sha256=sha256_of(path),
        latency_ms=latency_ms,
        kept=report.ok or job.keep_failed,
        runtime=job.options.runtime if "runtime" in target.options else None,
        **told,
        pictures=_worst_pictures(report, job.images),
    )


def _worst_pictures(report: Report, images: npt.NDArray[Any]) -> dict[int, str]:
    """The photographs on which some output differs most, small; none of other channels than people see."""
    if images.shape[-1] not in (1, 3):
        return {}
    places = dict.fromkeys(place for output in report.outputs for place, _ in output.worst_pictures)
    pixels = {place: np.clip(np.rint(images[place]), 0, 255).astype(np.uint8) for place in places}
    return {
        place: page.thumbnail(each[..., 0] if each.shape[-1] == 1 else each) for place, each in pixels.items()
    }


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; of a directory: of its relative file names and contents, sorted."""
    digest = hashlib.sha256()
    for file in files_of(path):
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
