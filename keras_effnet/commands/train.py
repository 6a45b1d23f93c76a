"""`keras-effnet train`: from a folder of photographs to a measured classifier and verified artefacts."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from keras_effnet.commands.flags import (
    LATER,
    add_json,
    add_optional,
    add_preprocessing,
    add_quiet,
    folder_path,
    share,
    weights_of,
    whole_number,
)
from keras_effnet.commands.models import VARIANT, choose
from keras_effnet.commands.printing import stopped, table
from keras_effnet.commands.teachers import add_students, choose_teacher, open_teacher, show_students
from keras_effnet.errors import counted
from keras_effnet.export.options import Options
from keras_effnet.export.pipeline import Artefact, Job, export_job, final_path
from keras_effnet.export.report import write_reports
from keras_effnet.export.targets import Target, check_installed, check_options, parse_target
from keras_effnet.pictures.listing import full_name
from keras_effnet.system.progress import Progress
from keras_effnet.system.quiet import check_backend, import_keras
from keras_effnet.system.signals import terminable
from keras_effnet.train.batches import arrays
from keras_effnet.train.folder import SETTINGS, RunFolder
from keras_effnet.train.results import (
    Outcome,
    accuracy_told,
    certainty_told,
    check_extras,
    fixing_told,
    reason_for_result,
    write_report,
)
from keras_effnet.train.settings import Settings, paper_settings
from keras_effnet.train.settings import check as check_settings

NAME = "train"
HELP = "train a classifier on a folder of photographs, measure it, export it"
EXAMPLES = """\
  keras-effnet train photographs/ --out runs/flowers
  keras-effnet train photographs/ --model b0 --epochs 40 --out runs/b0 --export tflite:int8
  keras-effnet train photographs/ --unlabelled more/ --rounds 2 --out runs/students
  keras-effnet train photographs/ --teacher runs/b4 --model lite0 --out runs/small
  keras-effnet predict rose.jpg --model runs/flowers"""
CALIBRATION = 200  # training photographs to choose integer ranges from
VERIFICATION = 500  # photographs of the test split (or the validation split) to verify on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DATA_DIR",
        help="folder with a folder per class, or with train/, validation/ and test/; a CSV: file,label[,split]; "
        "tfds:NAME, hf:NAME, TFRECORD pattern, or one of the paper's data sets, flowers say",
    )
    parser.add_argument(
        "--out", required=True, type=folder_path, metavar="DIR", help="folder of the run; a new one"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--model", dest="variant", default=LATER, metavar="VARIANT", help="default: lite0")
    parser.add_argument(
        "--weights",
        default=LATER,
        metavar="SET|FILE|none",
        help="published set, weight file, or 'none' for random weights (default: imagenet)",
    )
    add_preprocessing(parser, default=LATER)
    parser.add_argument(
        "--classes", nargs="+", default=LATER, metavar="NAME", help="classes to use, in this order"
    )
    _add_training(parser)
    _add_answers(parser)
    add_students(parser)
    _add_speed(parser)
    parser.add_argument(
        "--export",
        nargs="+",
        default=[],
        metavar="TARGET",
        help="tflite:int8, onnx:float32, …, each verified",
    )
    parser.add_argument("--min-agreement", type=share, metavar="SHARE", help="int8: top-1 agreement to reach")
    parser.add_argument("--keep-failed", action="store_true", help="keep files that failed verification")
    add_quiet(parser)
    add_json(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = partial(add_optional, parser)
    add("--image-size", whole_number(32), "PIXELS", "side of the input (default: the variant's)")
    add(
        "--crop-margin",
        whole_number(0),
        "PIXELS",
        "of the shorter side to leave out; the network remembers it (default: 0; the reference: 32)",
    )
    add("--validation-share", float, "SHARE", "of each class, where there is no such folder (default: 0.15)")
    add("--test-share", float, "SHARE", "likewise; 0 for no test split (default: 0.15)")
    add("--seed", whole_number(0), "N", "of everything random (default: 0)")
    add("--batch-size", whole_number(1), "N", "photographs per step (default: 32)")
    add("--epochs", whole_number(0), "N", "of fine-tuning at most; 0 for the head alone (default: 16)")
    add("--head-epochs", whole_number(1), "N", "of the head at most (default: 200)")
    add("--patience", whole_number(1), "N", "epochs without improvement before stopping (default: 10)")
    add(
        "--unfreeze",
        str,
        "BLOCK",
        "first block to fine-tune: stem, block3a, block5, top (default: block3a)",
    )
    add("--learning-rate", float, "RATE", "highest of fine-tuning (default: 5e-4)")
    add("--optimizer", str, "NAME", "of fine-tuning: adam or rmsprop (default: adam)")
    add("--dropout", float, "RATE", "before the classifier (default: the variant's)")
    add("--label-smoothing", float, "SHARE", "of fine-tuning (default: 0.1)")
    add("--augment", str, "KIND", "none, light, standard or randaugment (default: standard)")
    add("--mixup", float, "ALPHA", "mix photographs with each other (default: 0, off)")
    add("--cutmix", float, "ALPHA", "paste pieces of others into photographs (default: 0, off)")
    add("--ema", float, "MOMENTUM", "average the weights, 0.95 say (default: 0, off)")
    parser.add_argument(
        "--class-weights", action="store_true", default=LATER, help="let every class count the same"
    )
    parser.add_argument(
        "--paper",
        action="store_true",
        help="the paper's setting for other data sets: all blocks, RMSProp at a quarter of ImageNet's rate, "
        "ImageNet's crop, validation photographs learned in the end; what is given besides comes first",
    )
    parser.add_argument(
        "--refit",
        action="store_true",
        default=LATER,
        help="in the end, fine-tune once more on training and validation photographs together",
    )


def _add_answers(parser: argparse.ArgumentParser) -> None:
    """What the network answers, for which size, and when it says nothing."""
    add = partial(add_optional, parser)
    add(
        "--answers",
        str,
        "KIND",
        "softmax, sigmoid (one number for two classes) or sigmoids (several labels: a|b)",
    )
    add(
        "--focal", float, "GAMMA", "leave the loss to photographs that are got wrong, 2 say (default: 0, off)"
    )
    add(
        "--fix-size",
        whole_number(1),
        "PIXELS",
        "in the end, get the last layers used to photographs of this size",
    )
    add("--fix-epochs", whole_number(1), "N", "of that at most (default: 10)")
    parser.add_argument(
        "--balanced-sampling",
        action="store_true",
        default=LATER,
        help="draw photographs of every class equally often",
    )
    parser.add_argument(
        "--wanted-precision",
        type=share,
        default=LATER,
        metavar="SHARE",
        help='share of the accepted guesses that is to be right; below the threshold that gives it, photographs show "none '
        'of these" (default: none, with --none 0.95)',
    )
    parser.add_argument(
        "--none",
        dest="strangers",
        default=LATER,
        metavar="DIR",
        help="photographs of none of the classes, which the threshold is to refuse",
    )
    parser.add_argument(
        "--no-temperature-scaling",
        dest="temperature_scaling",
        action="store_false",
        default=LATER,
        help="leave the probabilities as training made them, instead of what fits the validation photographs best",
    )


def _add_speed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        default=LATER,
        metavar="KIND",
        help="auto, float32, mixed_float16 or mixed_bfloat16 (default: auto, mixed on GPUs only)",
    )
    parser.add_argument(
        "--xla", default=LATER, metavar="WHEN", help="auto, on or off (default: auto, GPUs only)"
    )
    parser.add_argument(
        "--strategy", default=LATER, metavar="KIND", help="none, or mirrored for all GPUs of this machine"
    )


def check(arguments: argparse.Namespace) -> None:
    if "variant" in arguments:
        choose(arguments.variant, (VARIANT,))
    check_backend()
    arguments.targets = _targets(arguments)
    check_extras()
    out = arguments.out
    given = given_settings(arguments)
    if arguments.resume:
        arguments.folder = RunFolder.resume(out, given)
        return
    settings = Settings(**given)
    if settings.teacher:
        choose_teacher(settings.teacher)
    RunFolder.check_free(out)
    check_settings(settings)
    arguments.folder = RunFolder(path=out, settings=settings)


def run(arguments: argparse.Namespace) -> int:
    folder: RunFolder = arguments.folder
    with terminable():
        try:
            return _run(arguments, folder)
        except KeyboardInterrupt as stop:
            return stopped(arguments, stop, begun=(folder.path / SETTINGS).is_file())


def _run(arguments: argparse.Namespace, folder: RunFolder) -> int:
    import_keras()
    from keras_effnet.train import train

    named = None if folder.model.is_file() else folder.settings.teacher
    teacher = open_teacher(named) if named else None
    if not arguments.resume:
        RunFolder.create(folder.path, folder.settings)
    progress = Progress(quiet=arguments.quiet)
    outcome = train(folder, progress, teacher=teacher)
    write_report(outcome, _rows(folder))
    artefacts = _export(outcome, arguments, progress)
    if artefacts:
        write_report(outcome, _rows(folder))
    folder.clean()
    _show(outcome, arguments, _rows(folder))
    for artefact in artefacts:
        if not artefact.ok:
            print(f"keras-effnet: {artefact.file}: {' '.join(artefact.failures)}", file=sys.stderr)
    return 0 if all(artefact.ok for artefact in artefacts) else 1


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings on the command line, and no others."""
    given = {
        field.name: getattr(arguments, field.name) for field in fields(Settings) if field.name in arguments
    }
    if arguments.paper:
        given = paper_settings(given.get("batch_size", Settings.batch_size)) | given
    given["data"] = full_name(arguments.data)
    if "weights" in given:
        given["weights"] = weights_of(arguments)
    for name in ("unlabelled", "teacher", "strangers"):
        if name in given:
            given[name] = str(Path(given[name]).expanduser().resolve())
    return given


def _targets(arguments: argparse.Namespace) -> list[Target]:
    """What to export; what is wrong with it is an error now, not after an hour of training."""
    targets = list(dict.fromkeys(parse_target(target) for target in arguments.export))
    if targets:
        check_options(targets, Options(min_agreement=arguments.min_agreement))
        check_installed(targets)
    return targets


def _export(outcome: Outcome, arguments: argparse.Namespace, progress: Progress) -> list[Artefact]:
    """Export a run's model into `export/` in its folder, with a report there. What is there already is left alone."""
    out, facts = outcome.folder.path / "export", outcome.metrics["model"]
    missing = [
        target for target in arguments.targets if not final_path(out, facts["variant"], target).exists()
    ]
    if not missing:
        return []
    followed = any("min_agreement" in target.options for target in missing)
    listing, size = outcome.listing, facts["image_size"]
    calibration = None
    if any(target.integer for target in missing):
        calibration = arrays(listing, listing.of("train"), size, outcome.framing, limit=CALIBRATION)
    job = Job(
        model=outcome.model,
        name=facts["variant"],
        targets=missing,
        out=out,
        images=arrays(listing, listing.of(outcome.judged), size, outcome.framing, limit=VERIFICATION),
        calibration=calibration,
        labels=tuple(facts["classes"]),
        options=Options(min_agreement=arguments.min_agreement if followed else None),
        keep_failed=arguments.keep_failed,
    )
    progress.say(accuracy_told(outcome))  # exporting takes minutes
    with progress.steps(len(missing) + 2) as step:
        artefacts = export_job(job, step)
    write_reports(artefacts, out)
    return artefacts


def _rows(folder: RunFolder) -> list[dict[str, Any]]:
    report = folder.read_json("export/report.json")
    return list(report["artifacts"]) if report else []


def _show(outcome: Outcome, arguments: argparse.Namespace, artefacts: list[dict[str, Any]]) -> None:
    if arguments.json:
        print(json.dumps(outcome.metrics | {"artifacts": artefacts}, indent=1))
        return
    metrics, judged = outcome.metrics, outcome.judged
    rows = [
        [name, f"{row['precision']:.2f}", f"{row['recall']:.2f}", str(row["photographs"])]
        for name, row in metrics[judged]["per_class"].items()
    ]
    print(table(["class", "precision", "recall", "photographs"], rows))
    if metrics["head"]:
        print(f"{judged} accuracy of the head alone: {metrics['head'][f'{judged}_accuracy']:.3f}")
    show_students(metrics)
    if metrics.get("refit"):  # runs of earlier versions have no such entry
        print(f"refitted to {metrics['refit']['photographs']} training and validation photographs")
    print(accuracy_told(outcome))
    if metrics[judged].get("mean_average_precision") is not None:
        print(f"mean average precision: {metrics[judged]['mean_average_precision']:.3f}")
    print(f"kept: {reason_for_result(metrics)}")
    for line in [*fixing_told(metrics, judged), *certainty_told(metrics)]:
        print(line)
    print(f"model:  {outcome.folder.model}")
    print(f"report: {outcome.folder.path / 'report.html'}")
    for row in artefacts:
        kept = "" if row["ok"] else ", failed verification" + ("" if row["kept"] else " and was not kept")
        print(
            f"export: {outcome.folder.path / 'export' / row['file']}: the model's class for "
            f"{row['agreement']:.1%} of {counted(row['images'], f'{judged} photograph')}{kept}"
        )
    for row in [row for row in artefacts if row["format"] == "tflite" and row["kept"]][:1]:
        file, site = outcome.folder.path / "export" / row["file"], outcome.folder.path / "site"
        again = " --force" if site.exists() else ""
        command = f"keras-effnet bundle web {shlex.quote(str(file))} --out {shlex.quote(str(site))}{again}"
        print(f"page:   {command}   # or bundle android, for a phone")
