"""The reference's recipe: its published numbers, the schedule step by step, what it adds to the loss."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest

from keras_effnet import EfficientNet
from keras_effnet.commands.pretrain import VALUES
from keras_effnet.errors import InvalidInputError
from keras_effnet.pretrain.compiling import WarmupDecay, compile_model
from keras_effnet.pretrain.recipe import Recipe, ema_is_too_slow


def test_recipe_has_the_published_numbers() -> None:
    recipe = Recipe()
    assert (recipe.rho, recipe.momentum, recipe.epsilon) == (0.9, 0.9, 1e-3)
    assert (recipe.learning_rate, recipe.decay_rate, recipe.decay_epochs) == (0.016, 0.97, 2.4)
    assert (recipe.warmup_epochs, recipe.ema, recipe.weight_decay) == (5, 0.9999, 1e-5)
    assert (recipe.label_smoothing, recipe.drop_connect_rate, recipe.epochs) == (0.1, 0.2, 350)
    assert Recipe(batch_size=4096).peak_learning_rate == pytest.approx(0.256)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (1, 0.016 / 500),
        (250, 0.008),
        (499, 0.016 * 499 / 500),
        (500, 0.016 * 0.97**2),  # 500 / 240 = 2.08: the decay counts from the first step
        (719, 0.016 * 0.97**2),
        (720, 0.016 * 0.97**3),
        (35_000, 0.016 * 0.97**145),  # 350 epochs: 35000 / 240 = 145.8
    ],
)
def test_schedule_has_the_value_of_the_formula(step: int, expected: float) -> None:
    schedule = WarmupDecay(Recipe().peak_learning_rate, steps_per_epoch=100)
    assert float(schedule(step)) == pytest.approx(expected, rel=1e-5)


def test_schedule_survives_serialization() -> None:
    schedule = WarmupDecay(0.016, 100, decay_rate=0.9, decay_epochs=1.5, warmup_epochs=0.5)
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert loaded.get_config() == schedule.get_config()
    for step in (0, 30, 50, 149, 150, 1000):
        assert float(loaded(step)) == float(schedule(step))


def test_schedule_without_warmup_starts_at_the_peak() -> None:
    assert float(WarmupDecay(0.5, 10, warmup_epochs=0)(0)) == 0.5


@pytest.fixture(scope="module")
def compiled(tiny_variant: Any) -> Any:
    model = EfficientNet(tiny_variant, weights=None, classes=7)
    compile_model(model, Recipe(weight_decay=0.5), steps_per_epoch=10)
    return model


def test_compiled_optimizer_is_the_recipes(compiled: Any) -> None:
    optimizer = compiled.optimizer
    assert isinstance(optimizer, keras.optimizers.RMSprop)
    assert (optimizer.rho, optimizer.momentum, optimizer.epsilon) == (0.9, 0.9, 1e-3)
    assert optimizer.use_ema and optimizer.ema_momentum == 0.9999
    assert not optimizer.weight_decay  # it is in the loss


def test_weight_decay_is_half_the_squares_of_all_but_batch_normalization(
    compiled: Any, pixels64: Any
) -> None:
    penalty = sum(
        0.5 * 0.5 * float(np.square(np.asarray(variable)).sum())
        for layer in compiled.layers
        if "_bn" not in layer.name
        for variable in layer.trainable_variables
    )
    labels = np.eye(7, dtype="float32")[[0, 1, 2, 3, 4, 5]]
    probabilities = compiled.predict(pixels64, verbose=0)
    smooth = labels * 0.9 + 0.1 / 7
    cross_entropy = float(-(smooth * np.log(probabilities)).sum(axis=1).mean())
    loss = compiled.evaluate(pixels64, labels, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(cross_entropy + penalty, rel=1e-4)


def test_average_of_weights_warns_only_where_the_start_would_remain() -> None:
    assert ema_is_too_slow(Recipe(), 40_000)
    assert not ema_is_too_slow(Recipe(), 350 * 312)
    assert not ema_is_too_slow(Recipe(ema=0), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "Expected epochs above 0. Received: 0"),
        ({"ema": 1.0}, r"Expected ema in \[0, 1\)"),
        ({"batch_size": -8}, "Expected batch_size above 0"),
        ({"crop_area": 1.5}, "Expected crop_area between 0 and 1"),
        ({"weight_decay": -1e-5}, "Expected weight_decay of at least 0"),
        ({"augment": "auto"}, "Did you mean 'autoaugment'"),
        ({"augment_ops": 3}, r"Expected augment='randaugment' .* Received: 'autoaugment' with 3 and 0\.5"),
        ({"learning_rate": float("nan")}, "Expected learning_rate above 0"),
    ],
)
def test_recipe_refuses_values_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Recipe(**changes)


@pytest.mark.parametrize(
    ("told", "done"),
    [
        ({}, "autoaugment"),
        ({"augment_ops": 0}, "none"),
        ({"augment": "randaugment"}, "randaugment"),
        ({"augment": "randaugment", "augment_ops": 3}, "randaugment"),
        ({"augment": "randaugment", "augment_strength": 0}, "none"),
        ({"augment": "none"}, "none"),
    ],
)
def test_augmentation_is_the_one_that_was_asked_for(told: dict[str, Any], done: str) -> None:
    assert Recipe(**told).augmentation == done


def test_help_of_pretrain_says_the_defaults_of_the_recipe() -> None:
    for name, (kind, meaning) in VALUES.items():
        (default,) = re.findall(r"\(default: (.+)\)$", meaning)
        assert kind(default) == getattr(Recipe(), name), name
