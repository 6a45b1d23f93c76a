"""Noisy Student: networks that learn from what another one says of photographs without labels.

A teacher says, without noise, what it sees in them; a student learns from those that it is sure of and from the
labelled ones, with augmentation, dropout and stochastic depth; the student becomes the teacher (Xie et al. 2020,
https://arxiv.org/abs/1911.04252). The first teacher is a network of the run, or one that was given.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from keras_effnet.errors import InvalidInputError
from keras_effnet.pictures.listing import Listing
from keras_effnet.system.progress import Progress
from keras_effnet.train.batches import evaluation_batches
from keras_effnet.train.folder import RunFolder
from keras_effnet.train.head import FloatArray, cached_features
from keras_effnet.train.lessons import Lessons, Teacher
from keras_effnet.train.settings import Settings
from keras_effnet.train.trainer import Trainer
from keras_effnet.train.unlabelled import Chosen, choose

BATCH = 32  # photographs that a teacher is asked about at a time
KEPT, JUDGED = "work/students.json", "work/teacher.json"
EMA = 0.99  # of students' weights: over some epochs of a few dozen steps


def noisy_students(trainer: Trainer, labelled: Listing, unlabelled: Listing, teacher: Teacher | None) -> Any:
    """Train students on photographs with and without labels, round after round.

    Args:
        teacher: of the first round; None for a network that is trained on the labelled photographs before.

    Returns:
        The network with the best validation accuracy, the latest of equal ones. `trainer` has its settings then.

    Raises:
        InvalidInputError: the teacher that was given is confident of none, and nothing can be learned.
    """
    folder, settings = trainer.folder, trainer.settings
    best: Any = None
    model: Any = None
    rows: list[dict[str, Any]] = []
    kept, reached = 0, -1.0
    for number in range(settings.rounds + 1):
        phase = f"student_{number}" if number else "fine_tuning"
        if number == 0:
            if teacher is not None:
                continue
            model, told = trainer.network(trainer.course(labelled), phase), {}
        else:
            asked = teacher if number == 1 and teacher is not None else _as_teacher(model, trainer, labelled)
            said = _answers(asked, unlabelled, trainer, phase)
            chosen = choose(said, settings.confidence)
            told = chosen.figures(labelled.classes)
            if not told["kept"]:
                _none_confident(
                    trainer, asked, float(chosen.confidence.max(initial=0.0)), begun=model is not None
                )
                break
            _keep_lessons(folder, phase, unlabelled, chosen)
            trainer.use(settings_of_students(settings))
            course = Lessons(
                labelled,
                trainer.settings,
                teacher=asked if asked is teacher else None,
                class_weights=trainer.class_weights(labelled),
                unlabelled=unlabelled,
                chosen=chosen,
                probabilities=said,
            )
            _say_lessons(trainer.progress, number, told)
            model = trainer.network(course, phase)
        row: dict[str, Any] = {
            "round": number,
            "variant": trainer.settings.variant,
            "image_size": trainer.size,
        }
        row |= {"unlabelled": told or None, **_figures(trainer, model, labelled, phase)}
        rows.append(row)
        if row["validation_accuracy"] >= reached:
            best, kept, reached = model, number, row["validation_accuracy"]
    trainer.use(settings_of_students(settings) if kept else settings)
    folder.write_json(KEPT, {"kept": kept, "rounds": rows})
    return best


def settings_of_students(settings: Settings) -> Settings:
    """Those of a run as its students have them: their network and, unless labels are hard, noise and averaged weights."""
    own = replace(settings, variant=settings.student or settings.variant)
    if settings.pseudo_labels == "hard":
        return own
    return replace(own, augment=settings.student_augment, ema=settings.ema or EMA)


def _as_teacher(model: Any, trainer: Trainer, labelled: Listing) -> Teacher:
    """A network of this run."""
    return Teacher(
        name="the network before",
        classes=labelled.classes,
        size=trainer.size,
        framing=trainer.framing,
        ask=model.predict_on_batch,
    )


def _answers(teacher: Teacher, unlabelled: Listing, trainer: Trainer, phase: str) -> FloatArray:
    """What a teacher says of all photographs without labels, without noise."""
    everything = np.arange(len(unlabelled.files))
    with trainer.progress.bar("asking the teacher", len(everything)) as advance:
        return cached_features(
            teacher.answers,
            len(unlabelled.classes),
            everything,
            lambda some: evaluation_batches(
                unlabelled, some, teacher.size, teacher.framing, batch_size=BATCH
            ),
            trainer.folder.work / f"{phase}.f32",
            progress=advance,
        )


def _figures(trainer: Trainer, model: Any, labelled: Listing, phase: str) -> dict[str, Any]:
    """How good a network is and what its training was like; measured once."""
    name = f"work/{phase}_accuracy.json"
    found = trainer.folder.read_json(name)
    if found is None:
        found = trainer.accuracies(model, labelled)
        trainer.folder.write_json(name, found)
    return {**found, "training": trainer.folder.read_json(f"work/{phase}.json")}


def _keep_lessons(folder: RunFolder, phase: str, unlabelled: Listing, chosen: Chosen) -> None:
    indices, times = np.unique(chosen.indices, return_counts=True)
    folder.write_lessons(
        phase,
        (
            (
                unlabelled.files[i],
                unlabelled.classes[chosen.labels[i]],
                round(float(chosen.confidence[i]), 4),
                int(n),
            )
            for i, n in zip(indices, times, strict=True)
        ),
    )


def _say_lessons(progress: Progress, number: int, told: dict[str, Any]) -> None:
    empty = [name for name, row in told["per_class"].items() if not row["kept"]]
    none = f"; of {', '.join(empty)} none" if empty else ""
    progress.say(
        f"student {number}: learns from {told['kept']} of {told['photographs']} photographs without labels "
        f"({told['confident']} confident){none}"
    )


def _none_confident(trainer: Trainer, teacher: Teacher, most: float, *, begun: bool) -> None:
    """Say that no photograph without a label can be used; an error where there is no network yet."""
    told = (
        f"photographs without labels of which the teacher is at least {trainer.settings.confidence:g} confident. "
        f"Received none: it reaches {most:.2f}"
    )
    if begun:
        trainer.progress.say(f"no student: expected {told}; the network before is kept")
        return
    trainer.folder.clean()
    raise InvalidInputError(f"Expected {told} ({teacher.name!r}). Lower --confidence.")


def figures_of(folder: RunFolder) -> dict[str, Any] | None:
    """What `noisy_students` has written; None for a run without."""
    found: dict[str, Any] | None = folder.read_json(KEPT)
    return found


def settings_of_result(folder: RunFolder) -> Settings:
    """Those that the network in `model.keras` was trained with."""
    told = (folder.read_json("metrics.json") or {}).get("students") or figures_of(folder)
    return settings_of_students(folder.settings) if told and told["kept"] else folder.settings


def fitting(teacher: Teacher | None, settings: Settings, classes: tuple[str, ...]) -> Teacher | None:
    """The teacher of a run, with its classes in the order of the run's.

    Raises:
        InvalidInputError: it has others, or there is none although the settings name one, or the other way round.
    """
    if (teacher is None) != (settings.teacher is None):
        raise InvalidInputError(
            f"Expected train(…, teacher=…) with the teacher that the settings name. Received: teacher "
            f"{teacher and teacher.name!r}, and {settings.teacher!r} in the settings. Give both or neither."
        )
    return teacher and teacher.of_classes(classes)


def judge_teacher(trainer: Trainer, teacher: Teacher, labelled: Listing) -> None:
    """Measure a teacher that was given on validation and test photographs, once, and say it."""
    if trainer.folder.read_json(JUDGED) is not None:
        return
    told: dict[str, Any] = {"name": teacher.name}
    for split in ("validation", "test"):
        indices = labelled.of(split)
        if len(indices):
            batches = evaluation_batches(labelled, indices, teacher.size, teacher.framing, batch_size=BATCH)
            said = teacher.answers(batches.map(lambda pixels, _: pixels))
            told[f"{split}_accuracy"] = float(np.mean(said.argmax(axis=1) == labelled.labels[indices]))
    trainer.folder.write_json(JUDGED, told)
    trainer.progress.say(f"teacher: validation accuracy {told['validation_accuracy']:.3f}")
