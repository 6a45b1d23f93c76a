"""Phase 3, where a run has a `fix_size`: the trained network gets used to the size at which it will be used.

FixRes from its procedure (Touvron et al., arXiv:1906.06423): the photographs come as the test reads them, at its size,
mirrored and a little shifted; only the last batch normalization, with its statistics, and the classifier learn. (The
paper's authors train EfficientNet's last 1×1 convolution too; on the photographs of benchmarks/README.md that was worse.)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from keras_effnet import transfer
from keras_effnet.network.resizing import at_size
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import Listing
from keras_effnet.train.batches import Course
from keras_effnet.train.checkpoints import EpochCheckpoint
from keras_effnet.train.fine_tuning import fine_tune, steps_of
from keras_effnet.train.parts import Parts
from keras_effnet.train.settings import Settings
from keras_effnet.train.trainer import Trainer

LEARNING_RATE = 1e-2  # of SGD, falling to 0
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4


def fixed_network(trainer: Trainer, model: Any, listing: Listing, phase: str) -> Any:
    """A run's network for the size that its settings want, if they want one; `trainer` has that size then.

    What it did is in `work/<phase>.json`.
    """
    settings = trainer.settings
    if settings.fix_size is None:
        return model
    began, trained_at = time.monotonic(), trainer.size
    as_trained = trainer.accuracies(model, listing)
    trainer.size = settings.fix_size
    before = trainer.accuracies(at_size(model, settings.fix_size), listing)
    checkpoint = EpochCheckpoint(
        trainer.folder.work / phase,
        to_beat=before.get("validation_accuracy", 0.0),
        patience=settings.patience,
    )
    fixed = fix(
        model,
        trainer.course(listing),
        checkpoint,
        settings,
        framing=trainer.framing,
        callbacks=trainer.callbacks(phase),
        verbose=trainer.progress.fit_verbosity,
    )
    trainer.folder.write_json(
        f"work/{phase}.json",
        {
            "size": settings.fix_size,
            "trained_at": trained_at,
            "as_trained": as_trained,
            "before": before,
            "after": trainer.accuracies(fixed, listing),
            "best_epoch": checkpoint.best_epoch if checkpoint.improved else 0,
            "epochs": checkpoint.epoch,
            "seconds": time.monotonic() - began,
            "history": checkpoint.history,
        },
    )
    return fixed


def fix(
    model: Any,
    course: Course,
    checkpoint: EpochCheckpoint,
    settings: Settings,
    *,
    framing: Framing,
    callbacks: Sequence[Any] = (),
    verbose: int = 0,
    top_conv: bool = False,
    learning_rate: float = LEARNING_RATE,
) -> Any:
    """The network for photographs of `settings.fix_size`, with the weights of the best epoch.

    Args:
        model: a trained classifier of another size; it stays as it is.
        course: the photographs; without any for validation, the last epoch counts as the best.
        checkpoint: where it stands.
        top_conv, learning_rate: for whoever compares.
    """
    size, epochs = settings.fix_size or 0, settings.fix_epochs
    fixed = transfer.fix_resolution(model, size, top_conv=top_conv)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps_of(course, settings) * epochs)
    fixed.compile(
        keras.optimizers.SGD(rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
        loss=course.loss(settings.label_smoothing),
        metrics=[course.accuracy()],
    )
    fine_tune(
        Parts(learning=fixed),
        course,
        checkpoint,
        # what is mirrored and shifted, and nothing else, is what the test reads
        replace(settings, augment="light", mixup=0.0, cutmix=0.0, ema=0.0),
        size=size,
        framing=framing,
        epochs=epochs,
        callbacks=callbacks,
        verbose=verbose,
    )
    return fixed
