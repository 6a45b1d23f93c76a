"""What a run from scratch is told: the reference's training recipe as one configuration, and its folder.

    RMSProp (rho 0.9, momentum 0.9, epsilon 1e-3) at 0.016 per 256 pictures, ×0.97 every 2.4 epochs,
    5 epochs of warm-up; moving average of the weights 0.9999; L2 1e-5; label smoothing 0.1;
    drop-connect 0.2; AutoAugment; 350 epochs.

Source: `main.py` and `utils.py` of the reference code (`models/official/efficientnet`), which trained its
`imagenet` weights with AutoAugment and its `randaugment` weights with RandAugment. Nothing here imports Keras.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError, check_values, unknown_name
from keras_effnet.system.files import check_writable
from keras_effnet.train.folder import MODEL, RECIPE

AUGMENTATIONS = ("autoaugment", "randaugment", "none")
RATE_BATCH = 256  # the number of pictures in a step that `learning_rate` is given for


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train from scratch. The defaults are the reference's.

    Attributes:
        epochs: passes over the pictures.
        batch_size: pictures in a step, on all devices and hosts together; the learning rate follows it.
        learning_rate: for 256 pictures in a step.
        decay_rate: factor of the learning rate every `decay_epochs`, from the first epoch on.
        decay_epochs: as above; may be a fraction.
        warmup_epochs: over which the learning rate grows linearly from 0.
        rho: RMSProp's decay of the squared gradients, 0–1.
        momentum: RMSProp's momentum, 0–1.
        epsilon: RMSProp's epsilon.
        ema: decay of the moving average of the weights, in each step, 0–1; 0 for none.
        weight_decay: half of it times the sum of squares of all kernels and biases, batch normalization
            left out, is added to the loss.
        label_smoothing: 0–1.
        drop_connect_rate: at the last block, 0–1.
        dropout_rate: before the classifier; None for the variant's own.
        augment: `"autoaugment"`, `"randaugment"` or `"none"`.
        augment_ops: RandAugment's operations for each picture; 0 for no augmentation at all.
        augment_strength: RandAugment's magnitude, 0–1.
        crop_area: least share of the picture's area in a random crop; 1 for the evaluation crop and no
            flip, the same in each epoch.
    """

    epochs: int = 350
    batch_size: int = 256
    learning_rate: float = 0.016
    decay_rate: float = 0.97
    decay_epochs: float = 2.4
    warmup_epochs: float = 5.0
    rho: float = 0.9
    momentum: float = 0.9
    epsilon: float = 1e-3
    ema: float = 0.9999
    weight_decay: float = 1e-5
    label_smoothing: float = 0.1
    drop_connect_rate: float = 0.2
    dropout_rate: float | None = None
    augment: str = AUGMENTATIONS[0]
    augment_ops: int = 2
    augment_strength: float = 0.5
    crop_area: float = 0.08

    def __post_init__(self) -> None:
        above = ("epochs", "batch_size", "learning_rate", "decay_rate", "decay_epochs", "crop_area")
        check_values(self, above, lambda value: value > 0, "above 0")
        least = ("warmup_epochs", "weight_decay", "augment_ops", "epsilon")
        check_values(self, least, lambda value: value >= 0, "of at least 0")
        rates = ("rho", "momentum", "ema", "label_smoothing", "drop_connect_rate", "dropout_rate")
        check_values(self, rates, lambda value: 0 <= value < 1, "in [0, 1)")
        shares = ("augment_strength", "crop_area", "decay_rate")
        check_values(self, shares, lambda value: 0 <= value <= 1, "between 0 and 1")
        if self.augment not in AUGMENTATIONS:
            raise unknown_name("augment", self.augment, AUGMENTATIONS)
        told = (self.augment_ops, self.augment_strength)
        if self.augment != "randaugment" and self.augment_ops and told != (2, 0.5):
            raise InvalidInputError(
                "Expected augment='randaugment' (--augment randaugment) with augment_ops and augment_strength, which are "
                f"RandAugment's. Received: {self.augment!r} with {told[0]} and {told[1]}. Leave them out, or name it."
            )

    @property
    def augmentation(self) -> str:
        """The one of `AUGMENTATIONS` that is carried out."""
        without = not self.augment_ops or (self.augment == "randaugment" and not self.augment_strength)
        return "none" if without else self.augment

    def check_count(self, pictures: int) -> None:
        """Make sure that there are enough pictures for a step.

        Raises:
            InvalidInputError: fewer than one batch takes.
        """
        if pictures < self.batch_size:
            raise InvalidInputError(
                f"Expected at least {self.batch_size} pictures, one batch. Received: {pictures}. "
                "Choose a smaller batch size."
            )

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after warm-up, without decay."""
        return self.learning_rate * self.batch_size / RATE_BATCH

    def to_dict(self) -> dict[str, Any]:
        """All values, for a file beside the model."""
        return asdict(self)


def ema_is_too_slow(recipe: Recipe, steps: int) -> bool:
    """Whether the average of the weights still holds much of the random start after `steps`."""
    return recipe.ema > 0 and steps * -math.log(recipe.ema) < math.log(100)


def check_free(folder: Path) -> None:
    """Make sure that a run can begin in a folder.

    Raises:
        InvalidInputError: there is something in it already, or it cannot be written to.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if (folder / MODEL).is_file():
            what = "which holds a finished run. Choose another folder."
        elif (folder / RECIPE).is_file():
            what = (
                "which holds a run. Choose another folder, or pass resume=True (--resume) to go on with it."
            )
        else:
            what = "which holds something else. Choose another folder."
        raise InvalidInputError(
            f"Expected a folder that does not exist yet, or is empty. Received: {str(folder)!r}, {what}"
        )
    check_writable(folder / RECIPE)
