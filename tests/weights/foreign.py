"""Weight files as other projects write them, made here without those projects.

The names are written out from the architecture, independently of `keras_effnet.weights.naming`, so a
mistake would have to be made twice to go unseen. `test_peers.py` compares with the projects' own code.
"""

from __future__ import annotations

import json
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from keras_effnet.network.table import Architecture, Block
from keras_effnet.network.variants import VARIANTS, Variant, architecture_of, get_variant

Layers = dict[str, dict[str, np.ndarray]]
FORMATS = ("timm", "lukemelas", "torchvision", "safetensors", "tensorflow")


def random_layers(
    name: str, *, classes: int = 1000, top: bool = True, seed: int = 0, channels: int = 3
) -> Layers:
    """Random weights and batch normalization statistics for every layer of a published variant."""
    return random_layers_of(VARIANTS[name], classes=classes, top=top, seed=seed, channels=channels)


def random_layers_of(
    variant: Variant, *, classes: int = 1000, top: bool = True, seed: int = 0, channels: int = 3
) -> Layers:
    """The same for a variant of one's own."""
    architecture = architecture_of(variant)
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1)

    def norm(filters: int) -> dict[str, np.ndarray]:
        return {
            "gamma": 1 + numbers(filters),
            "beta": numbers(filters),
            "moving_mean": numbers(filters),
            "moving_variance": 1 + np.abs(numbers(filters)),
        }

    layers: Layers = {
        "stem_conv": {"kernel": numbers(3, 3, channels, architecture.stem_filters)},
        "stem_bn": norm(architecture.stem_filters),
    }
    for block in architecture.blocks:
        inside = block.filters_in * block.expand_ratio
        if block.expand_ratio != 1:
            layers[f"{block.name}_expand_conv"] = {"kernel": numbers(1, 1, block.filters_in, inside)}
            layers[f"{block.name}_expand_bn"] = norm(inside)
        layers[f"{block.name}_dwconv"] = {"kernel": numbers(block.kernel_size, block.kernel_size, inside, 1)}
        layers[f"{block.name}_bn"] = norm(inside)
        if block.se_ratio:
            reduced = max(1, int(block.filters_in * block.se_ratio))
            layers[f"{block.name}_se_reduce"] = {
                "kernel": numbers(1, 1, inside, reduced),
                "bias": numbers(reduced),
            }
            layers[f"{block.name}_se_expand"] = {
                "kernel": numbers(1, 1, reduced, inside),
                "bias": numbers(inside),
            }
        layers[f"{block.name}_project_conv"] = {"kernel": numbers(1, 1, inside, block.filters_out)}
        layers[f"{block.name}_project_bn"] = norm(block.filters_out)
    layers["top_conv"] = {
        "kernel": numbers(1, 1, architecture.blocks[-1].filters_out, architecture.top_filters)
    }
    layers["top_bn"] = norm(architecture.top_filters)
    if top:
        layers["predictions"] = {
            "kernel": numbers(architecture.top_filters, classes),
            "bias": numbers(classes),
        }
    return layers


def _stages(architecture: Architecture) -> Iterator[tuple[int, int, int, Block]]:
    """Number, stage and position of each block, all from 0, read off its name."""
    for number, block in enumerate(architecture.blocks):
        yield number, int(block.name[5]) - 1, ord(block.name[6:]) - ord("a"), block


def timm_modules(architecture: Architecture) -> dict[str, str]:
    """timm's module → layer."""
    modules = {"conv_stem": "stem_conv", "bn1": "stem_bn"}
    for _, stage, position, block in _stages(architecture):
        there, here = f"blocks.{stage}.{position}", block.name
        names = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
        if block.expand_ratio == 1:
            names = ["", "", "conv_dw", "bn1", "conv_pw", "bn2"]
        parts = ("expand_conv", "expand_bn", "dwconv", "bn", "project_conv", "project_bn")
        modules.update({f"{there}.{n}": f"{here}_{part}" for n, part in zip(names, parts, strict=True) if n})
        if block.se_ratio:
            modules[f"{there}.se.conv_reduce"] = f"{here}_se_reduce"
            modules[f"{there}.se.conv_expand"] = f"{here}_se_expand"
    return modules | {"conv_head": "top_conv", "bn2": "top_bn", "classifier": "predictions"}


def lukemelas_modules(architecture: Architecture) -> dict[str, str]:
    """The module of efficientnet-pytorch → layer."""
    modules = {"_conv_stem": "stem_conv", "_bn0": "stem_bn"}
    for number, _, _, block in _stages(architecture):
        there, here = f"_blocks.{number}", block.name
        if block.expand_ratio != 1:
            modules |= {f"{there}._expand_conv": f"{here}_expand_conv", f"{there}._bn0": f"{here}_expand_bn"}
        modules |= {f"{there}._depthwise_conv": f"{here}_dwconv", f"{there}._bn1": f"{here}_bn"}
        if block.se_ratio:
            modules |= {
                f"{there}._se_reduce": f"{here}_se_reduce",
                f"{there}._se_expand": f"{here}_se_expand",
            }
        modules |= {f"{there}._project_conv": f"{here}_project_conv", f"{there}._bn2": f"{here}_project_bn"}
    return modules | {"_conv_head": "top_conv", "_bn1": "top_bn", "_fc": "predictions"}


def torchvision_modules(architecture: Architecture) -> dict[str, str]:
    """torchvision's module → layer."""
    modules = {"features.0.0": "stem_conv", "features.0.1": "stem_bn"}
    for _, stage, position, block in _stages(architecture):
        there, here = f"features.{stage + 1}.{position}.block", block.name
        step = 0
        if block.expand_ratio != 1:
            modules |= {f"{there}.0.0": f"{here}_expand_conv", f"{there}.0.1": f"{here}_expand_bn"}
            step += 1
        modules |= {f"{there}.{step}.0": f"{here}_dwconv", f"{there}.{step}.1": f"{here}_bn"}
        step += 1
        if block.se_ratio:
            modules |= {
                f"{there}.{step}.fc1": f"{here}_se_reduce",
                f"{there}.{step}.fc2": f"{here}_se_expand",
            }
            step += 1
        modules |= {f"{there}.{step}.0": f"{here}_project_conv", f"{there}.{step}.1": f"{here}_project_bn"}
    return modules | {"features.8.0": "top_conv", "features.8.1": "top_bn", "classifier.1": "predictions"}


TORCH_MODULES = {"timm": timm_modules, "lukemelas": lukemelas_modules, "torchvision": torchvision_modules}


def state_dict(name: str | Variant, layers: Layers, naming: str) -> dict[str, np.ndarray]:
    """The weights as a PyTorch state dict would hold them, counters included."""
    state: dict[str, np.ndarray] = {}
    for module, layer in TORCH_MODULES[naming](architecture_of(get_variant(name))).items():
        weights = layers.get(layer, {})
        if "gamma" in weights:
            keys = {
                "gamma": "weight",
                "beta": "bias",
                "moving_mean": "running_mean",
                "moving_variance": "running_var",
            }
            state |= {f"{module}.{keys[key]}": value for key, value in weights.items()}
            state[f"{module}.num_batches_tracked"] = np.array(7, dtype=np.int64)
            continue
        if "kernel" in weights:
            kernel = weights["kernel"]
            if kernel.ndim == 2:
                kernel = kernel.T
            elif layer.endswith("_dwconv"):
                kernel = np.moveaxis(kernel, (2, 3), (0, 1))
            else:
                kernel = np.moveaxis(kernel, (3, 2), (0, 1))
            state[f"{module}.weight"] = np.ascontiguousarray(kernel)
        if "bias" in weights:
            state[f"{module}.bias"] = weights["bias"]
    return state


def tensorflow_variables(name: str | Variant, layers: Layers) -> dict[str, np.ndarray]:
    """The reference's variable names → arrays, without averages."""
    variant = get_variant(name)
    model = f"efficientnet-{variant.name}"
    places = {
        "stem_conv": "stem/conv2d",
        "stem_bn": "stem/tpu_batch_normalization",
        "top_conv": "head/conv2d",
        "top_bn": "head/tpu_batch_normalization",
        "predictions": "head/dense",
    }
    for number, _, _, block in _stages(architecture_of(variant)):
        convs, norms = iter(("conv2d", "conv2d_1")), iter(("", "_1", "_2"))
        for part in (
            "expand_conv",
            "expand_bn",
            "dwconv",
            "bn",
            "se_reduce",
            "se_expand",
            "project_conv",
            "project_bn",
        ):
            if f"{block.name}_{part}" not in layers:
                continue
            if part.endswith("bn"):
                place = f"tpu_batch_normalization{next(norms)}"
            else:
                fixed = {"dwconv": "depthwise_conv2d", "se_reduce": "se/conv2d", "se_expand": "se/conv2d_1"}
                place = fixed.get(part) or next(convs)
            places[f"{block.name}_{part}"] = f"blocks_{number}/{place}"
    return {
        f"{model}/{places[layer]}/{'depthwise_kernel' if layer.endswith('_dwconv') else key}": value
        for layer, weights in layers.items()
        for key, value in weights.items()
    }


def write_tensorflow(prefix: Path, variables: Mapping[str, np.ndarray]) -> None:
    """A checkpoint written by TensorFlow itself under exactly these names."""
    import tensorflow as tf

    names = sorted(variables)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(variables[name]) for name in names],
    )


def with_training_state(variables: Mapping[str, np.ndarray], *, shift: float = 1.0) -> dict[str, np.ndarray]:
    """The variables as averages, raw values that differ from them, and an optimizer's slots."""
    found: dict[str, np.ndarray] = {"global_step": np.array(218_949, dtype=np.int64)}
    for name, value in variables.items():
        found[f"{name}/ExponentialMovingAverage"] = value
        found[name] = value + np.float32(shift)
        if name.endswith("/bias"):  # one kind of slot is enough, and saves disk
            found[f"{name}/RMSProp"] = np.ones_like(value)
            found[f"{name}/RMSProp_1"] = np.zeros_like(value)
    return found


def pickled_state(state: Mapping[str, Any], protocol: int = 2) -> tuple[bytes, dict[str, np.ndarray]]:
    """The pickle that `torch.save` writes for nested dictionaries of arrays, and its storages."""
    storages: dict[str, np.ndarray] = {}
    kinds = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage"}
    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}
    for kind in kinds.values():
        setattr(modules["torch"], kind, type(kind, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_: Any) -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    modules["torch._utils"]._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]

    class StorageStub:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

    class TensorStub:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __reduce__(self) -> tuple[Any, ...]:
            strides = tuple(step // self.array.itemsize for step in self.array.strides)
            stub = StorageStub(self.array)
            return _rebuild_tensor_v2, (stub, 0, self.array.shape, strides, False, OrderedDict())

    class Pickler(pickle._Pickler):  # the Python one asks sys.modules for the stubs
        # dill, which other people's packages bring along, puts functions of its own into the table of this class
        dispatch: ClassVar[dict[Any, Any]] = {
            **{kind: save for kind, save in pickle._Pickler.dispatch.items() if save.__module__ == "pickle"},
            types.FunctionType: pickle._Pickler.save_global,
        }

        def persistent_id(self, thing: Any) -> Any:
            if not isinstance(thing, StorageStub):
                return None
            key = str(len(storages))
            storages[key] = thing.array
            kind = getattr(modules["torch"], kinds[thing.array.dtype.str[1:]])
            return ("storage", kind, key, "cpu", thing.array.size)

    def wrapped(value: Any) -> Any:
        if isinstance(value, Mapping):
            return OrderedDict((key, wrapped(inner)) for key, inner in value.items())
        return TensorStub(value) if isinstance(value, np.ndarray) else value

    import io

    buffer = io.BytesIO()
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        Pickler(buffer, protocol).dump(wrapped(state))
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return buffer.getvalue(), storages


def write_torch(path: Path, state: Mapping[str, Any], *, protocol: int = 2) -> None:
    """A zip-format PyTorch checkpoint."""
    description, storages = pickled_state(state, protocol)
    write_torch_zip(path, description, {key: array.tobytes() for key, array in storages.items()})


def write_torch_legacy(path: Path, state: Mapping[str, Any]) -> None:
    """A PyTorch checkpoint as it was written before 1.6: pickles, then the storages."""
    description, storages = pickled_state(state)
    header = (
        0x1950A86A20F9469CFC6C,
        1001,
        {"protocol_version": 1001, "little_endian": True, "type_sizes": {}},
    )
    with path.open("wb") as file:
        for part in header:
            pickle.dump(part, file, 2)
        file.write(description)
        pickle.dump(list(storages), file, 2)
        for array in storages.values():
            file.write(struct.pack("<q", array.size) + array.tobytes())


def write_torch_zip(path: Path, description: bytes, storages: Mapping[str, bytes]) -> None:
    """The zip container around a pickle and its storages."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", description)
        archive.writestr("archive/byteorder", "little")
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", "3\n")


def write_safetensors(
    path: Path, state: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """A safetensors file, by hand."""
    names = {"f4": "F32", "f2": "F16", "f8": "F64", "i8": "I64"}
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    content = b""
    parts = []
    at = 0
    for name, array in state.items():
        kind = names[array.dtype.str[1:]]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        parts.append(array.tobytes())
        at += array.nbytes
    content = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + b"".join(parts))


def write_legacy_h5(path: Path, layers: Layers, *, classifier: str = "predictions") -> None:
    """The format of keras.applications' files; qubvel's call the classifier `probs`."""
    import h5py

    with h5py.File(path, "w") as file:
        renamed = {classifier if layer == "predictions" else layer: w for layer, w in layers.items()}
        file.attrs["layer_names"] = [name.encode() for name in ("input_1", *renamed, "top_activation")]
        for empty in ("input_1", "top_activation"):
            file.create_group(empty).attrs["weight_names"] = []
        for layer, weights in renamed.items():
            group = file.create_group(layer)
            keys = {key: "depthwise_kernel" if layer.endswith("_dwconv") else key for key in weights}
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in keys.values()]
            for key, value in weights.items():
                group[f"{layer}/{keys[key]}:0"] = value


def write_tar(path: Path, folder: Path) -> None:
    """The published form of a TensorFlow checkpoint."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(folder, arcname=folder.name)


def write(folder: Path, name: str, layers: Layers, kind: str) -> Path:
    """Write weights in a format of `FORMATS`, or `"tar"`; returns what `weights=` would get."""
    return write_of(folder, VARIANTS[name], layers, kind)


def write_of(folder: Path, variant: Variant, layers: Layers, kind: str) -> Path:
    """The same for a variant of one's own."""
    name = variant.name
    if kind in TORCH_MODULES:
        path = folder / f"{name}-{kind}.pth"
        write_torch(path, state_dict(variant, layers, kind))
        return path
    if kind == "safetensors":
        path = folder / f"{name}.safetensors"
        write_safetensors(path, state_dict(variant, layers, "timm"))
        return path
    directory = folder / f"efficientnet-{name}"
    write_tensorflow(directory / "model.ckpt", with_training_state(tensorflow_variables(variant, layers)))
    if kind == "tensorflow":
        return directory
    path = folder / f"efficientnet-{name}.tar.gz"
    write_tar(path, directory)
    return path


def same_layers(layers: Layers, found: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a reader returned exactly these layers, bit for bit."""
    return {layer: set(weights) for layer, weights in layers.items()} == {
        layer: set(weights) for layer, weights in found.items()
    } and all(
        np.array_equal(value, found[layer][key].read()) and found[layer][key].shape == value.shape
        for layer, weights in layers.items()
        for key, value in weights.items()
    )
