"""What `train` takes and tells of teachers, of photographs without labels and of the students that learn from them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from keras_effnet.commands.flags import add_optional, whole_number
from keras_effnet.commands.models import ARTEFACTS, Choice, choose
from keras_effnet.commands.runners import runner_for
from keras_effnet.errors import InvalidInputError
from keras_effnet.evaluation.confidence import softmax
from keras_effnet.export.kinds import CLASSES, LOGITS, SIGMOID
from keras_effnet.export.runners import Runner
from keras_effnet.pictures.labels import both_sides, numbered_labels

if TYPE_CHECKING:
    from keras_effnet.train.lessons import Teacher


def add_students(parser: argparse.ArgumentParser) -> None:
    """The options of distillation and of Noisy Student; each absent unless given."""
    add = partial(add_optional, parser)
    add(
        "--teacher",
        str,
        "RUN|FILE",
        "learn from the probabilities of a run's folder, a Keras model or an exported file of the same classes",
    )
    add("--temperature", float, "T", "softens them, and the student's own (default: 1)")
    add(
        "--hard-labels",
        float,
        "SHARE",
        "of the loss by the labels themselves beside --teacher (default: 0.1)",
    )
    add("--unlabelled", str, "DIR", "photographs without labels, that students learn from (Noisy Student)")
    add("--rounds", whole_number(1), "N", "of students, each the next one's teacher (default: 1)")
    add("--confidence", float, "P", "least probability of a photograph's class to use it (default: 0.3)")
    add("--student", str, "VARIANT", "network of the students (default: as --model)")
    add("--student-augment", str, "KIND", "as --augment, for students (default: randaugment)")
    add("--pseudo-labels", str, "KIND", "soft, or hard: classes alone, without noise (default: soft)")
    add(
        "--unlabelled-ratio",
        float,
        "N",
        "photographs without labels for each with one, at most (default: 1; 3 for students larger than B0 or Lite0)",
    )


def show_students(metrics: dict[str, Any]) -> None:
    """Print what each network of a run got right, and from what the students learned."""
    if teacher := metrics.get("teacher"):
        print(f"teacher {teacher['name']}: {_accuracies(teacher)}")
    for row in (metrics.get("students") or {}).get("rounds", []):
        told = row["unlabelled"]
        learned = f" from {told['kept']} of {told['photographs']} photographs without labels" if told else ""
        name = (
            f"student {row['round']} ({row['variant']})"
            if row["round"]
            else f"first network ({row['variant']})"
        )
        print(f"{name}{learned}: {_accuracies(row)}")


def _accuracies(row: dict[str, Any]) -> str:
    splits = [split for split in ("validation", "test") if f"{split}_accuracy" in row]
    return ", ".join(f"{split} accuracy {row[f'{split}_accuracy']:.3f}" for split in splits)


def choose_teacher(text: str) -> Choice:
    """What `--teacher` means; nothing heavy is imported.

    Raises:
        InvalidInputError: nothing that can be asked about a photograph.
    """
    return choose(text, ARTEFACTS, flag="--teacher")


def open_teacher(text: str) -> Teacher:
    """What `--teacher` names, ready to be asked.

    Raises:
        InvalidInputError: nothing that gives each picture one class, or that cannot be opened.
    """
    from keras_effnet.train.lessons import Teacher

    choice = choose_teacher(text)
    runner, given, size = runner_for(choice, argparse.Namespace(labels=None), None)
    names = given or runner.labels
    if given is not None and tuple(given) == numbered_labels(len(given)):
        names = ()  # a Keras model without names of its own
    return Teacher(
        name=choice.name,
        classes=tuple(names),
        size=size,
        framing=runner.framing,
        ask=_probabilities(runner, choice),
    )


def _probabilities(
    runner: Runner, choice: Choice
) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """From pictures to a probability of each class."""
    kinds = [output.kind for output in runner.outputs]
    if kinds == [CLASSES.name]:
        return runner
    if kinds == [LOGITS.name]:
        return lambda pixels: softmax(runner(pixels))
    if kinds == [SIGMOID.name]:
        return lambda pixels: both_sides(runner(pixels), 2)
    raise InvalidInputError(
        f"Expected --teacher with one output, the probabilities of classes. Received: {choice.text!r}, whose outputs "
        f"are {', '.join(kinds)}. Pass a classifier."
    )
