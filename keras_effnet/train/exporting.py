"""From a finished run to verified artefacts, calibrated on its training photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_effnet.train.pictures import arrays
from keras_effnet.train.run import Outcome

CALIBRATION = 200  # training photographs to choose integer ranges from
VERIFICATION = 500  # photographs of the test split (or the validation split) to verify on


def export_run(
    outcome: Outcome,
    targets: Sequence[str],
    *,
    min_agreement: float | None = None,
    keep_failed: bool = False,
    progress: Any = lambda _: None,
) -> list[Any]:
    """Export a run's model into `export/` in its folder, with `report.json` and `report.html` there.

    Targets that are there already are left alone.

    Args:
        outcome: of the run.
        targets: `tflite:int8`, `onnx:float32`, …
        min_agreement: for int8, see `keras_effnet.export.to_tflite`.
        keep_failed: leave files that failed verification.
        progress: called with the name of each step.

    Returns:
        An `Artefact` for each target that was made now.

    Raises:
        ExportError: a converter failed.
    """
    from keras_effnet.export.options import Options
    from keras_effnet.export.pipeline import Job, export_job, final_path
    from keras_effnet.export.report import write_reports
    from keras_effnet.export.targets import parse_target

    out: Path = outcome.folder.path / "export"
    name = outcome.metrics["model"]["variant"]
    missing = [
        target
        for target in dict.fromkeys(parse_target(target) for target in targets)
        if not final_path(out, name, target).exists()
    ]
    if not missing:
        return []
    followed = any("min_agreement" in target.options for target in missing)
    listing = outcome.listing
    size = outcome.metrics["model"]["image_size"]
    calibration = None
    if any(target.integer for target in missing):
        calibration = arrays(listing, listing.of("train"), size, outcome.framing, limit=CALIBRATION)
    images = arrays(listing, listing.of(outcome.judged), size, outcome.framing, limit=VERIFICATION)
    job = Job(
        model=outcome.model,
        name=name,
        targets=missing,
        out=out,
        images=images,
        calibration=calibration,
        labels=tuple(outcome.metrics["model"]["classes"]),
        options=Options(min_agreement=min_agreement if followed else None),
        keep_failed=keep_failed,
    )
    artefacts = export_job(job, progress)
    write_reports(artefacts, out)
    return artefacts
