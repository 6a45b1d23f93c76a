"""What a trained classifier says of its own certainty: honest probabilities, and thresholds for "none of these".

Validation photographs decide both, which the network has not learned from: a temperature that its logits are divided
by, and the least probability from which on as many guesses are right as somebody wants. A folder of strangers,
photographs of none of the classes, counts against the precision: in sum as much as the validation photographs, as if
both were met equally often. With a refit, the network before it decides, to which these photographs were still new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_effnet import transfer
from keras_effnet.errors import InvalidInputError
from keras_effnet.evaluation.certainty import (
    at_temperature,
    fitted_temperature,
    least_threshold,
)
from keras_effnet.evaluation.measures import calibration_error, judge
from keras_effnet.pictures.folders import list_images
from keras_effnet.pictures.listing import SPLITS, Listing
from keras_effnet.pictures.overlap import same_files
from keras_effnet.pictures.thresholds import accepted
from keras_effnet.system.files import shown
from keras_effnet.system.progress import Progress
from keras_effnet.train.folder import CERTAINTY
from keras_effnet.train.settings import Settings
from keras_effnet.train.splits import scan
from keras_effnet.train.trainer import Trainer
from keras_effnet.transfer.certainty import head_of

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
    root = Path(settings.strangers)
    files = [str(path.relative_to(root)) for path in list_images(root)]
    found = Listing(
        root=root,
        files=files,
        labels=np.zeros(len(files), np.int32),
        splits=np.full(len(files), _VALIDATION, np.int8),
        classes=listing.classes,
    )
    with progress.bar("reading strangers", len(files)) as advance:
        broken = [index for index, _ in scan(found, advance).broken]
    found = found.only(~np.isin(np.arange(len(files)), broken))
    if len(found.files) < 2:
        raise InvalidInputError(
            f"Expected at least two readable photographs of none of the classes in {str(root)!r}. Received: "
            f"{len(found.files)} of {len(files)}. Add some, or leave --none out."
        )
    if twice := list(same_files(found, listing)):
        mine, known = twice[0]
        raise InvalidInputError(
            f"Expected photographs of none of the classes in {str(root)!r}. Received {len(twice)} that are among those "
            f"of the classes too, {shown(found.files[mine])!r} for example, which is {shown(listing.files[known])!r} of "
            f"the {SPLITS[listing.splits[known]]} photographs. Remove them from the folder."
        )
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
    settings = trainer.settings
    logits_of = _before_softmax(model)
    labels = listing.labels[listing.of("validation")]
    logits = logits_of(trainer.batches(listing)(listing.of("validation")))
    temperature = fitted_temperature(logits, labels) if settings.temperature_scaling else 1.0
    wanted = settings.precision_of_accepted
    thresholds: tuple[float, ...] = ()
    if wanted is not None:
        strange = logits[:0]
        if strangers is not None:
            strange = logits_of(trainer.batches(strangers)(strangers.of("validation")))
        every = _softmax(np.concatenate([logits, strange]) / np.float32(temperature))
        right = np.zeros(len(every), bool)
        right[: len(labels)] = every[: len(labels)].argmax(axis=1) == labels
        try:
            least = least_threshold(every.max(axis=1), right, wanted, _weights(len(labels), len(strange)))
        except InvalidInputError as error:
            raise InvalidInputError(
                f"{error} Nothing is lost: resume with a lower --wanted-precision."
            ) from error
        thresholds = (round(least, 6),)
    return Certainty(
        temperature=temperature,
        thresholds=thresholds,
        photographs=len(labels),
        strangers=0 if strangers is None else len(strangers.of("validation")),
        wanted_precision=wanted,
    )


def _weights(photographs: int, strangers: int) -> Floats:
    """How much each counts: the strangers in sum as much as the photographs of the classes."""
    return np.repeat(np.array([1, photographs / max(1, strangers)], np.float32), [photographs, strangers])


def _before_softmax(model: Any) -> Callable[[Any], Floats]:
    """What gives a classifier's logits `[N, columns]` for batches of photographs."""
    head = head_of(model)
    kernel, bias = head.get_weights()
    backbone = keras.Model(model.input, head.input)
    return lambda batches: np.asarray(backbone.predict(batches, verbose=0) @ kernel + bias, np.float32)


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def figures(
    decided: Certainty,
    labels: npt.NDArray[np.int32],
    probabilities: Floats,
    strange: Floats | None = None,
) -> dict[str, Any]:
    """What the decisions are worth on photographs that did not take part in them, as JSON takes it.

    Args:
        labels, probabilities: `[N]` and `[N, classes]` of the network that has the temperature.
        strange: probabilities `[M, classes]` of photographs of none of the classes.

    Returns:
        What `decided` holds; `calibration_error`, and `calibration_error_before` without the temperature; with
        thresholds `accepted`: the `coverage`, the `precision` of the accepted, and with strangers the share that is
        `refused` and the `precision_among_strangers`, met as often.
    """
    before = at_temperature(probabilities, 1 / decided.temperature)
    found = asdict(decided) | {
        "thresholds": list(decided.thresholds),
        "calibration_error": calibration_error(labels, probabilities),
        "calibration_error_before": calibration_error(labels, before),
    }
    if decided.thresholds:
        found["accepted"] = _worth(decided, judge(probabilities, labels).right, probabilities, strange)
    return found


def _worth(
    decided: Certainty, right: npt.NDArray[np.bool_], probabilities: Floats, strange: Floats | None
) -> dict[str, Any]:
    taken = accepted(probabilities, decided.thresholds).any(axis=1)
    worth: dict[str, Any] = {
        "photographs": int(taken.sum()),
        "coverage": float(taken.mean()),
        "precision": float(right[taken].mean()) if taken.any() else None,
    }
    if strange is not None and len(strange):
        mistaken = accepted(strange, decided.thresholds).any(axis=1)
        of_all = float(taken.mean() + mistaken.mean())
        among = float((right & taken).mean() / of_all) if of_all else None
        worth |= {
            "strangers": len(strange),
            "refused": float(1 - mistaken.mean()),
            "precision_among_strangers": among,
        }
    return worth
