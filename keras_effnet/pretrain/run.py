"""Training from scratch with the reference's recipe, on one process or several, resumable."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_effnet.applications import EfficientNet
from keras_effnet.errors import InvalidInputError, warn
from keras_effnet.network.variants import Variant, get_variant
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.prefetching import error_of_ours
from keras_effnet.pretrain.batches import training_batches, validation_batches
from keras_effnet.pretrain.compiling import compile_model
from keras_effnet.pretrain.examples import Examples
from keras_effnet.pretrain.recipe import Recipe, check_free, ema_is_too_slow
from keras_effnet.system.devices import Share, check_agreement, strategy_scope
from keras_effnet.system.files import write_text
from keras_effnet.train.checkpoints import EpochCheckpoint, save_classifier
from keras_effnet.train.folder import MODEL, RECIPE

HISTORY = "history.csv"


def pretrain(
    variant: str | Variant,
    train: Examples,
    validation: Examples | None = None,
    *,
    out: str | os.PathLike[str],
    recipe: Recipe | None = None,
    size: int | None = None,
    seed: int = 0,
    share: Share | None = None,
    strategy: str = "none",
    resume: bool = False,
    callbacks: Sequence[Any] = (),
    verbose: str | int = "auto",
) -> keras.Model:
    """Train an EfficientNet from random weights.

    Args:
        variant: what to build; see `EfficientNet`.
        train: labelled pictures, of `examples.from_folders`, `from_tfrecords` or `from_tfds`.
        validation: the same for validation after each epoch; None for none.
        out: folder for `model.keras` (averaged weights, loads without this package), `labels.txt`,
            `recipe.json`, `history.csv`, and while training runs for what `resume` needs.
        recipe: the configuration; None for the reference's.
        size: side of the pictures in pixels; None for the variant's resolution.
        seed: of weights, order and crops.
        share: what `hosts.join` returned, for several processes. Process 0 writes the files of all;
            each keeps its own state for `resume` in its `out`.
        strategy: `"mirrored"` for all GPUs of this host on TensorFlow.
        resume: go on after the last whole epoch of an interrupted run in `out`, or begin it again if it
            has none. The pictures come in another order and with other crops than they came before.
        callbacks: more Keras callbacks.
        verbose: of `model.fit`.

    Returns:
        The trained model, with averaged weights.

    Raises:
        InvalidInputError: an argument, folder or picture that cannot be used.
    """
    recipe, share, folder = recipe or Recipe(), share or Share(), Path(out)
    chosen = get_variant(variant)
    side = size or chosen.resolution
    _check_classes(train, validation)
    settings = {
        "variant": chosen.name,
        "size": side,
        "processes": share.count,
        "strategy": strategy,
        "seed": seed,
        "pictures": train.count,
        "classes": list(train.labels),
        **recipe.to_dict(),
    }
    checkpoint = _resumed(folder, settings, share) if resume else EpochCheckpoint(_state(folder, share))
    first = checkpoint.epoch
    # a resumed run needs seeds of its own: tf.data knows no epochs and would begin with the first one's order
    # and crops again
    keras.utils.set_random_seed(seed + first)  # tf.data mixes TensorFlow's global seed into every other one
    framing = Framing(chosen.interpolation)
    batches = training_batches(train, recipe, side, seed=seed + first, share=share, framing=framing)
    checks = validation and validation_batches(validation, recipe, side, share=share, framing=framing)
    steps = train.count // recipe.batch_size
    if not resume:
        _begin(folder, settings, share)
    check_agreement(first, share, "epoch to resume from")
    _warn_of_slow_average(recipe, steps)
    keras.utils.set_random_seed(seed + first)  # again: what came before took numbers
    with strategy_scope(strategy):
        model = _build(chosen, recipe, side, len(train.labels))
        compile_model(model, recipe, steps)
    checkpoint.restore(model)
    more = [checkpoint, *_callbacks(folder, recipe, share, validated=checks is not None), *callbacks]
    _fit(model, batches, checks, recipe, first, more, verbose=verbose if share.writes else 0)
    if share.writes:
        save_classifier(model, folder / MODEL, train.labels)
    shutil.rmtree(checkpoint.folder, ignore_errors=True)
    return model


def _check_classes(train: Examples, validation: Examples | None) -> None:
    if validation is not None and validation.labels != train.labels:
        raise InvalidInputError(
            f"Expected the same classes for validation as for training, {_some(train.labels)}. "
            f"Received: {_some(validation.labels)}."
        )


def _fit(
    model: keras.Model,
    batches: Any,
    checks: Any,
    recipe: Recipe,
    first: int,
    callbacks: Sequence[Any],
    *,
    verbose: str | int,
) -> None:
    """Do the epochs from `first` on.

    Raises:
        InvalidInputError: a picture that cannot be used, or a loss that is not finite.
    """
    import tensorflow as tf

    try:
        history = model.fit(
            batches,
            initial_epoch=first,
            epochs=recipe.epochs,
            validation_data=checks,
            callbacks=callbacks,
            shuffle=False,  # by Keras, which would warn that it cannot
            verbose=verbose,
        )
    except tf.errors.OpError as error:
        if (ours := error_of_ours(error)) is None:
            raise
        raise InvalidInputError(ours) from error
    if history.epoch and not np.isfinite(history.history["loss"][-1]):
        raise InvalidInputError(
            f"Expected a finite loss. Received: {history.history['loss'][-1]} in epoch "
            f"{history.epoch[-1] + 1}. Start again with a lower learning rate or a longer warm-up."
        )


def _warn_of_slow_average(recipe: Recipe, steps: int) -> None:
    if ema_is_too_slow(recipe, steps * recipe.epochs):
        warn(
            f"Expected more than {steps * recipe.epochs} steps for an average of the weights with decay "
            f"{recipe.ema}: the result will still hold the random start. Pass a smaller ema, or 0 for none.",
        )


def _build(variant: Variant, recipe: Recipe, side: int, classes: int) -> keras.Model:
    return EfficientNet(
        variant,
        weights=None,
        input_shape=(side, side, 3),
        classes=classes,
        drop_connect_rate=recipe.drop_connect_rate,
        dropout_rate=recipe.dropout_rate,
    )


class _History(keras.callbacks.CSVLogger):
    """Epochs from 1, as the terminal counts them."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch + 1, logs)


def _callbacks(folder: Path, recipe: Recipe, share: Share, *, validated: bool) -> list[Any]:
    made: list[Any] = [keras.callbacks.TerminateOnNaN()]
    if share.writes:
        made.append(_History(str(folder / HISTORY), append=True))
    if recipe.ema and validated and share.count == 1:
        # across hosts each swap would compare every weight between them; there the raw ones are validated
        made.append(keras.callbacks.SwapEMAWeights())
    return made


def _begin(folder: Path, settings: dict[str, Any], share: Share) -> None:
    """Make the folder of a new run."""
    if share.writes:
        check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if share.writes:
        write_text(folder / RECIPE, json.dumps(settings, indent=2) + "\n", overwrite=False)


def _resumed(folder: Path, settings: dict[str, Any], share: Share) -> EpochCheckpoint:
    """Check that the run in the folder can go on; returns where it stands, before the first epoch perhaps."""
    if share.writes:
        if not (folder / RECIPE).is_file():
            raise InvalidInputError(
                f"Expected an interrupted run in {str(folder)!r}. Received a folder without {RECIPE}. "
                "Leave resume (--resume) out to begin one."
            )
        if (folder / MODEL).exists():
            raise InvalidInputError(
                f"Expected an interrupted run. Received: {str(folder)!r}, which holds a finished run. "
                "Choose another folder."
            )
        saved = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        for name, value in settings.items():
            if saved.get(name) != value:
                raise InvalidInputError(
                    f"Expected the settings of the run in {str(folder)!r}: {name} = {_told(saved.get(name))}. "
                    f"Received: {_told(value)}. Give those, or start a new run in another folder."
                )
    return EpochCheckpoint(_state(folder, share))


def _told(value: Any) -> str:
    return _some(tuple(value)) if isinstance(value, list) else repr(value)


def _state(folder: Path, share: Share) -> Path:
    """Where a process keeps what it needs to go on."""
    return folder / (f".state-{share.index}" if share.count > 1 else ".state")


def _some(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:5])
    return f"{len(labels)} ({shown}{', …' if len(labels) > 5 else ''})"
