"""Phase 3, where a run has a `fix_size`: the trained network gets used to the size at which it will be used.

FixRes from its procedure (Touvron et al., arXiv:1906.06423): the photographs come as the test reads them, at its size,
mirrored and a little shifted; only the last batch normalization, with its statistics, the last convolution and the
classifier learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_effnet import transfer
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.listing import Listing
from keras_effnet.train.batches import augmentation, evaluation_batches, training_batches
from keras_effnet.train.checkpoints import EpochCheckpoint
from keras_effnet.train.settings import Settings

LEARNING_RATE = 1e-2  # of SGD, falling to 0
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4


def fix(
    model: Any,
    listing: Listing,
    checkpoint: EpochCheckpoint,
    settings: Settings,
    *,
    framing: Framing,
    class_weights: npt.NDArray[np.float32] | None = None,
    callbacks: Sequence[Any] = (),
    verbose: int = 0,
    top_conv: bool = True,
    learning_rate: float = LEARNING_RATE,
) -> Any:
    """The network for photographs of `settings.fix_size`, with the weights of the best epoch.

    Args:
        model: a trained classifier of another size; it stays as it is.
        listing: the photographs; without any for validation, the last epoch counts as the best.
        checkpoint: where it stands.
    """
    size = settings.fix_size or 0
    fixed = transfer.fix_resolution(model, size, top_conv=top_conv)
    # what is mirrored and shifted, and nothing else, is what the test reads
    plain = replace(settings, augment="light", mixup=0.0, cutmix=0.0)
    training, validation = listing.of("train"), listing.of("validation")
    count = settings.batch_size
    steps = -(-len(training) // count)
    fixed.compile(
        keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps * settings.fix_epochs),
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
        ),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing),
        metrics=["accuracy"],
    )
    beginning = fixed.get_weights()
    if not (checkpoint.finished or checkpoint.exhausted):
        checkpoint.restore(fixed)
        start = checkpoint.epoch
        if start < settings.fix_epochs:
            augment = augmentation(plain, size, class_weights, seed=settings.seed + 1000 * start)
            epochs = range(start, settings.fix_epochs)
            fixed.fit(
                training_batches(
                    listing,
                    training,
                    augment,
                    size,
                    framing,
                    batch_size=count,
                    seed=settings.seed,
                    epochs=epochs,
                ),
                steps_per_epoch=steps,
                initial_epoch=start,
                epochs=settings.fix_epochs,
                validation_data=evaluation_batches(listing, validation, size, framing, batch_size=count)
                if len(validation)
                else None,
                callbacks=[checkpoint, *callbacks],
                shuffle=False,  # by Keras, which would warn that it cannot
                verbose=verbose,
            )
    checkpoint.finish()
    if not checkpoint.restore_best(fixed):
        fixed.set_weights(beginning)
    return fixed
