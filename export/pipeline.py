"""One model to many verified artefacts."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError
from keras_effnet.export import benchmark
from keras_effnet.export.onnx_model import to_onnx
from keras_effnet.export.precision import in_float32
from keras_effnet.export.recipes import Recipe
from keras_effnet.export.runners import load
from keras_effnet.export.saved_model import to_saved_model
from keras_effnet.export.tflite import check_options, to_tflite
from keras_effnet.export.verify import Report, compare, tolerance_for
from keras_effnet.system.access import reachable
from keras_effnet.system.files import compressed_size_of, files_of, remove_empty, size_of, staged
from keras_effnet.system.memory import release


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """One row of the report.

    `latency_ms` is the median of one picture at a time, `compressed_bytes` the size as a zip archive,
    which is how stores deliver it. `lifted` are the steps of an integer file that stayed float to meet
    `min_agreement`, `held_out_agreement` what the calibration photographs held out for it showed.
    """

    model: str
    file: str
    format: str
    recipe: str
    bytes: int
    compressed_bytes: int
    sha256: str
    images: int
    top1_agreement: float
    sqnr_db: float | None
    max_abs_error: float
    mean_cosine: float
    latency_ms: float
    ok: bool
    failures: tuple[str, ...]
    kept: bool
    lifted: tuple[str, ...] = ()
    held_out_agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to export, and how to judge it.

    Attributes:
        model: the Keras model.
        name: first part of the file names.
        recipes: the targets.
        out: directory for the artefacts.
        images: photographs to verify on, uint8 or float32 0–255 `[N, H, W, C]`.
        calibration: photographs to choose integer ranges from, or None.
        labels: class names; None for the model's own, or ImageNet's.
        layout, batching: of ONNX files, see `to_onnx`.
        min_agreement, input_type, output_type: of integer files, see `to_tflite`.
        overwrite: replace existing artefacts.
        keep_failed: leave artefacts that failed verification under their final names.
        rounds: timing rounds.
    """

    model: Any
    name: str
    recipes: Sequence[Recipe]
    out: Path
    images: npt.NDArray[Any]
    calibration: npt.NDArray[Any] | None = None
    labels: Sequence[str] | None = None
    layout: str = "nchw"
    batching: str = "whole"
    min_agreement: float | None = None
    input_type: str = "uint8"
    output_type: str = "int8"
    overwrite: bool = False
    keep_failed: bool = False
    rounds: int = benchmark.ROUNDS


def final_path(out: Path, name: str, recipe: Recipe) -> Path:
    """Where an artefact ends up: `b0_saved_model`, `b0_int8.tflite`, `b0_float32.onnx`."""
    stem = "saved_model" if recipe.format == "saved_model" else recipe.name
    return out / f"{name}_{stem}{recipe.suffix}"


def check_paths(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Make sure that nothing would be lost, before the first minute of work.

    Raises:
        InvalidInputError: a path exists and `overwrite` is False, or cannot be reached.
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


def export_job(job: Job, progress: Callable[[str], None] = lambda _: None) -> list[Artefact]:
    """Export, verify, time, and only then put the artefacts under their final names.

    Args:
        job: what to do.
        progress: called with the name of each step as it begins.

    Returns:
        One `Artefact` for each recipe, in their order; the failed ones too.

    Raises:
        InvalidInputError: a path that exists, or calibration that cannot be used.
        ExportError: a converter failed; nothing of this job is left.
    """
    for recipe in job.recipes:
        check_options(recipe, job.min_agreement, job.input_type, job.output_type)
    finals = [final_path(job.out, job.name, recipe) for recipe in job.recipes]
    check_paths(finals, overwrite=job.overwrite)
    with _workspace(job.out) as workspace:
        paths = [workspace / final.name for final in finals]
        networks = _convert_all(job, paths, progress)
        progress(f"{job.name}: verifying")
        reports = _verify(job, paths)
        progress(f"{job.name}: timing")
        runners = [load(path) for path in paths]
        latencies = benchmark.median_latencies_ms(runners, job.images[:1], rounds=job.rounds)
        del runners
        artefacts = [
            _artefact(job, *row) for row in zip(job.recipes, paths, reports, latencies, networks, strict=True)
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


def _convert_all(job: Job, paths: Sequence[Path], progress: Callable[[str], None]) -> list[_Told]:
    """Write all files; for each what its integer network has to tell."""
    network: Any = None
    told = []
    for recipe, path in zip(job.recipes, paths, strict=True):
        release()
        progress(f"{job.name} → {recipe.target}")
        if recipe.name != "int8":
            _convert(job, recipe, path, None)
            told.append(_Told())
            continue
        if network is not None and not network.serves_all:
            network = None  # before the next one takes its memory
        network = network or _integer_network(job, recipe)
        _convert(job, recipe, path, network)
        told.append(_Told() if network is None else _Told(network.lifted, network.agreement))
    return told


@dataclass(frozen=True)
class _Told:
    """The few words of an integer network that outlive it."""

    lifted: tuple[str, ...] = ()
    agreement: float | None = None


def _integer_network(job: Job, recipe: Recipe) -> Any:
    """The network of an int8 file; None for a model that cannot be taken apart."""
    from keras_effnet.export.quantization import folding, post_training

    try:
        return post_training.network(
            job.model, job.calibration, min_agreement=job.min_agreement, target=recipe.format
        )
    except folding.UnsupportedModelError:
        return None  # the exporter takes the plain path where there is one, and says so


def _convert(job: Job, recipe: Recipe, path: Path, network: Any) -> Path:
    calibration = job.calibration if network is None else network
    # a network that is there has it already
    min_agreement = job.min_agreement if recipe.name == "int8" and network is None else None
    if recipe.format == "saved_model":
        return to_saved_model(job.model, path, labels=job.labels)
    if recipe.format == "tflite":
        return to_tflite(
            job.model,
            path,
            recipe.name,
            calibration,
            labels=job.labels,
            min_agreement=min_agreement,
            input_type=job.input_type,
            output_type=job.output_type,
        )
    return to_onnx(
        job.model,
        path,
        recipe.name,
        calibration,
        job.layout,
        labels=job.labels,
        min_agreement=min_agreement,
        batching=job.batching,
    )


def _verify(job: Job, paths: Sequence[Path]) -> list[Report]:
    """One file at a time: runtimes keep the memory of the largest batch that they have seen."""
    reference = np.asarray(
        in_float32(job.model).predict(job.images, batch_size=8, verbose=0), dtype=np.float32
    )
    reports = []
    for recipe, path in zip(job.recipes, paths, strict=True):
        release()
        runner = load(path)
        wanted = job.min_agreement if recipe.name == "int8" else None
        tolerance = tolerance_for(runner.recipe, min_agreement=wanted)
        reports.append(compare(runner, reference, job.images, tolerance))
        del runner
    release()
    return reports


def _artefact(
    job: Job, recipe: Recipe, path: Path, report: Report, latency: float, network: _Told
) -> Artefact:
    return Artefact(
        model=job.name,
        file=path.name,
        format=recipe.format,
        recipe=recipe.name,
        bytes=size_of(path),
        compressed_bytes=compressed_size_of(path),
        sha256=sha256_of(path),
        images=report.images,
        top1_agreement=report.top1_agreement,
        sqnr_db=report.sqnr_db if np.isfinite(report.sqnr_db) else None,
        max_abs_error=report.max_abs_error,
        mean_cosine=report.mean_cosine,
        latency_ms=latency,
        ok=report.ok,
        failures=report.failures,
        kept=report.ok or job.keep_failed,
        lifted=network.lifted,
        held_out_agreement=network.agreement,
    )


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
