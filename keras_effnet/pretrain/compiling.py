"""A recipe as what Keras trains with: schedule, optimizer, loss and metrics."""

from __future__ import annotations

from typing import Any

import keras

from keras_effnet.pretrain.recipe import Recipe


@keras.saving.register_keras_serializable(package="keras_effnet")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear growth from 0, then a staircase of exponential decay that counts from the first step.

    Args:
        peak: the learning rate that the decay starts from.
        steps_per_epoch: training steps in an epoch.
        decay_rate, decay_epochs, warmup_epochs: see `Recipe`.

    Source: `build_learning_rate` of the reference code.
    """

    def __init__(
        self,
        peak: float,
        steps_per_epoch: int,
        decay_rate: float = 0.97,
        decay_epochs: float = 2.4,
        warmup_epochs: float = 5.0,
    ) -> None:
        super().__init__()
        self.config = {
            "peak": peak,
            "steps_per_epoch": steps_per_epoch,
            "decay_rate": decay_rate,
            "decay_epochs": decay_epochs,
            "warmup_epochs": warmup_epochs,
        }
        self.peak = peak
        self.warmup_steps = int(warmup_epochs * steps_per_epoch)
        self.decay = keras.optimizers.schedules.ExponentialDecay(
            peak, steps_per_epoch * decay_epochs, decay_rate, staircase=True
        )

    def __call__(self, step: Any) -> Any:
        decayed = self.decay(step)
        if not self.warmup_steps:
            return decayed
        done = keras.ops.cast(step, "float32") / self.warmup_steps
        return keras.ops.where(done < 1, self.peak * done, decayed)

    def get_config(self) -> dict[str, Any]:
        return dict(self.config)


def compile_model(model: keras.Model, recipe: Recipe, steps_per_epoch: int, **options: Any) -> None:
    """Compile a classifier that ends in a softmax as the recipe says; `options` are `model.compile`'s."""
    _penalize(model, recipe.weight_decay)
    schedule = WarmupDecay(
        recipe.peak_learning_rate,
        steps_per_epoch,
        recipe.decay_rate,
        recipe.decay_epochs,
        recipe.warmup_epochs,
    )
    averaging = {"use_ema": True, "ema_momentum": recipe.ema} if recipe.ema else {}
    optimizer = keras.optimizers.RMSprop(
        schedule, rho=recipe.rho, momentum=recipe.momentum, epsilon=recipe.epsilon, **averaging
    )
    top = [keras.metrics.TopKCategoricalAccuracy(5, name="top5")] if model.output_shape[-1] > 5 else []
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
    model.compile(optimizer, loss, metrics=["accuracy", *top], **options)


def _penalize(model: keras.Model, rate: float) -> None:
    """L2 in the loss, as the reference does it; a decay inside the optimizer would bypass RMSProp."""
    regularizer = keras.regularizers.L2(rate / 2) if rate else None
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.trainable_variables:
                variable.regularizer = regularizer
