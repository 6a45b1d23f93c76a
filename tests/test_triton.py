"""`bundle triton`: a repository that the real server takes, and what its clients get, good and bad."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import triton_server
from material import ROOT, assert_refused, build_colours, encoded, exif
from PIL import Image

from keras_effnet import export, transfer
from keras_effnet.cli import main
from keras_effnet.export.bundles.triton import MAX_BYTES, READER

pytest.importorskip("onnxruntime")
NAME = "brightness"


@pytest.fixture(scope="module")
def repository(brightness: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the network that tells bright pictures from dark ones."""
    out = tmp_path_factory.mktemp("bundle") / "model_repository"
    assert main(["bundle", "triton", str(brightness), "--instances", "1", "--out", str(out)]) == 0
    return out


def _content(value: int) -> bytes:
    return encoded(Image.new("RGB", (48, 40), (value,) * 3), "JPEG", exif=exif(6))


def test_configurations_are_what_triton_s_own_protobuf_understands(repository: Path) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    protobuf = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    found = {
        path.parent.name: text_format.Parse(path.read_text(encoding="utf-8"), protobuf.ModelConfig())
        for path in sorted(repository.glob("*/config.pbtxt"))
    }
    pictures, tensors = found[NAME], found[f"{NAME}_tensor"]
    assert (pictures.backend, tensors.backend) == ("python", "onnxruntime")
    assert [(each.name, list(each.dims)) for each in pictures.output] == [
        ("label", [2]),
        ("probability", [2]),
        ("class_index", [2]),
        ("accepted", [2]),
        ("none_of_these", [1]),
        ("error", [1]),
    ]
    assert [(each.name, list(each.dims)) for each in tensors.input] == [("image", [3, 32, 32])]
    assert tensors.output[0].label_filename == "labels.txt"
    assert (repository / f"{NAME}_tensor" / "labels.txt").read_text() == "dark\nbright\n"
    for each in found.values():
        assert each.max_batch_size == 8 and each.instance_group[0].count == 1 and each.model_warmup
        assert each.dynamic_batching.max_queue_delay_microseconds == 2000


def test_repository_reads_photographs_with_the_same_code_and_nothing_else_of_ours(
    repository: Path, tmp_path: Path
) -> None:
    place = repository / NAME / "1"
    for source in READER:
        assert (place / "keras_effnet" / source).read_bytes() == (ROOT / "keras_effnet" / source).read_bytes()
    (tmp_path / "x.jpg").write_bytes(_content(100))
    code = (
        f"import sys; sys.path.insert(0, {str(place)!r}); sys.dont_write_bytecode = True\n"
        "from keras_effnet.pictures import framing\nassert framing.__file__.startswith(sys.path[0])\n"
        f"print(framing.Framing().read({str(tmp_path / 'x.jpg')!r}, 32).mean())\n"
        "print([name for name in ('keras', 'tensorflow', 'h5py') if name in sys.modules])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert ran.stdout.split() == ["100.0", "[]"]


def test_what_triton_cannot_serve_is_one_line(brightness: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "x.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    out = ["--out", str(tmp_path / "out")]
    bundle = ["bundle", "triton"]
    assert_refused([*bundle, str(tmp_path / "x.tflite"), *out], "Expected ONNX files for Triton", capsys)
    assert_refused([*bundle, str(tmp_path / "no.onnx"), *out], "no.onnx', which does not exist", capsys)
    run = tmp_path / "run" / "export"
    run.mkdir(parents=True)
    (run / "a.onnx").touch()
    assert_refused([*bundle, str(run.parent), *out], "is a folder. Pass one of", capsys)
    for name in ("../elsewhere", "a b", '"'):
        assert_refused([*bundle, str(brightness), *out, "--name", name], f"Received: {name!r}", capsys)
    twice = [str(brightness), str(brightness)]
    assert_refused([*bundle, *twice, *out], "Expected a name of its own for each model", capsys)
    assert_refused([*bundle, str(brightness), *out, "--instances", "0"], "of at least 1", capsys)
    assert not (tmp_path / "out").exists()


# asks the model file as Triton's Python backend does, of which it sees nothing but these three
_BACKEND = """
import importlib.util, json, sys, types
from pathlib import Path
import numpy as np
utils = types.ModuleType("triton_python_backend_utils")
utils.Tensor = lambda name, value: (name, value)
utils.InferenceResponse = dict
utils.get_input_tensor_by_name = lambda request, name: types.SimpleNamespace(as_numpy=lambda: request)
sys.modules[utils.__name__] = utils
folder = Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
limits = {"max_bytes": {"string_value": "100000"}, "max_pixels": {"string_value": "100000"}}
model = module.TritonPythonModel()
model.initialize({"model_repository": str(folder), "model_version": "1", "model_instance_kind": "CPU",
                  "model_config": json.dumps({"parameters": limits})})
request = np.array([Path(name).read_bytes() for name in sys.argv[2:]], object)[:, np.newaxis]
(answer,) = model.execute([request])
print(json.dumps({name: value.tolist() for name, value in answer.items()}))
"""


def _answered(model: Any, folder: Path, colours: list[tuple[int, int, int]]) -> Any:
    """What the bundle's model file says of pictures of one colour, and of a text, and its configuration."""
    file = export.to_onnx(model, folder / "colours.onnx")
    assert main(["bundle", "triton", str(file), "--out", str(folder / "repository")]) == 0
    names = []
    for number, colour in enumerate(colours):
        names.append(str(folder / f"{number}.png"))
        Image.new("RGB", (40, 36), colour).save(names[-1])
    (folder / "text.png").write_bytes(b"text")
    command = [sys.executable, "-c", _BACKEND, str(folder / "repository" / "colours"), *names]
    ran = subprocess.run([*command, str(folder / "text.png")], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout), (folder / "repository" / "colours" / "config.pbtxt").read_text()


def test_model_file_says_none_of_these_below_the_threshold(tmp_path: Path) -> None:
    model = build_colours(8 * np.eye(3)[::-1], [0, 0, 0], "softmax", ("blue", "green", "red"))
    answer, config = _answered(transfer.with_thresholds(model, 0.6), tmp_path, [(255, 0, 0), (120, 110, 100)])
    assert answer["none_of_these"] == [[False], [True], [False]]  # the last one is no picture
    assert answer["accepted"] == [[True, False, False], [False] * 3, [False] * 3]
    assert [row[0] for row in answer["label"]] == ["red", "red", ""]  # the nearest
    assert answer["class_index"][2] == [-1, -1, -1] and answer["error"][2] != [""]
    assert 'name: "accepted" data_type: TYPE_BOOL dims: [ 3 ]' in config


def test_model_file_tells_every_accepted_label_of_a_network_of_several(tmp_path: Path) -> None:
    names = ("blue", "green", "red", *(f"red {number}" for number in range(5)))
    kernel = np.concatenate([16 * np.eye(3)[::-1], np.array([[16] * 5, [0] * 5, [0] * 5])], axis=1)
    model = build_colours(kernel, [-8] * 8, "sigmoid", names)
    thresholds = [0.5, 0.9999, 0.5, *[0.5] * 5]
    answer, config = _answered(
        transfer.with_thresholds(model, thresholds), tmp_path, [(255, 255, 0), (0, 0, 0)]
    )
    assert 'name: "label" data_type: TYPE_STRING dims: [ -1 ]' in config
    told = [
        [label for label, fits in zip(labels, accepted, strict=True) if fits]
        for labels, accepted in zip(answer["label"], answer["accepted"], strict=True)
    ]
    assert sorted(told[0]) == sorted(names[2:]) and told[1:] == [
        [],
        [],
    ]  # six, and green misses its threshold
    assert answer["none_of_these"] == [[False], [True], [False]]


def test_model_file_accepts_a_single_sigmoid_on_either_side(tmp_path: Path) -> None:
    model = build_colours([[16], [0], [0]], [-8], "sigmoid", ("other", "red"))
    answer, _ = _answered(
        transfer.with_thresholds(model, 0.9), tmp_path, [(255, 0, 0), (0, 0, 9), (128, 0, 0)]
    )
    assert [row[0] for row in answer["label"][:2]] == ["red", "other"]
    assert answer["none_of_these"] == [[False], [False], [True], [False]]


@dataclass(frozen=True)
class _Running:
    server: triton_server.Server
    repository: Path


@pytest.fixture(scope="module")
def running(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Running]:
    """The real server with the model that takes photographs; its wheel has no ONNX Runtime backend."""
    if triton_server.binary() is None:
        pytest.skip("build/triton holds no Triton server: see triton_server.py")
    pytest.importorskip("tritonclient")
    folder = tmp_path_factory.mktemp("triton")
    shutil.copytree(repository / NAME, folder / "repository" / NAME)
    options = ("--model-control-mode=explicit", f"--load-model={NAME}")
    with triton_server.serving(folder / "repository", folder, options=options) as server:
        yield _Running(server, folder / "repository")


def _asked(running: _Running, contents: list[bytes], protocol: str = "http") -> Any:
    """What a new client gets for a batch."""
    module = pytest.importorskip(f"tritonclient.{protocol}")
    with module.InferenceServerClient(getattr(running.server, protocol)) as client:
        entry = module.InferInput("image", [len(contents), 1], "BYTES")
        entry.set_data_from_numpy(np.array(contents, object)[:, np.newaxis])
        return client.infer(NAME, [entry])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_server_answers_what_predict_does(
    running: _Running, protocol: str, brightness: Path, tmp_path: Path
) -> None:
    for value in (30, 220):
        (tmp_path / f"{value}.jpg").write_bytes(_content(value))
    rows = list(export.score(brightness, sorted(tmp_path.glob("*.jpg"))))
    answer = _asked(running, [path.read_bytes() for path in sorted(tmp_path.glob("*.jpg"))], protocol)
    for index, row in enumerate(rows):
        told = [guess["label"].encode() for guess in row["predictions"]]
        assert answer.as_numpy("label")[index].tolist() == told
        np.testing.assert_allclose(
            answer.as_numpy("probability")[index],
            [guess["probability"] for guess in row["predictions"]],
            atol=1e-6,
        )


def test_file_as_the_whole_body_is_answered(running: _Running) -> None:
    request = urllib.request.Request(
        f"http://{running.server.http}/v2/models/{NAME}/infer",
        data=_content(220),
        headers={"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        assert b"bright" in response.read()


def test_bad_picture_costs_only_its_own_answer(running: _Running) -> None:
    bomb = encoded(Image.new("1", (13_000, 13_000)), "PNG")
    good = _content(220)
    cut = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)), "JPEG")
    answer = _asked(running, [b"", b"text", bomb, good, cut[: len(cut) // 2], bytes(MAX_BYTES + 1)])
    errors = [error.decode() for error in answer.as_numpy("error").ravel()]
    for error, said in zip(
        errors,
        ["empty file", "no picture", "more than the limit", "", "truncated", "at most 20971520 bytes"],
        strict=True,
    ):
        assert said in error and bool(said) == bool(error)
    assert answer.as_numpy("label")[:, 0].tolist() == [b"", b"", b"", b"bright", b"", b""]
    assert answer.as_numpy("class_index")[:, 0].tolist() == [-1, -1, -1, 1, -1, -1]


def test_malformed_bodies_and_a_client_that_dies_hurt_nobody_else(running: _Running) -> None:
    host, port = running.server.http.split(":")
    path = f"/v2/models/{NAME}/infer"
    for body in (b"{", json.dumps({"inputs": []}).encode(), b"\xff" * 1000):
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("POST", path, body)
        assert connection.getresponse().status in (400, 500)  # the server's own word
        connection.close()
    with socket.create_connection((host, int(port))) as dying:
        dying.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode() + bytes(1000)
        )
    assert (
        _asked(running, [bytes(50 * 2**20)])
        .as_numpy("error")
        .ravel()[0]
        .startswith(b"Expected a picture of at most")
    )
    assert _asked(running, [_content(220)]).as_numpy("label")[0, 0] == b"bright"


def test_second_version_takes_over_under_load_without_a_failed_request(
    running: _Running, brightness: Path
) -> None:
    """Eight clients ask all the time; the second version calls its classes otherwise."""
    module = pytest.importorskip("tritonclient.http")
    enough = threading.Event()

    def ask(_: int) -> list[bytes]:
        found = []
        while not enough.is_set():
            found.append(_asked(running, [_content(220)]).as_numpy("label")[0, 0])
        return found

    with ThreadPoolExecutor(8) as clients, module.InferenceServerClient(running.server.http) as client:
        asked = [clients.submit(ask, number) for number in range(8)]
        try:
            second = running.repository.parent / "next"
            command = [
                "bundle",
                "triton",
                str(brightness),
                "--name",
                NAME,
                "--model-version",
                "2",
                "--out",
                str(second),
            ]
            assert main(command) == 0
            (second / NAME / "2" / "labels.txt").write_text("night\nday\n")
            shutil.move(second / NAME / "2", running.repository / NAME / "2")
            client.load_model(NAME)
            answer = _asked(running, [_content(220)])
        finally:
            enough.set()
        found = [label for each in asked for label in each.result()]
    assert answer.as_numpy("label")[0, 0] == b"day" and answer.get_response()["model_version"] == "2"
    assert set(found) <= {b"bright", b"day"} and len(found) > 16
