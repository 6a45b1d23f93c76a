"""A model repository of NVIDIA's Triton Inference Server, which speaks KServe's Open Inference Protocol (v2).

Each file becomes two models. `NAME` takes the bytes of photographs and answers names and scores, in the Python
backend; `NAME_tensor` takes pixels, in the ONNX Runtime backend.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError, require, require_installed
from keras_effnet.pictures.decoding import MAX_PIXELS
from keras_effnet.pictures.framing import Framing
from keras_effnet.pictures.labels import numbered_labels

from ..formats import ONNX, format_of
from ..kinds import SIGMOIDS
from ..runners import Runner, load

NAME = "triton"
HELP = "a model repository for NVIDIA's Triton Inference Server (KServe's v2 protocol)"
EXAMPLES = """\
  keras-effnet bundle triton out/lite0_float32.onnx --out model_repository
  keras-effnet bundle triton better.onnx --name lite0_float32 --model-version 2 --out next"""
TOP = 5
MAX_BYTES = 20 * 2**20  # of one picture
BATCH = 8
DELAY_US = 2000  # that a request waits for others, in microseconds
# the reader of photographs, what thresholds accept, and what these import: the same code as everywhere
READER = (
    "errors.py",
    "system/files.py",
    "pictures/decoding.py",
    "pictures/framing.py",
    "pictures/thresholds.py",
    "network/reader.py",
)
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_TYPES = {"tensor(float)": ("float32", "TYPE_FP32"), "tensor(float16)": ("float16", "TYPE_FP16")} | {
    "tensor(uint8)": ("uint8", "TYPE_UINT8")
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument("--name", help="of the models (default: the file's)")
    parser.add_argument(
        "--model-version", type=int, default=1, metavar="N", help="version folder (default: 1)"
    )
    parser.add_argument(
        "--instances",
        type=int,
        default=2,
        metavar="N",
        help="processes for each model, of one thread each: as many as cores (default: 2)",
    )


def check(arguments: argparse.Namespace) -> None:
    """Tell what is wrong with the files, as far as their names say."""
    require_installed("onnxruntime", "onnx")
    if min(arguments.model_version, arguments.instances) < 1:
        raise InvalidInputError(
            "Expected --model-version and --instances of at least 1. Received: "
            f"{arguments.model_version} and {arguments.instances}."
        )
    names = [arguments.name or file.stem for file in arguments.files]
    if unusable := [name for name in names if not _NAME.fullmatch(name)]:
        raise InvalidInputError(
            "Expected letters, digits, '-', '_' and '.' in a model's name, which is a folder in the repository and "
            f"part of its address. Received: {unusable[0]!r}. Pass --name."
        )
    for file in arguments.files:
        if format_of(file) != ONNX:
            raise InvalidInputError(
                f"Expected ONNX files for Triton. Received: {str(file)!r}. Make one with keras-effnet export "
                "--to onnx:float32."
            )
    if len(set(names)) < len(names):
        raise InvalidInputError(
            f"Expected a name of its own for each model. Received: {', '.join(names)}. Rename the files, or bundle "
            "them one by one with --name."
        )


def write(arguments: argparse.Namespace, folder: Path) -> None:
    """Two models for each file.

    Raises:
        InvalidInputError: a file that is no classifier with one square input and a free batch.
    """
    for file in arguments.files:
        served = _served(file)
        name = arguments.name or file.stem
        options = {"version": arguments.model_version, "instances": arguments.instances}
        _write_pictures(folder / name, name, served, **options)
        _write_tensors(folder / f"{name}_tensor", f"{name}_tensor", served, **options)


def next_step(out: Path) -> str:
    """How to start it."""
    return f"tritonserver --model-repository={shlex.quote(str(out))}    # in a container: docs/serving.md"


@dataclass(frozen=True, kw_only=True)
class _Served:
    """What a server must know of a file.

    Attributes:
        entry, dtype, triton_type: name of the input, and its type in NumPy's and in Triton's words.
        dims: of one picture's input, in the file's order.
        thresholds: how probable a class must be to be accepted: one for all or one for each; none accept all.
        several: whether as many labels are told of a picture as reach their thresholds.
    """

    file: Path
    framing: Framing
    size: int
    nchw: bool
    entry: str
    dtype: str
    triton_type: str
    dims: tuple[int, ...]
    output: str
    columns: int
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    several: bool

    @property
    def top(self) -> int:
        """How many classes are told of a picture, at least."""
        return min(TOP, len(self.labels))


def _served(file: Path) -> _Served:
    runner = load(file, threads=1)
    _check_served(runner)
    session = require("onnxruntime", "onnx").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    entry, output = session.get_inputs()[0], session.get_outputs()[0]
    dtype, triton_type = _TYPES[entry.type]
    columns = int(output.shape[-1])
    side = int(runner.size[0] or 0)
    return _Served(
        file=file,
        framing=runner.framing,
        size=side,
        nchw=int(entry.shape[1]) == runner.channels,
        entry=entry.name,
        dtype=dtype,
        triton_type=triton_type,
        dims=tuple(int(value) for value in entry.shape[1:]),
        output=output.name,
        columns=columns,
        labels=runner.labels or numbered_labels(columns),
        thresholds=runner.outputs[0].thresholds,
        several=runner.outputs[0].meaning is SIGMOIDS and bool(runner.outputs[0].thresholds),
    )


def _check_served(runner: Runner) -> None:
    kind = runner.outputs[0].meaning
    if len(runner.names) > 1 or not kind.has_labels:
        received = (
            f"{len(runner.names)} outputs" if len(runner.names) > 1 else f"an output of kind {kind.name}"
        )
        raise InvalidInputError(
            f"Expected a classifier with one output to serve. Received: {str(runner.path)!r} with {received}."
        )
    if runner.read is not None:
        raise InvalidInputError(
            f"Expected an ONNX file that takes pixels, which the bundle reads itself. Received: {str(runner.path)!r}, "
            "which takes the bytes of one picture. Export it without --onnx-input jpeg."
        )
    height, width = runner.size
    if not height or height != width or not runner.dynamic_batch:
        raise InvalidInputError(
            f"Expected an ONNX file of square pictures with a free batch. Received: {str(runner.path)!r} with "
            f"{height} × {width} pixels and a {'free' if runner.dynamic_batch else 'fixed'} batch. Export it again."
        )


def _write_pictures(folder: Path, name: str, served: _Served, *, version: int, instances: int) -> None:
    """The model that takes JPEG and PNG bytes."""
    place = folder / str(version)
    place.mkdir(parents=True)
    shutil.copyfile(served.file, place / "model.onnx")
    shutil.copyfile(Path(__file__).with_name("triton_model.py"), place / "model.py")
    for source in READER:
        copy = place / "keras_effnet" / source
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_package() / source, copy)
        for room in (copy.parent, place / "keras_effnet"):
            (room / "__init__.py").touch()
    reading: dict[str, Any] = {"framing": asdict(served.framing), "size": served.size}
    reading |= {"layout": "nchw" if served.nchw else "nhwc", "dtype": served.dtype, "top": served.top}
    reading |= {"thresholds": list(served.thresholds), "several": served.several}
    (place / "reading.json").write_text(json.dumps(reading, indent=1) + "\n", encoding="utf-8")
    (place / "labels.txt").write_text("\n".join(served.labels) + "\n", encoding="utf-8")
    (folder / "config.pbtxt").write_text(
        _PICTURES.format(
            name=name,
            batch=BATCH,
            width=-1 if served.several else served.top,
            delay=DELAY_US,
            instances=instances,
            max_bytes=MAX_BYTES,
            max_pixels=MAX_PIXELS,
        ),
        encoding="utf-8",
    )


def _write_tensors(folder: Path, name: str, served: _Served, *, version: int, instances: int) -> None:
    """The model that takes pixels 0–255."""
    place = folder / str(version)
    place.mkdir(parents=True)
    shutil.copyfile(served.file, place / "model.onnx")
    (folder / "labels.txt").write_text("\n".join(served.labels) + "\n", encoding="utf-8")
    (folder / "config.pbtxt").write_text(
        _TENSORS.format(
            name=name,
            batch=BATCH,
            delay=DELAY_US,
            instances=instances,
            entry=served.entry,
            type=served.triton_type,
            dims=", ".join(map(str, served.dims)),
            output=served.output,
            columns=served.columns,
        ),
        encoding="utf-8",
    )


def _package() -> Path:
    import keras_effnet

    return Path(keras_effnet.__file__).parent


_PICTURES = """\
# The bytes of a JPEG, PNG or other picture in; the best classes out, accepted ones first: those that reach their
# thresholds, or all where the network has none. A picture of which none is accepted shows "none_of_these". One that
# cannot be read has an "error", empty labels and class -1; its neighbours in the batch have their answers.
name: "{name}"
backend: "python"
max_batch_size: {batch}
input [ {{ name: "image" data_type: TYPE_STRING dims: [ 1 ] }} ]
output [
  {{ name: "label" data_type: TYPE_STRING dims: [ {width} ] }},
  {{ name: "probability" data_type: TYPE_FP32 dims: [ {width} ] }},
  {{ name: "class_index" data_type: TYPE_INT32 dims: [ {width} ] }},
  {{ name: "accepted" data_type: TYPE_BOOL dims: [ {width} ] }},
  {{ name: "none_of_these" data_type: TYPE_BOOL dims: [ 1 ] }},
  {{ name: "error" data_type: TYPE_STRING dims: [ 1 ] }}
]
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
instance_group [ {{ count: {instances} kind: KIND_CPU }} ]
version_policy {{ latest {{ num_versions: 1 }} }}
# what a single picture may have at most, in its file and decoded
parameters {{ key: "max_bytes" value {{ string_value: "{max_bytes}" }} }}
parameters {{ key: "max_pixels" value {{ string_value: "{max_pixels}" }} }}
# an empty file, which is refused only after the network has run
model_warmup [ {{
  name: "nothing" batch_size: 1
  inputs {{ key: "image" value {{ data_type: TYPE_STRING dims: [ 1 ] zero_data: true }} }}
}} ]
"""
_TENSORS = """\
# Pixels 0-255 in, already cropped as the network was judged; probabilities of all classes out.
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input [ {{ name: "{entry}" data_type: {type} dims: [ {dims} ] }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ {columns} ] label_filename: "labels.txt" }} ]
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
instance_group [ {{ count: {instances} kind: KIND_CPU }} ]
version_policy {{ latest {{ num_versions: 1 }} }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
model_warmup [ {{
  name: "noise" batch_size: 1
  inputs {{ key: "{entry}" value {{ data_type: {type} dims: [ {dims} ] random_data: true }} }}
}} ]
"""
