"""Phase 2: the top blocks learn too, slowly, batch normalization frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras

from keras_effnet.pictures.framing import Framing
from keras_effnet.train.batches import (
    Augmentation,
    Course,
    augmentation,
    evaluation_batches,
    shown_once,
    training_batches,
)
from keras_effnet.train.checkpoints import EpochCheckpoint
from keras_effnet.train.parts import Parts, parts_of
from keras_effnet.train.settings import Settings
from keras_effnet.transfer import unfreeze

MIXED_CAPABILITY = 7  # of an NVIDIA GPU, from which on float16 is faster than float32
CLIP_NORM = 1.0  # a mislabelled photograph must not throw a pretrained network over

_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "rmsprop": partial(keras.optimizers.RMSprop, rho=0.9, momentum=0.9, epsilon=1e-3),  # as in pretrain
}


def prepare(model: Any, course: Course, settings: Settings) -> Parts:
    """Make the top blocks of a classifier trainable and compile what learns, within the scope of the run's strategy.

    The learning rate falls as fast as if all epochs of the settings were to come.
    """
    if settings.weights is not None:
        unfreeze(model, settings.unfreeze)
    steps = steps_of(course, settings)
    total = steps * max(settings.epochs, 1)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(total - steps, 1), warmup_target=settings.learning_rate, warmup_steps=steps
    )
    average = {"use_ema": True, "ema_momentum": settings.ema} if settings.ema else {}
    parts = parts_of(model) if takes_parts(settings) else Parts(learning=model)
    parts.learning.compile(
        _OPTIMIZERS[settings.optimizer](rate, global_clipnorm=CLIP_NORM, **average),
        loss=course.loss(settings.label_smoothing),
        metrics=[course.accuracy()],
        jit_compile={"auto": "auto", "on": True, "off": False}[settings.xla],
    )
    return parts


def takes_parts(settings: Settings) -> bool:
    """Whether the parts of a classifier compute what the whole does, as fast: in float32, on one device of TensorFlow.

    Without weights nothing is frozen.
    """
    return (
        settings.weights is not None
        and settings.strategy == "none"
        and keras.backend.backend() == "tensorflow"
        and keras.config.dtype_policy().name == "float32"
    )


def steps_of(course: Course, settings: Settings) -> int:
    """Of the optimizer, in an epoch."""
    return -(-len(course) // settings.batch_size)


def fine_tune(
    parts: Parts,
    course: Course,
    checkpoint: EpochCheckpoint,
    settings: Settings,
    *,
    size: int,
    framing: Framing,
    epochs: int,
    callbacks: Sequence[Any] = (),
    verbose: int = 0,
) -> None:
    """Train a classifier from where `checkpoint` stands; afterwards it holds the best epoch's weights.

    Args:
        parts: of the classifier; what learns is compiled, and learns in the layers that are trainable.
        course: the photographs; without any for validation, the last epoch counts as the best.
        epochs: to do at most.
    """
    model = parts.learning
    beginning = model.get_weights()
    if not (checkpoint.finished or checkpoint.exhausted):
        checkpoint.restore(model)
        start = checkpoint.epoch
        # the random layers start anew in a resumed run: another seed, or they would repeat themselves
        augment = augmentation(settings, size, course.class_weights, seed=settings.seed + 1000 * start)
        batches, checks = _batches(course, parts, augment, settings, size, framing, range(start, epochs))
        averaging = [keras.callbacks.SwapEMAWeights()] if settings.ema else []
        if start < epochs:
            model.fit(
                batches,
                steps_per_epoch=steps_of(course, settings),
                initial_epoch=start,
                epochs=epochs,
                validation_data=checks,
                callbacks=[*averaging, checkpoint, *callbacks],
                shuffle=False,  # by Keras, which would warn that it cannot
                verbose=verbose,
            )
    checkpoint.finish()
    if not checkpoint.restore_best(model):
        model.set_weights(beginning)
    elif settings.ema:
        _inner(model.optimizer).finalize_variable_values(model.trainable_variables)


def _batches(
    course: Course,
    parts: Parts,
    augment: Augmentation,
    settings: Settings,
    size: int,
    framing: Framing,
    epochs: range,
) -> tuple[Any, Any]:
    """To train on, and to validate with; None for nothing."""
    frozen, count = parts.frozen, settings.batch_size
    validation = course.listing.of("validation")
    batches = training_batches(
        course,
        augment,
        size,
        framing,
        batch_size=count,
        seed=settings.seed,
        epochs=epochs,
        # frozen blocks are dropped now and then as the others are
        shown=frozen and partial(frozen, training=True),
    )
    if not len(validation):
        return batches, None
    checks = evaluation_batches(course.listing, validation, size, framing, batch_size=count)
    return batches, checks if frozen is None else shown_once(checks, partial(frozen, training=False))


def _inner(optimizer: Any) -> Any:
    """The optimizer inside the one that scales the loss in mixed precision."""
    return getattr(optimizer, "inner_optimizer", optimizer)


@contextmanager
def precision(settings: Settings) -> Iterator[str]:
    """Layers built inside compute in the run's precision; yields its name."""
    before = keras.config.dtype_policy()
    name = _automatic_precision() if settings.precision == "auto" else settings.precision
    keras.config.set_dtype_policy(name)
    try:
        yield name
    finally:
        keras.config.set_dtype_policy(before)


def _automatic_precision() -> str:
    """Mixed precision where it is known to be faster: on GPUs with units for it."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in gpus]
    fast = capabilities and all(found and found[0] >= MIXED_CAPABILITY for found in capabilities)
    return "mixed_float16" if fast else "float32"
