"""From what a person named to what answers: a variant, a Keras file or an exported file as a runner."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_effnet.commands.models import KERAS, VARIANT, Choice, read_labels, side_of
from keras_effnet.export import Runner, load
from keras_effnet.export.runners import runner_of
from keras_effnet.pictures.labels import classes_of, known_labels, labels_of


def runner_for(choice: Choice, arguments: argparse.Namespace) -> tuple[Runner, Sequence[str] | None, int]:
    """What answers, the class names that are not its own, and the side of its pictures."""
    if choice.format in (VARIANT, KERAS):
        model = choice.model(arguments)
        return runner_of_network(choice, model, arguments, arguments.size)
    runner = load(str(choice.path))
    size = side_of(choice.text, runner.size, arguments.size, runner.info.variant if runner.info else None)
    return runner, arguments.labels and read_labels(arguments.labels), size


def runner_of_network(
    choice: Choice, model: Any, arguments: argparse.Namespace, given: int | None
) -> tuple[Runner, Sequence[str] | None, int]:
    """The same for a Keras model, whose pictures have the `given` side where it takes any."""
    runner = runner_of(model, choice.path or Path(choice.text))
    size = choice.side_for(model, runner.size, given)
    if len(runner.names) > 1:
        return runner, None, size
    classes, carried = classes_of(model), labels_of(model)
    labels = choice.labels_for(arguments.labels, classes, carried=carried, known=known_labels(model))
    return runner, labels, size
