"""Every format, read back bit for bit into the layers of keras.applications."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keras_effnet.errors import WeightsError
from keras_effnet.network.variants import VARIANTS
from keras_effnet.weights.readers import open_checkpoint, tensorflow
from tests.weights import foreign

VARIANT_NAMES = [*(f"b{index}" for index in range(9)), *(f"lite{index}" for index in range(5))]


@pytest.mark.parametrize("kind", foreign.FORMATS)
@pytest.mark.parametrize("name", VARIANT_NAMES)
def test_reader_returns_every_array_bit_for_bit(tmp_path: Path, name: str, kind: str) -> None:
    # names and order follow from the depth and from where the width changes: half of B0's says the same
    variant = VARIANTS[name] if name in ("b0", "lite0") else replace(VARIANTS[name], width=0.5)
    layers = foreign.random_layers_of(variant)
    with open_checkpoint(foreign.write_of(tmp_path, variant, layers, kind)) as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)
        assert checkpoint.naming == ("timm" if kind == "safetensors" else kind)


@pytest.mark.parametrize("name", ["b0", "lite0"])
def test_published_archive_reads_like_its_directory(tmp_path: Path, name: str) -> None:
    layers = foreign.random_layers(name)
    with open_checkpoint(foreign.write(tmp_path, name, layers, "tar")) as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)


def test_variant_list_names_every_published_variant_except_l2() -> None:
    assert set(VARIANT_NAMES) == set(VARIANTS) - {"l2"}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "lr": 0.1, "name": "run"},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"model": {f"_orig_mod.module.{name}": value for name, value in state.items()}},
    ],
    ids=["state_dict", "model", "module.", "state_dict+module.", "model+_orig_mod.module."],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_wrapped_state_dict_reads_like_a_bare_one(tmp_path: Path, wrap, protocol: int) -> None:
    layers = foreign.random_layers("lite0", classes=10)
    path = tmp_path / "checkpoint.pth"
    foreign.write_torch(path, wrap(foreign.state_dict("lite0", layers, "timm")), protocol=protocol)
    with open_checkpoint(path) as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)


@pytest.mark.parametrize(("ema", "seed"), [(True, 2), (False, 1)])
def test_training_checkpoint_gives_averages_or_raw_weights(tmp_path: Path, ema: bool, seed: int) -> None:
    states = [
        foreign.state_dict("lite0", foreign.random_layers("lite0", classes=2, seed=s), "timm") for s in (1, 2)
    ]
    path = tmp_path / "last.pth"
    foreign.write_torch(path, {"state_dict": states[0], "state_dict_ema": states[1]})
    with open_checkpoint(path, ema=ema) as checkpoint:
        assert foreign.same_layers(foreign.random_layers("lite0", classes=2, seed=seed), checkpoint.layers)


def test_transposed_tensor_view_reads_its_values(tmp_path: Path) -> None:
    layers = foreign.random_layers("lite0", classes=10)
    state = foreign.state_dict("lite0", layers, "timm")
    state["classifier.weight"] = np.asfortranarray(state["classifier.weight"])
    description, storages = foreign.pickled_state(state)
    content = {key: array.tobytes(order="A") for key, array in storages.items()}
    path = tmp_path / "strided.pth"
    foreign.write_torch_zip(path, description, content)
    with open_checkpoint(path) as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)


@pytest.mark.parametrize("name", ["b0", "b3"])
@pytest.mark.parametrize("classifier", ["predictions", "probs"])
def test_legacy_h5_reads_with_either_name_of_its_classifier(
    tmp_path: Path, name: str, classifier: str
) -> None:
    layers = foreign.random_layers(name)
    foreign.write_legacy_h5(tmp_path / "legacy.h5", layers, classifier=classifier)
    with open_checkpoint(tmp_path / "legacy.h5") as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)


@pytest.mark.parametrize("kind", ["directory", "prefix", "index file", "data file"])
def test_tensorflow_checkpoint_opens_by_any_of_its_paths(tmp_path: Path, kind: str) -> None:
    layers = foreign.random_layers("lite0", classes=3)
    directory = foreign.write(tmp_path, "lite0", layers, "tensorflow")
    names = {
        "prefix": "model.ckpt",
        "index file": "model.ckpt.index",
        "data file": "model.ckpt.data-00000-of-00001",
    }
    with open_checkpoint(directory / names[kind] if kind in names else directory) as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)


def test_tensorflow_raw_variables_differ_from_averages_by_the_shift(tmp_path: Path) -> None:
    layers = foreign.random_layers("lite0", classes=3)
    directory = foreign.write(tmp_path, "lite0", layers, "tensorflow")
    raw = {layer: {key: value + np.float32(1) for key, value in w.items()} for layer, w in layers.items()}
    with open_checkpoint(directory, ema=False) as checkpoint:
        assert foreign.same_layers(raw, checkpoint.layers)


def test_tensorflow_checkpoint_without_averages_gives_its_variables(tmp_path: Path) -> None:
    layers = foreign.random_layers("lite0", classes=3)
    foreign.write_tensorflow(tmp_path / "model.ckpt", foreign.tensorflow_variables("lite0", layers))
    with open_checkpoint(tmp_path) as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)


def test_tensorflow_checkpoint_is_refused_when_one_average_is_missing(tmp_path: Path) -> None:
    layers = foreign.random_layers("lite0", classes=3)
    variables = foreign.with_training_state(foreign.tensorflow_variables("lite0", layers))
    del variables["efficientnet-lite0/head/dense/bias/ExponentialMovingAverage"]
    foreign.write_tensorflow(tmp_path / "model.ckpt", variables)
    with (
        pytest.raises(WeightsError, match=r"head/dense/bias' has no pair\. Pass ema=False"),
        open_checkpoint(tmp_path),
    ):
        pass


def test_directory_with_two_checkpoints_opens_the_one_its_state_names(tmp_path: Path) -> None:
    for step, seed in ((1, 1), (2, 2)):
        layers = foreign.random_layers("lite0", classes=2, seed=seed)
        variables = foreign.tensorflow_variables("lite0", layers)
        foreign.write_tensorflow(tmp_path / f"model.ckpt-{step}", variables)
    with (
        pytest.raises(WeightsError, match=r"with 2 of them\. Pass the prefix of one"),
        open_checkpoint(tmp_path),
    ):
        pass
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-1"\n')
    with open_checkpoint(tmp_path) as checkpoint:
        assert foreign.same_layers(foreign.random_layers("lite0", classes=2, seed=1), checkpoint.layers)


def test_own_table_reader_agrees_with_tensorflow_on_every_variable(tmp_path: Path) -> None:
    import tensorflow as tf

    directory = foreign.write(tmp_path, "lite0", foreign.random_layers("lite0", classes=4), "tensorflow")
    theirs = tf.train.load_checkpoint(str(directory / "model.ckpt"))
    ours = tensorflow.read_variables(directory / "model.ckpt")
    assert set(ours) == set(theirs.get_variable_to_shape_map())
    assert all(np.array_equal(array.read(), theirs.get_tensor(name)) for name, array in ours.items())


@pytest.mark.parametrize("dtype", ["<f2", "<f8"])
def test_other_float_types_are_read_as_they_are(tmp_path: Path, dtype: str) -> None:
    layers = foreign.random_layers("lite0", classes=2)
    cast = {layer: {key: value.astype(dtype) for key, value in w.items()} for layer, w in layers.items()}
    for kind in ("timm", "safetensors"):
        with open_checkpoint(foreign.write(tmp_path, "lite0", cast, kind)) as checkpoint:
            assert foreign.same_layers(cast, checkpoint.layers)


def test_missing_file_is_named_with_the_readable_formats(tmp_path: Path) -> None:
    with (
        pytest.raises(WeightsError, match=r"nowhere\.pth'\. Received: no such file.*safetensors"),
        open_checkpoint(tmp_path / "nowhere.pth"),
    ):
        pass


def test_unknown_content_is_refused_with_the_readable_formats(tmp_path: Path) -> None:
    path = tmp_path / "notes.h5"
    path.write_text("not a weight file")
    with pytest.raises(WeightsError, match=r"of 17 bytes, which is none of these"), open_checkpoint(path):
        pass
