"""Files that want to run code, or to cost more than they weigh: refused, and nothing happens."""

from __future__ import annotations

import builtins
import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from keras_effnet.errors import WeightsError
from keras_effnet.weights.readers import open_checkpoint, pytorch, tensorflow, unpickler
from tests.weights import foreign


class Payload:
    """Runs something when it is unpickled by pickle itself."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.reduced


def payloads(marker: Path) -> dict[str, Payload]:
    touch = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Payload(os.system, touch),
        "builtins.eval": Payload(builtins.eval, code),
        "builtins.exec": Payload(builtins.exec, code),
        "subprocess": Payload(subprocess.call, touch, None, None),
        "import": Payload(builtins.__import__, "os"),
        "nested": Payload(tuple, [Payload(os.system, touch)]),
    }


PAYLOADS = tuple(payloads(Path("unused")))


def written(path: Path, payload: object, protocol: int, wrapper: str) -> Path:
    content = {"bare": payload, "state dict": {"conv_stem.weight": payload}, "list": [1, [payload]]}[wrapper]
    foreign.write_torch_zip(path, pickle.dumps(content, protocol), {})
    return path


@pytest.mark.parametrize("wrapper", ["bare", "state dict", "list"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", PAYLOADS)
def test_exploit_raises_and_runs_nothing(tmp_path: Path, name: str, protocol: int, wrapper: str) -> None:
    marker = tmp_path / "owned"
    path = written(tmp_path / "evil.pth", payloads(marker)[name], protocol, wrapper)
    with pytest.raises(WeightsError, match=r"asks for the Python object|damaged"), open_checkpoint(path):
        pass
    assert not marker.exists()


def test_exploits_of_this_file_do_run_under_plain_pickle(tmp_path: Path) -> None:
    marker = tmp_path / "owned"
    pickle.loads(pickle.dumps(payloads(marker)["os.system"]))
    assert marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch.serialization", "load"),
        ("collections", "OrderedDict.fromkeys"),
        ("numpy", "load"),
        ("keras_effnet.weights.readers.unpickler", "load"),
    ],
)
def test_name_outside_the_table_is_refused_by_name(tmp_path: Path, module: str, name: str) -> None:
    description = b"\x80\x04" + _text(module) + _text(name) + b"\x93."
    path = tmp_path / "names.pth"
    foreign.write_torch_zip(path, description, {})
    with pytest.raises(WeightsError, match=f"{module}.{name}, which was not loaded"), open_checkpoint(path):
        pass


def _text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def storage_pickle(
    count: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], key: str = "0"
) -> bytes:
    """A state dict of one tensor with these claims, in PyTorch's own opcodes."""

    def number(value: int) -> bytes:
        if value < 0 or value >= 2**31:
            return pickle.dumps(value, 2)[2:-1]
        return b"J" + struct.pack("<i", value)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(number(value) for value in values) + b"t"

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(count) + b"tQ"
    )
    arguments = (
        b"("
        + storage
        + number(offset)
        + numbers(shape)
        + numbers(strides)
        + b"\x89ccollections\nOrderedDict\n)Rt"
    )
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"
    return b"\x80\x02}" + text("conv_stem.weight") + tensor + b"s."


def test_handmade_pickle_reads_when_its_claims_are_true(tmp_path: Path) -> None:
    path = tmp_path / "true.pth"
    values = np.arange(6, dtype=np.float32)
    foreign.write_torch_zip(path, storage_pickle(6, 1, (2, 2), (2, 1)), {"0": values.tobytes()})
    array = pytorch.read_tensors(path)["conv_stem.weight"].read()
    assert array.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("count", "offset", "shape", "strides"),
    [
        (2**50, 0, (2,), (1,)),  # a storage that claims a huge size
        (10**12, 0, (10**12,), (1,)),
        (6, 5, (2, 2), (2, 1)),  # an offset past the end
        (6, 2**60, (1,), (1,)),
        (6, -1, (1,), (1,)),
        (6, 0, (10**9, 10**9), (0, 0)),  # strides that unfold one number into terabytes
        (6, 0, (3,), (-1,)),
        (6, 0, (1,) * 64, (1,) * 64),
        (7, 0, (7,), (1,)),  # one number more than the file has
    ],
)
def test_tensor_with_false_claims_is_refused(tmp_path: Path, count: int, offset: int, shape, strides) -> None:
    path = tmp_path / "claims.pth"
    foreign.write_torch_zip(path, storage_pickle(count, offset, shape, strides), {"0": bytes(24)})
    with pytest.raises(WeightsError, match="damaged"), open_checkpoint(path):
        pass


def test_memo_number_that_would_allocate_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memo.pth"
    foreign.write_torch_zip(path, b"\x80\x02}r\xff\xff\xff\x7f.", {})
    with pytest.raises(WeightsError, match="memo number 2147483647 in a pickle of"), open_checkpoint(path):
        pass


def test_state_that_rewrites_a_checked_tensor_is_refused(tmp_path: Path) -> None:
    tensor = storage_pickle(6, 0, (2,), (1,))
    description = tensor[:-2] + b"}X\x05\x00\x00\x00shapeJ\xff\xff\xff\x7f\x85sbs."
    path = tmp_path / "build.pth"
    foreign.write_torch_zip(path, description, {"0": bytes(24)})
    with pytest.raises(WeightsError, match="state for a Tensor"), open_checkpoint(path):
        pass


def test_description_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.pth"
    foreign.write_torch_zip(path, bytes(unpickler.MAX_PICKLE_BYTES + 1), {})
    with (
        pytest.raises(WeightsError, match=r"a description of at most 4,194,304 bytes.*4,194,305"),
        open_checkpoint(path),
    ):
        pass


def test_compressed_description_that_inflates_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(200 * 2**20))
    assert path.stat().st_size < 2**20
    with (
        pytest.raises(WeightsError, match=r"a description of at most 4,194,304 bytes.*209,715,200"),
        open_checkpoint(path),
    ):
        pass


def test_compressed_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", storage_pickle(10**8, 0, (10**8,), (1,)))
        archive.writestr("archive/data/0", bytes(4 * 10**7) * 10)
    with pytest.raises(WeightsError, match="missing, too short or compressed"), open_checkpoint(path):
        pass


def test_zip_with_a_giant_directory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "entries.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(45_000):
            archive.writestr(f"archive/data/{index:060d}/data.pkl", "")
    with pytest.raises(WeightsError, match="none of these"), open_checkpoint(path):
        pass


@pytest.mark.parametrize(
    "content", [pickle.dumps({"a": 1}, 2), b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + bytes(99)]
)
def test_legacy_container_is_refused_with_advice(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "old.pth"
    path.write_bytes(content)
    with (
        pytest.raises(
            WeightsError, match=r"before 1\.6.*weights_only=True\), new_path\) and load the new file"
        ),
        open_checkpoint(path),
    ):
        pass


def test_legacy_container_over_the_limit_is_refused_without_hashing(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "old.pth"
    with path.open("wb") as file:
        file.write(b"\x80\x02")
        file.truncate(pytorch.MAX_LEGACY_BYTES + 1)
    monkeypatch.setattr(pytorch, "recognize", None)
    with pytest.raises(WeightsError, match="536,870,913 bytes"), open_checkpoint(path):
        pass


def test_legacy_container_of_a_published_file_is_read(tmp_path: Path, monkeypatch) -> None:
    layers = foreign.random_layers("lite0", classes=3)
    path = tmp_path / "published.pth"
    foreign.write_torch_legacy(path, foreign.state_dict("lite0", layers, "timm"))
    monkeypatch.setattr(pytorch, "recognize", lambda _: "published")
    with open_checkpoint(path) as checkpoint:
        assert foreign.same_layers(layers, checkpoint.layers)


def test_legacy_exploit_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "owned"
    path = tmp_path / "old.pth"
    path.write_bytes(pickle.dumps(payloads(marker)["os.system"], 2))
    with pytest.raises(WeightsError), open_checkpoint(path):
        pass
    assert not marker.exists()


def test_legacy_exploit_is_refused_even_where_the_hash_is_that_of_a_published_file(
    tmp_path: Path, monkeypatch
) -> None:
    marker = tmp_path / "owned"
    path = tmp_path / "old.pth"
    path.write_bytes(pickle.dumps(payloads(marker)["os.system"], 2))
    monkeypatch.setattr(pytorch, "recognize", lambda _: "published")
    with pytest.raises(WeightsError, match="asks for the Python object"), open_checkpoint(path):
        pass
    assert not marker.exists()


def tar_with(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "hostile",
    [
        member("/etc/owned"),
        member("../owned"),
        member("a/../../owned"),
        member("C:\\owned"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "../../etc/passwd"),
        member("device", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name}-{info.type.decode()}",
)
def test_archive_member_that_leaves_the_folder_is_refused(tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    path = tar_with(tmp_path / "evil.tar.gz", (hostile, b""))
    target = tmp_path / "outer" / "inner"
    target.mkdir(parents=True)
    with pytest.raises(WeightsError, match=r"plain files that stay inside.*Do not trust this file"):
        tensorflow.unpack(path, target)
    assert [item for item in tmp_path.rglob("*") if item not in (path, target, target.parent)] == []


def test_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tensorflow, "FREE_BYTES", 2**20)
    path = tar_with(tmp_path / "bomb.tar.gz", (member("model.ckpt.index"), bytes(50 * 2**20)))
    with pytest.raises(WeightsError, match="unpacked content of at most"), open_checkpoint(path):
        pass


def test_archive_with_a_giant_header_is_refused_without_reading_it(tmp_path: Path) -> None:
    header = member("x", tarfile.XHDTYPE)
    header.size = 2**30
    path = tmp_path / "header.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(8 * 2**20))
    with pytest.raises(WeightsError, match="a header of 1073741824 bytes"), open_checkpoint(path):
        pass


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [10**9, 10**9]},
        {"shape": [-1]},
        {"shape": ["a"]},
        {"data_offsets": [0, 2**60]},
        {"data_offsets": [4, 8]},
        {"dtype": "STRING"},
    ],
    ids=str,
)
def test_safetensors_with_false_claims_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **change}
    header = json.dumps({"conv_stem.weight": entry}).encode()
    path = tmp_path / "claims.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(WeightsError, match="damaged"), open_checkpoint(path):
        pass


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-32-le"])
def test_safetensors_header_of_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    entry = {"conv_stem.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    header = json.dumps(entry).encode(encoding)
    path = tmp_path / "encoded.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(WeightsError, match="damaged"), open_checkpoint(path):
        pass


def test_safetensors_with_a_giant_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "header.safetensors"
    path.write_bytes(struct.pack("<Q", 2**31) + b"{" + bytes(100))
    with pytest.raises(WeightsError, match=r"a header of at most 4,194,304 bytes"), open_checkpoint(path):
        pass


def test_hdf5_data_set_in_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    path = _keras_file(
        tmp_path, lambda group: group.create_dataset("0", (16,), "f4", external=str(tmp_path / "secret"))
    )
    with pytest.raises(WeightsError, match="compressed, sparse or in another file"), open_checkpoint(path):
        pass


def test_hdf5_attribute_that_stops_the_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "attribute.h5"
    with h5py.File(path, "w") as file:  # a list of lists of bytes, where names belong
        values = np.empty(2, dtype=object)
        values[:] = [np.zeros(3, np.uint8), np.ones(4, np.uint8)]
        file.attrs.create("layer_names", values, dtype=h5py.vlen_dtype(np.uint8))
    with pytest.raises(WeightsError, match="attribute 'layer_names' is no text"), open_checkpoint(path):
        pass


def test_hdf5_link_to_another_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["numbers"] = np.zeros(4, "f4")
    path = _keras_file(
        tmp_path, lambda group: group.__setitem__("0", h5py.ExternalLink("other.h5", "numbers"))
    )
    with pytest.raises(WeightsError, match="a link instead of an array"), open_checkpoint(path):
        pass


def test_hdf5_data_set_that_claims_terabytes_is_refused(tmp_path: Path) -> None:
    path = _keras_file(tmp_path, lambda group: group.create_dataset("0", (2**40,), "f4", chunks=(1024,)))
    with pytest.raises(WeightsError, match="compressed, sparse"), open_checkpoint(path):
        pass


def _keras_file(folder: Path, fill: Callable[[h5py.Group], object]) -> Path:
    path = folder / "hostile.weights.h5"
    with h5py.File(path, "w") as file:
        fill(file.create_group("layers/conv2d/vars"))
    return path


def test_keras_archive_with_compressed_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10**7))
    with pytest.raises(WeightsError, match=r"model\.weights\.h5 is compressed"), open_checkpoint(path):
        pass


def test_keras_archive_with_code_in_its_config_never_reads_it(tmp_path: Path) -> None:
    marker = tmp_path / "owned"
    with h5py.File(tmp_path / "w.h5", "w") as file:
        vars_ = file.create_group("layers/dense/vars")
        vars_.attrs["name"] = "predictions"
        vars_["0"], vars_["1"] = np.zeros((2, 3), "f4"), np.zeros(3, "f4")
    path = tmp_path / "model.keras"
    config = {"class_name": "Lambda", "module": "os", "config": {"function": f"touch {marker}"}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.write(tmp_path / "w.h5", "model.weights.h5")
    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint.layers) == {"predictions"}
    assert not marker.exists()


@pytest.mark.parametrize("kind", foreign.FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    path = foreign.write(tmp_path, "lite0", foreign.random_layers("lite0", classes=2), kind)
    file = path / "model.ckpt.index" if path.is_dir() else path
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"damaged|truncated"), open_checkpoint(path):
        pass
