"""What a trained classifier says of its own certainty: honest probabilities, and thresholds for "none of these".

Validation photographs decide both, which the network has not learned from: a temperature that its logits are divided
by, and the least probability from which on as many guesses are right as somebody wants. A folder of strangers,
photographs of none of the classes, counts against the precision: in sum as much as the validation photographs, as if
both were met equally often. With a refit, the network before it decides, to which these photographs were still new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_effnet import transfer
from keras_effnet.errors import InvalidInputError
from keras_effnet.evaluation.confidence import (
    at_temperature,
    fitted_temperature,
    least_threshold,
    worth_of,
)
from keras_effnet.evaluation.measures import calibration_error
from keras_effnet.evaluation.several import best_threshold
from keras_effnet.pictures.listing import SPLITS, Listing
from keras_effnet.pictures.strangers import check_strange, strangers_in
from keras_effnet.pictures.thresholds import accepted
from keras_effnet.system.progress import Progress
from keras_effnet.train.answers import decisions_of, judged_by, probabilities_of, targets_of
from keras_effnet.train.folder import CERTAINTY
from keras_effnet.train.settings import Settings
from keras_effnet.train.splits import scan
from keras_effnet.train.trainer import Trainer
from keras_effnet.transfer.temperature import head_of

_VALIDATION, _TEST = SPLITS.index("validation"), SPLITS.index("test")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """What was decided.

    Attributes:
        temperature: that the logits are divided by; 1 for none.
        thresholds: one for all classes or one for each; none accept everything.
        photographs, strangers: how many decided.
        wanted_precision: of the guesses that are accepted; None where nothing was wanted.
    """

    temperature: float
    thresholds: tuple[float, ...]
    photographs: int
    strangers: int
    wanted_precision: float | None

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Certainty:
        """The inverse of `asdict`."""
        return cls(**(told | {"thresholds": tuple(told["thresholds"])}))

    def given_to(self, model: Any) -> Any:
        """A classifier with this temperature in its weights, and these thresholds."""
        transfer.scale_temperature(model, self.temperature)
        return transfer.with_thresholds(model, self.thresholds)


def strangers_of(settings: Settings, listing: Listing, progress: Progress) -> Listing | None:
    """The readable photographs of none of the classes; None where the run was given none.

    One half decides and the other judges, where there are test photographs.

    Raises:
        InvalidInputError: fewer than two can be read, or some are among the labelled photographs.
    """
    if settings.strangers is None:
        return None
    every = strangers_in(settings.strangers, listing.classes, _VALIDATION)
    with progress.bar("reading strangers", len(every.files)) as advance:
        broken = [index for index, _ in scan(every, advance).broken]
    found = every.only(~np.isin(np.arange(len(every.files)), broken))
    if len(found.files) < 2:
        raise InvalidInputError(
            f"Expected at least two readable photographs of none of the classes in {str(found.root)!r}. Received: "
            f"{len(found.files)} of {len(every.files)}. Add some, or leave --none out."
        )
    check_strange(found, listing)
    if len(listing.of("test")):
        order = np.random.default_rng(settings.seed).permutation(len(found.files))
        found.splits[order[: len(order) // 2]] = _TEST
    progress.say(
        f"photographs of none of the classes: {len(found.of('validation'))} decide, {len(found.of('test'))} judge"
        + (f"; {len(broken)} cannot be read" if broken else "")
    )
    return found


def decided_for(trainer: Trainer, model: Any, listing: Listing, strangers: Listing | None) -> Certainty:
    """What was decided before in a run, or is now, for the first network that is asked about.

    Raises:
        InvalidInputError: as of `decide`.
    """
    name = f"work/{CERTAINTY}"
    if (known := trainer.folder.read_json(name)) is not None:
        return Certainty.from_json(known)
    found = decide(trainer, model, listing, strangers)
    trainer.folder.write_json(name, asdict(found))
    return found


def decide(trainer: Trainer, model: Any, listing: Listing, strangers: Listing | None) -> Certainty:
    """Choose the temperature and the thresholds of a classifier that has not learned from its validation photographs.

    Raises:
        InvalidInputError: no guess reaches the wanted precision.
    """
    settings, indices = trainer.settings, listing.of("validation")
    logits_of = _before_softmax(model)
    logits = logits_of(trainer.batches(listing)(indices))
    truth = targets_of(trainer.answers, listing, indices)
    temperature = fitted_temperature(logits, truth) if settings.temperature_scaling else 1.0
    wanted = settings.precision_of_accepted
    thresholds: tuple[float, ...] = ()
    if wanted is not None or listing.marks is not None:
        strange = logits[:0]
        if strangers is not None:
            strange = logits_of(trainer.batches(strangers)(strangers.of("validation")))
        every = np.asarray(np.concatenate([logits, strange]) / temperature, np.float32)
        thresholds = _thresholds(probabilities_of(trainer.answers, every), listing, wanted)
    return Certainty(
        temperature=temperature,
        thresholds=thresholds,
        photographs=len(indices),
        strangers=0 if strangers is None else len(strangers.of("validation")),
        wanted_precision=wanted,
    )


def _thresholds(every: Floats, listing: Listing, wanted: float | None) -> tuple[float, ...]:
    """One for all classes, or of several labels one for each; without a wanted precision those with the best F1.

    Args:
        every: probabilities of the validation photographs, then of the strangers.
    """
    indices = listing.of("validation")
    own, strangers = len(indices), len(every) - len(indices)
    # the strangers count in sum as much as the photographs of the classes
    weights = np.repeat(np.array([1, own / max(1, strangers)], np.float32), [own, strangers])
    if listing.marks is None:
        guesses = every[:own].argmax(axis=1) == listing.labels[indices]
        problems = {"": (every.max(axis=1), guesses)}
    else:
        problems = {
            f"{name}: ": (every[:, k], listing.marks[indices, k]) for k, name in enumerate(listing.classes)
        }
    found = []
    for name, (confidences, right) in problems.items():
        if wanted is None:
            found.append(best_threshold(confidences[:own], right))
            continue
        with_strangers = np.concatenate([right, np.zeros(strangers, bool)])
        try:
            found.append(least_threshold(confidences, with_strangers, wanted, weights))
        except InvalidInputError as error:
            raise InvalidInputError(
                f"{name}{error} Nothing is lost: resume with a lower --wanted-precision."
            ) from error
    return tuple(round(value, 6) for value in found)


def _before_softmax(model: Any) -> Callable[[Any], Floats]:
    """What gives a classifier's logits `[N, columns]` for batches of photographs."""
    head = head_of(model)
    kernel, bias = head.get_weights()
    backbone = keras.Model(model.input, head.input)
    return lambda batches: np.asarray(backbone.predict(batches, verbose=0) @ kernel + bias, np.float32)


def figures(
    decided: Certainty,
    listing: Listing,
    indices: npt.NDArray[np.int64],
    probabilities: Floats,
    strange: Floats | None = None,
) -> dict[str, Any]:
    """What the decisions are worth on photographs that did not take part in them, as JSON takes it.

    Args:
        listing, indices: the photographs.
        probabilities: `[N, classes]` of the network that has the temperature.
        strange: probabilities `[M, classes]` of photographs of none of the classes.

    Returns:
        What `decided` holds; `calibration_error`, and `calibration_error_before` without the temperature; with
        thresholds `accepted`, see `worth_of`.
    """
    labels, said = decisions_of(probabilities, listing, indices)
    found = asdict(decided) | {
        "thresholds": list(decided.thresholds),
        "calibration_error": calibration_error(labels, said),
        "calibration_error_before": calibration_error(labels, at_temperature(said, 1 / decided.temperature)),
    }
    if decided.thresholds:
        taken = accepted(probabilities, decided.thresholds)
        mistaken = None if strange is None else accepted(strange, decided.thresholds)
        if listing.marks is None:
            # whichever is best is the guess
            taken = np.asarray(taken.any(axis=1))[:, None]
            mistaken = None if mistaken is None else np.asarray(mistaken.any(axis=1))[:, None]
            right = taken & judged_by(probabilities, listing, indices).right[:, None]
        else:
            right = taken & listing.marks[indices]
        found["accepted"] = worth_of(taken, right, mistaken)
    return found
