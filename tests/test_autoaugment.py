"""AutoAugment's policy and RandAugment: what each operation does to a pixel, and that a seed decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_effnet.pictures.distortions import GRAY, OPERATIONS, RANDOM_OPERATIONS, randaugment
from keras_effnet.pretrain.autoaugment import POLICY, autoaugment

RAMP = np.repeat(np.array([0, 10, 100, 127, 128, 200, 250, 255], np.uint8), 3).reshape(1, 8, 3)
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)


def applied(name: str, level: int, pixels: np.ndarray = RAMP, sign: int = 1) -> np.ndarray:
    return np.asarray(OPERATIONS[name](Image.fromarray(pixels), level / 10, sign))


def test_policy_is_the_published_one() -> None:
    assert len(POLICY) == 25
    assert POLICY[0] == (("equalize", 0.8, 1), ("shear_y", 0.8, 4))
    assert POLICY[15] == (("rotate", 1.0, 7), ("translate_y", 0.8, 9))
    assert POLICY[24] == (("color", 0.8, 6), ("rotate", 0.4, 5))
    steps = [step for pair in POLICY for step in pair]
    assert {name for name, *_ in steps} == set(OPERATIONS)
    # sums over the table of the reference's policy_v0
    assert sum(probability for _, probability, _ in steps) == pytest.approx(29.8)
    assert sum(level for *_, level in steps) == 240


@pytest.mark.parametrize(
    ("name", "level", "expected"),
    [
        ("solarize", 4, [0, 10, 100, 128, 127, 55, 5, 0]),  # from 102 on
        ("solarize", 10, [0, 10, 100, 127, 128, 200, 250, 255]),  # from 256 on: never
        ("solarize_add", 3, [33, 43, 133, 160, 128, 200, 250, 255]),
        ("invert", 9, [255, 245, 155, 128, 127, 55, 5, 0]),
        ("posterize", 6, [0, 0, 64, 64, 128, 192, 192, 192]),  # two bits
        ("posterize", 2, [0, 0, 0, 0, 128, 128, 128, 128]),
    ],
)
def test_operation_changes_values_as_the_reference_does(name: str, level: int, expected: list[int]) -> None:
    assert applied(name, level)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("level", [2, 6])
def test_posterize_is_that_of_tensorflows_shifts(level: int) -> None:
    shift = tf.cast(8 - int(level / 10 * 4), tf.uint8)
    expected = tf.bitwise.left_shift(tf.bitwise.right_shift(PHOTO, shift), shift)
    np.testing.assert_array_equal(applied("posterize", level, PHOTO), expected)


@pytest.mark.parametrize("level", [0, 4, 9])
def test_color_goes_from_gray_beyond_the_picture_itself(level: int) -> None:
    gray = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(PHOTO)).numpy().astype(float)
    expected = np.clip(gray + (1.8 * level / 10 + 0.1) * (PHOTO - gray), 0, 255)
    assert np.abs(applied("color", level, PHOTO) - expected).max() <= 2.5  # both round twice


@pytest.mark.parametrize("sign", [1, -1])
def test_moved_pictures_leave_gray_behind(sign: int) -> None:
    flat = np.full((100, 100, 3), 7, np.uint8)
    for name, share in (("shear_y", 0.06), ("shear_x", 0.06), ("rotate", 0.1)):
        moved = applied(name, 4, flat, sign)
        assert {tuple(pixel) for pixel in moved.reshape(-1, 3).tolist()} == {(7, 7, 7), GRAY}
        assert (moved[..., 0] == GRAY[0]).mean() == pytest.approx(share, abs=0.03)
    assert (applied("translate_y", 9, flat, sign) == GRAY[0]).all()  # 225 of 100 pixels
    assert (applied("translate_y", 1, flat, sign) == GRAY[0]).mean() == pytest.approx(0.25)


def test_equalize_spreads_the_values() -> None:
    dark = (PHOTO // 8).astype(np.uint8)
    spread = applied("equalize", 1, dark)
    assert dark.max() == 31 and spread.min() == 0 and spread.max() == 255
    stretched = applied("autocontrast", 1, dark)
    assert stretched.min() == 0 and stretched.max() == 255


def test_seed_decides_what_happens_to_a_picture() -> None:
    def drawn(seed: Any) -> np.ndarray:
        return autoaugment(PHOTO, np.random.default_rng(seed))

    results = [drawn(seed) for seed in range(30)]
    assert all(each.shape == PHOTO.shape and each.dtype == np.uint8 for each in results)
    assert all(np.array_equal(each, drawn(seed)) for seed, each in enumerate(results))
    assert len({each.tobytes() for each in results}) > 15


@pytest.mark.parametrize(
    ("name", "share", "sign", "expected"),
    [
        ("identity", 0.9, 1, RAMP[0, :, 0].tolist()),
        ("posterize", 1.0, 1, [0, 0, 96, 112, 128, 192, 240, 240]),  # four bits
        ("posterize", 0.1, 1, RAMP[0, :, 0].tolist()),
        ("solarize", 0.1, 1, [0, 10, 100, 127, 128, 200, 5, 0]),  # from 230 on
        ("brightness", 0.5, -1, [0, 5, 55, 69, 70, 110, 137, 140]),  # times 0.55
        ("brightness", 1.0, 1, [0, 19, 190, 241, 243, 255, 255, 255]),
        ("translate_x", 0.5, 1, [100, 127, 128, 200, 250, 255, 128, 128]),  # 1.8 of 8 pixels, gray behind
    ],
)
def test_operation_of_randaugment_grows_with_its_share(
    name: str, share: float, sign: int, expected: list[int]
) -> None:
    made = np.asarray(RANDOM_OPERATIONS[name](Image.fromarray(RAMP), share, sign))
    assert np.abs(made[0, :, 0].astype(int) - expected).max() <= (1 if name == "brightness" else 0)


def test_randaugment_has_the_papers_operations_and_draws_them_for_each_picture() -> None:
    assert len(RANDOM_OPERATIONS) == 14
    again = [randaugment(PHOTO, np.random.default_rng(3), count=2, strength=0.9) for _ in range(2)]
    np.testing.assert_array_equal(*again)
    assert again[0].shape == PHOTO.shape and again[0].dtype == np.uint8
    generator = np.random.default_rng(0)
    made = {randaugment(PHOTO, generator, count=2, strength=0.9).tobytes() for _ in range(30)}
    assert len(made) > 20
    weak = randaugment(PHOTO, np.random.default_rng(1), count=0, strength=0.9)
    np.testing.assert_array_equal(weak, PHOTO)


def test_training_distorts_each_picture_of_a_batch_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that autocontrast and equalization leave as it is: of a batch some stay the same, and never all."""
    from keras_effnet.train import batches
    from keras_effnet.train.settings import Settings

    monkeypatch.setattr(batches, "SHIFT", 0.0)
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    augment = batches.augmentation(Settings(data="", augment="randaugment"), 16, None, seed=0)
    made, _ = augment.graph(augment.prepared(np.stack([ramp] * 200)), tf.zeros((200, 2)))
    values = np.sort(made.numpy()[..., 0].reshape(200, -1), axis=1)  # mirrored or not
    unchanged = np.abs(values - np.arange(256)).max(axis=1) < 1
    assert 0 < unchanged.sum() < 50
