"""TFLite files: from Keras to float32, what the input and output mean, the labels, and the writing.

Layout and field numbers of the metadata follow `metadata_schema.fbs` (file identifier `M001`) of the TFLite
metadata specification, which Android's Task Library and MediaPipe read. The label file is appended
as a zip archive behind the model, as the specification wants it. Python's own writers for it need a
native module that their wheels do not ship.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

from keras_effnet.errors import ExportError, require
from keras_effnet.system.files import system_said
from keras_effnet.system.quiet import quiet_native
from keras_effnet.weights.checkpoint import METADATA_KEY

from .failures import converting, write_out
from .model_facts import INPUT_NAME, NO_PREPROCESSING, ModelFacts
from .outputs import LABELS_FILE, ONLY_OUTPUT, Output, by_name, labels_file

SIGNATURE = "serving_default"
METADATA_NAME = "TFLITE_METADATA"
OLD_CODES = 127  # the largest that the old field, of one byte, can hold; it stands for all above, too

_IMAGE_PROPERTIES, _NORMALIZATION, _SCORE_THRESHOLDING = 2, 1, 3  # members of the schema's unions
_RGB, _GRAYSCALE = 1, 2
_AXIS_LABELS = 2  # AssociatedFileType.TENSOR_AXIS_LABELS


def convert_float(model: Any, shape: tuple[int, int, int], names: Sequence[str] = (ONLY_OUTPUT,)) -> bytes:
    """The float32 file of a Keras model, with a batch of one picture of this (height, width, channels).

    Args:
        names: of its outputs, in their order.

    Raises:
        ExportError: the converter failed, or the folder for temporary files is full.
    """
    import keras
    import tensorflow as tf

    def serve(image: Any) -> dict[str, Any]:
        made = by_name(names, model(image, training=False))
        return {name: tf.cast(value, tf.float32) for name, value in made.items()}

    with tempfile.TemporaryDirectory() as folder, converting(model.name, "TFLite"):
        archive = keras.export.ExportArchive()
        archive.add_endpoint(SIGNATURE, serve, [tf.TensorSpec((1, *shape), tf.float32, name=INPUT_NAME)])
        try:
            write_out(archive, Path(folder))
        except OSError as error:
            raise ExportError(
                f"Expected room for a SavedModel in {str(Path(folder).parent)!r}, which the converter reads. "
                f"The system said: {system_said(error)}. Free some space, or set TMPDIR to another disk."
            ) from error
        with quiet_native():
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
            return bytes(converter.convert())


def write(content: bytes, path: Path, facts: ModelFacts) -> None:
    """Write a bare TFLite model with its metadata and labels."""
    from ai_edge_litert import schema_py_generated as schema

    model = unpack(content)
    model.description = b"keras_effnet"
    for name, data in (
        (METADATA_NAME, _model_metadata(facts, _in_file_order(model, facts))),
        (METADATA_KEY, facts.info.to_json().encode()),
    ):
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(data, np.uint8)
        entry = schema.MetadataT()
        entry.name = name.encode()
        entry.buffer = len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
    path.write_bytes(pack(model))
    if labelled := [output for output in facts.outputs if output.labels]:
        with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
            for output in labelled:
                # a fixed time keeps the file the same for the same model
                member = zipfile.ZipInfo(labels_file(output, facts.outputs), date_time=(1980, 1, 1, 0, 0, 0))
                archive.writestr(member, "\n".join(output.labels) + "\n")


def _in_file_order(model: Any, facts: ModelFacts) -> list[Output]:
    """The outputs in the order in which a file has their tensors, as its metadata must have them."""
    if len(facts.outputs) == 1:
        return list(facts.outputs)
    by_tensor = {int(entry.tensorIndex): entry.name.decode() for entry in model.signatureDefs[0].outputs}
    known = {output.name: output for output in facts.outputs}
    return [known[by_tensor[int(index)]] for index in model.subgraphs[0].outputs]


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels behind a TFLite model; empty when it has none."""
    if not zipfile.is_zipfile(path):
        return ()
    with zipfile.ZipFile(path) as archive:
        if LABELS_FILE not in archive.namelist():
            return ()
        return tuple(archive.read(LABELS_FILE).decode("utf-8").splitlines())


def read_info(path: Path) -> str | None:
    """The JSON that `write` left in the file, or None."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry is not None and entry.Name() == METADATA_KEY.encode():
            return bytes(model.Buffers(entry.Buffer()).DataAsNumpy()).decode("utf-8")
    return None


def _model_metadata(facts: ModelFacts, outputs: Sequence[Output]) -> bytes:
    build = flatbuffers.Builder(1024)
    image = _tensor(
        build,
        "image",
        facts.info.usage,
        content=_image_content(build, facts),
        # raw pixels go in: the normalization that a reader must apply is the identity
        process_unit=_identity(build),
        # nobody knows the range of pixels that were preprocessed outside
        stats=None if facts.info.preprocessing == NO_PREPROCESSING else _stats(build, 0.0, 255.0),
    )
    given = [_output(build, output, facts) for output in outputs]
    subgraph = _table(build, 10, {2: _vector(build, [image]), 3: _vector(build, given)})
    root = _table(
        build,
        8,
        {
            0: build.CreateString(facts.info.name),
            1: build.CreateString(f"{facts.info.name}, recipe {facts.info.recipe}"),
            3: _vector(build, [subgraph]),
            7: build.CreateString("1.0.0"),
        },
    )
    build.Finish(root, b"M001")
    return bytes(build.Output())


def _output(build: Any, output: Output, facts: ModelFacts) -> int:
    """What a client may know of an output: its values' range and their names only where it has them."""
    kind = output.meaning
    files = [_associated_file(build, labels_file(output, facts.outputs))] if output.labels else []
    # the signature calls a single output of any kind by one name
    name = kind.name if output.name == ONLY_OUTPUT and not kind.is_probability else output.name
    return _tensor(
        build,
        name,
        kind.words,
        stats=_stats(build, 0.0, 1.0) if kind.is_probability else None,
        # clients of the schema know one threshold for all columns; both sides of a sigmoid are not in one
        process_unit=_threshold(build, *output.thresholds)
        if len(output.thresholds) == 1 and kind.name != "sigmoid"
        else None,
        files=_vector(build, files) if files else None,
    )


def _tensor(
    build: Any,
    name: str,
    description: str,
    *,
    stats: int | None,
    content: int | None = None,
    process_unit: int | None = None,
    files: int | None = None,
) -> int:
    fields: dict[int, int | None] = {
        0: build.CreateString(name),
        1: build.CreateString(description),
        3: content,
        4: _vector(build, [process_unit]) if process_unit is not None else None,
        5: stats,
        6: files,
    }
    return _table(build, 7, {slot: offset for slot, offset in fields.items() if offset is not None})


def _image_content(build: Any, facts: ModelFacts) -> int:
    size = _table(
        build,
        2,
        {},
        lambda: (build.PrependUint32Slot(0, facts.width, 0), build.PrependUint32Slot(1, facts.height, 0)),
    )
    color = _GRAYSCALE if facts.channels == 1 else _RGB
    properties = _table(build, 2, {1: size}, lambda: build.PrependInt8Slot(0, color, 0))
    return _table(build, 3, {1: properties}, lambda: build.PrependUint8Slot(0, _IMAGE_PROPERTIES, 0))


def _identity(build: Any) -> int:
    options = _table(build, 2, {0: _floats(build, [0.0]), 1: _floats(build, [1.0])})
    return _process_unit(build, options, _NORMALIZATION)


def _threshold(build: Any, least: float) -> int:
    """The score below which a client leaves a class out."""
    options = _table(build, 1, {}, lambda: build.PrependFloat32Slot(0, least, 0.0))
    return _process_unit(build, options, _SCORE_THRESHOLDING)


def _process_unit(build: Any, options: int, kind: int) -> int:
    return _table(build, 2, {1: options}, lambda: build.PrependUint8Slot(0, kind, 0))


def _stats(build: Any, low: float, high: float) -> int:
    return _table(build, 2, {0: _floats(build, [high]), 1: _floats(build, [low])})


def _associated_file(build: Any, name: str) -> int:
    fields = {0: build.CreateString(name), 1: build.CreateString("class names, one per line")}
    return _table(build, 5, fields, lambda: build.PrependInt8Slot(2, _AXIS_LABELS, 0))


def _table(
    build: Any, slots: int, offsets: dict[int, int], scalars: Callable[[], object] | None = None
) -> int:
    """One flatbuffer table. Everything that `offsets` points to must exist already."""
    build.StartObject(slots)
    if scalars is not None:
        scalars()
    for slot, offset in offsets.items():
        build.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return int(build.EndObject())


def _vector(build: Any, offsets: Sequence[int]) -> int:
    build.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        build.PrependUOffsetTRelative(offset)
    return int(build.EndVector())


def _floats(build: Any, values: Sequence[float]) -> int:
    build.StartVector(4, len(values), 4)
    for value in reversed(values):
        build.PrependFloat32(value)
    return int(build.EndVector())


class _SharingBuilder(flatbuffers.Builder):  # the names are those of flatbuffers
    """A builder that writes each distinct vector of numbers once.

    An integer file has a scale and a zero point for every output channel of every kernel and of every
    bias. The zero points are all 0 and take eight bytes each; two vectors with the same content can be
    one, which a flatbuffer's readers do not notice. It saves 9 % of an integer EfficientNet.
    """

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: Any) -> int:  # noqa: N802
        array = np.asarray(x)
        key = (array.dtype.str, array.tobytes())
        if key not in self._written:
            self._written[key] = int(super().CreateNumpyVector(array))
        return self._written[key]


def unpack(content: bytes) -> Any:
    """A file as a `ModelT` of the schema's object API, to be read, or changed and packed again.

    Buffers that the quantizer had put behind the flatbuffer are taken inside: they are addressed by their place in
    the file, which moves. They are arrays, which `pack` writes at once and not byte by byte.
    """
    utils = require("ai_edge_litert.tools.flatbuffer_utils", "tflite")
    model = utils.convert_bytearray_to_object(bytearray(content))
    for buffer in model.buffers:
        if buffer.offset > 1:  # 0 and 1 mark buffers that are inside already
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack(model: Any) -> bytes:
    """The file of a `ModelT` of the schema's object API, whose operator codes are completed."""
    _complete_codes(model)
    builder = _SharingBuilder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _complete_codes(model: Any) -> None:
    """Old codes beside the new ones, and the versions of DEQUANTIZE that its input types came with.

    The LiteRT quantizer leaves `deprecated_builtin_code` of the operators that it inserts at 0, which is ADD,
    and their version at 1. The runtime reads the larger of both codes; OpenVINO reads what old readers do, and
    refuses the file.
    """
    from ai_edge_litert import schema_py_generated as schema

    types = schema.TensorType
    versions = {types.INT8: 2, types.INT16: 3, types.FLOAT16: 3}
    for code in model.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
        code.deprecatedBuiltinCode = min(code.builtinCode, OLD_CODES)
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            if code.builtinCode == schema.BuiltinOperator.DEQUANTIZE:
                given = graph.tensors[int(operator.inputs[0])]
                code.version = max(code.version, versions.get(given.type, 1), _per_channel(given))


def _per_channel(tensor: Any) -> int:
    """The version of DEQUANTIZE that knows one scale for each channel, where it needs to."""
    scales = tensor.quantization.scale if tensor.quantization is not None else None
    return 5 if scales is not None and len(scales) > 1 else 1
