"""What constructors accept: numbers of NumPy too, and one clear line for everything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keras_effnet import EfficientNet, baselines, load_weights, transfer
from keras_effnet.errors import InvalidInputError
from keras_effnet.network.builder import check_input_shape


def test_numbers_of_numpy_are_numbers(tiny_variant: Any) -> None:
    shape = tuple(np.array([64, 64, 3]))
    options = {"input_shape": shape, "dropout_rate": np.float32(0.2), "epsilon": np.float64(1e-3)}
    model = EfficientNet(tiny_variant, weights=None, classes=np.int64(7), **options)
    assert (model.input_shape, model.output_shape) == ((None, 64, 64, 3), (None, 7))
    model = transfer.classifier(tiny_variant, np.int32(3), weights=None, input_shape=shape)
    assert model.output_shape == (None, 3)


def test_baselines_take_numbers_of_numpy() -> None:
    model = baselines.build("mobilenet_v1", width=0.25, resolution=np.int64(32), classes=np.int64(5))
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 5))


def test_check_input_shape_gives_plain_integers() -> None:
    checked = check_input_shape([np.int64(64), None, np.uint8(3)])
    assert checked == (64, None, 3) and type(checked[0]) is type(checked[2]) is int


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 2.0}, r"classes to be a whole number of at least 1\. Received: 2\.0\."),
        ({"classes": True}, r"classes to be a whole number.*Received: True"),
        ({"classes": 0}, r"classes to be a whole number.*Received: 0"),
        ({"weights": 5}, r"weights as None, the name of a published set, or a file\. Received: 5\."),
        ({"weights": ""}, r"weights as None.*Received: ''\. Pass"),
        ({"input_shape": 224}, r"\(height, width, channels\).*Received: 224\. Pass for example"),
        ({"input_shape": "224"}, r"\(height, width, channels\).*Received: '224'"),
        ({"input_shape": (16, 64, 3)}, r"at least 32\. Received: \(16, 64, 3\)"),
        ({"input_shape": (64.0, 64, 3)}, r"at least 32\. Received: \(64\.0, 64, 3\)"),
        ({"input_shape": (64, 64, None)}, "at least one channel"),
        ({"dropout_rate": "x"}, r"dropout_rate to lie in \[0, 1\)\. Received: 'x'\."),
        ({"dropout_rate": float("nan")}, r"dropout_rate to lie in \[0, 1\)\. Received: nan"),
        ({"drop_connect_rate": None}, r"drop_connect_rate to lie in \[0, 1\)\. Received: None"),
        ({"epsilon": -1}, r"epsilon to be a number above 0\. Received: -1\."),
        ({"epsilon": float("nan")}, r"epsilon to be a number above 0\. Received: nan"),
        ({"classifier_activation": "softmaxx"}, r"Received: 'softmaxx'\. Pass 'softmax'"),
        ({"classifier_activation": 5}, r"name of a Keras activation, a function, or None\. Received: 5"),
    ],
)
def test_argument_that_cannot_be_used_is_named(tiny_variant: Any, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as raised:
        EfficientNet(tiny_variant, **({"weights": None} | arguments))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("source", ["", 5, None])
def test_load_weights_refuses_what_is_no_path(tiny: Any, source: Any) -> None:
    with pytest.raises(InvalidInputError, match="Expected weights as None, the name"):
        load_weights(tiny, source)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1.5}, "at least two classes to tell apart. Received: 1.5"),
        ({"dropout_rate": "x"}, "Expected dropout_rate to lie in"),
        ({"classifier_activation": "softmaxx"}, "Expected classifier_activation"),
    ],
)
def test_transfer_classifier_names_the_argument(tiny_variant: Any, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        transfer.classifier(tiny_variant, **({"classes": 3, "weights": None} | arguments))
