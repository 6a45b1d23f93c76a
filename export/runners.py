"""`load(path)`: one callable for any artefact."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, require
from keras_effnet.pictures.decoding import UnreadablePictureError
from keras_effnet.pictures.framing import Framing, image_shape
from keras_effnet.pictures.reading import check_pixels
from keras_effnet.system.files import reachable
from keras_effnet.system.quiet import quiet_native
from keras_effnet.system.resources import cores
from keras_effnet.weights.checkpoint import METADATA_KEY

from . import onnx_pictures
from .formats import KERAS, ONNX, SAVED_MODEL, TFLITE, format_of, unreadable_keras
from .model_facts import ArtefactInfo, info_of, only_labels, worth_telling
from .outputs import LABELS_FILE, ONLY_OUTPUT, PLAIN, Output, by_name, outputs_of

Pixels = npt.NDArray[Any]
Outputs = npt.NDArray[np.float32]
Answers = dict[str, Outputs]  # by the name of the output


@dataclass(frozen=True, kw_only=True)
class Runner:
    """An artefact that is ready to run.

    Call it with RGB pixels 0–255, uint8 or float `[N, H, W, C]`, whatever the artefact's own input type and
    layout are; it returns float32 `[N, classes]`, or whatever else its output is, and of several outputs a
    dictionary of such arrays by name.

    Attributes:
        path: the artefact.
        format: `saved_model`, `tflite`, `onnx` or `keras`.
        size: (H, W) of the input; None where any is taken.
        channels: of the input.
        dynamic_batch: whether the artefact itself takes several pictures at once.
        info: what the artefact says about itself, or None.
        names: of its outputs.
        labels: class names of the only output, or empty; those of several are in `info`.
        run: the outputs for pixels.
        read: the outputs for a picture's file, of an artefact that reads it itself; else None. See
            `onnx_pictures.checked` for what it may be given.
    """

    path: Path
    format: str
    size: tuple[int | None, int | None]
    channels: int
    dynamic_batch: bool
    info: ArtefactInfo | None
    names: tuple[str, ...]
    labels: tuple[str, ...]
    run: Callable[[Pixels], Answers] = field(repr=False)
    read: Callable[[bytes], Answers] | None = field(default=None, repr=False)

    @property
    def recipe(self) -> str:
        """Name of the recipe; `float32` for files that do not say."""
        return self.info.recipe if self.info else "float32"

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the file says of its outputs; of one that does not, that there is one, of classes."""
        return (self.info.outputs if self.info else ()) or PLAIN

    @property
    def framing(self) -> Framing:
        """How photographs are read for it; the reference's way for files that do not say."""
        return replace(self.info.framing if self.info else Framing(), channels=self.channels)

    def __call__(self, images: Any) -> Any:
        """What the artefact says: an array, or of several outputs a dictionary of them.

        Raises:
            InvalidInputError: pictures of another shape or type.
        """
        pixels = check_pixels(images, size=self.size, channels=self.channels)
        answers = self.answers(pixels)
        return answers if len(self.names) > 1 else answers[self.names[0]]

    def answers(self, pixels: Pixels) -> Answers:
        """The outputs by name, also a single one, for pictures that were checked."""
        if self.dynamic_batch:
            made = self.run(pixels)
            return {name: made[name] for name in self.names}
        return self._joined([self.run(pixels[index : index + 1]) for index in range(len(pixels))])

    def answers_to_files(self, contents: Sequence[bytes]) -> Answers:
        """As `answers`, of an artefact that reads pictures itself, for files that were checked."""
        assert self.read is not None
        return self._joined([self.read(content) for content in contents])

    def _joined(self, each: Sequence[Answers]) -> Answers:
        return {name: np.concatenate([answers[name] for answers in each]) for name in self.names}


def load(path: str | os.PathLike[str], *, threads: int | None = None) -> Runner:
    """Open an artefact of any format.

    Args:
        path: a SavedModel directory, or a `.tflite`, `.onnx`, `.keras` or whole `.h5` file.
        threads: CPU threads to compute with (TFLite and ONNX); None for all cores.

    Raises:
        InvalidInputError: nothing there, or not to be read, of no known format, or damaged.
        MissingExtraError: the runtime of this format is not installed.
    """
    artefact = Path(path)
    with reachable(artefact, "an artefact that can be read"):
        opener = _opener(artefact)
    try:
        return opener(artefact, threads or cores())
    except (InvalidInputError, ImportError):
        raise
    except Exception as error:  # every runtime has errors of its own for a damaged file
        raise InvalidInputError(
            f"Expected a complete artefact at {str(artefact)!r}. It cannot be opened "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}). Export it again."
        ) from error


def _opener(path: Path) -> Callable[[Path, int], Runner]:
    advice = "Pass a SavedModel directory, or a .tflite, .onnx, .keras or whole .h5 file."
    if not path.exists():
        raise InvalidInputError(f"Expected an artefact at {str(path)!r}. Received: no such file. {advice}")
    if (found := format_of(path)) is not None:
        return _OPENERS[found]
    if path.is_dir():
        raise InvalidInputError(f"Expected an artefact. Received: the directory {str(path)!r}. {advice}")
    raise InvalidInputError(f"Expected an artefact. Received: {str(path)!r} of unknown format. {advice}")


def _saved_model(path: Path, threads: int) -> Runner:
    import tensorflow as tf

    from .saved_model import EXTRA_ASSETS

    del threads
    with quiet_native():
        loaded = tf.saved_model.load(str(path))
    signatures = loaded.signatures
    if "serving_default" not in signatures:
        raise InvalidInputError(
            f"Expected a SavedModel with the signature 'serving_default' at {str(path)!r}. "
            f"Received: {sorted(signatures)}. Export it with keras_effnet.export.to_saved_model."
        )
    (input_name, spec), *_ = signatures["serving_default"].structured_input_signature[1].items()

    def run(pixels: Pixels) -> Answers:
        raw = pixels.dtype == np.uint8 and "serve_uint8" in signatures
        signature = signatures["serve_uint8" if raw else "serving_default"]
        tensor = tf.constant(pixels if raw else pixels.astype(np.float32))
        return _float32(signature(**{input_name: tensor}))

    info_path, labels = path / EXTRA_ASSETS / f"{METADATA_KEY}.json", path / EXTRA_ASSETS / LABELS_FILE
    info = ArtefactInfo.from_json(info_path.read_text(encoding="utf-8")) if info_path.is_file() else None
    return Runner(
        path=path,
        format=SAVED_MODEL,
        size=(spec.shape[1], spec.shape[2]),
        channels=spec.shape[3],
        dynamic_batch=spec.shape[0] is None,
        info=info,
        names=_told_order(info, signatures["serving_default"].structured_outputs),
        labels=tuple(labels.read_text(encoding="utf-8").splitlines()) if labels.is_file() else (),
        run=run,
    )


def _tflite(path: Path, threads: int) -> Runner:
    from . import tflite_file

    interpreter_module = require("ai_edge_litert.interpreter", "tflite")
    with quiet_native():
        interpreter = interpreter_module.Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
    entry, outputs = interpreter.get_input_details()[0], _tflite_outputs(interpreter)

    def run(pixels: Pixels) -> Answers:
        interpreter.set_tensor(entry["index"], _quantize(pixels, entry))
        interpreter.invoke()
        return {
            name: _dequantize(interpreter.get_tensor(output["index"]), output)
            for name, output in outputs.items()
        }

    told = tflite_file.read_info(path)
    info = ArtefactInfo.from_json(told) if told else None
    _, height, width, channels = (int(side) for side in entry["shape"])
    return Runner(
        path=path,
        format=TFLITE,
        size=(height, width),
        channels=channels,
        dynamic_batch=False,  # resizing the input splits the delegate's partition
        info=info,
        names=_told_order(info, outputs),
        labels=tflite_file.read_labels(path),
        run=run,
    )


def _tflite_outputs(interpreter: Any) -> dict[str, dict[str, Any]]:
    """What is known of the output tensors, by the names of the signature; without one, by those of the tensors."""
    listed, signatures = interpreter.get_output_details(), interpreter.get_signature_list()
    if len(listed) == 1:
        named = next(iter(signatures.values()))["outputs"] if signatures else [ONLY_OUTPUT]
        return {named[0]: listed[0]}
    if not signatures:
        return {details["name"]: details for details in listed}
    return dict(interpreter.get_signature_runner(next(iter(signatures))).get_output_details())


def _told_order(info: ArtefactInfo | None, found: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the outputs, in the order of the model where the artefact tells it."""
    told = tuple(output.name for output in info.outputs) if info else ()
    return told if set(told) == set(found) else tuple(found)


def _float32(answers: Mapping[str, Any]) -> Answers:
    return {name: np.asarray(value, dtype=np.float32) for name, value in answers.items()}


def _quantize(values: npt.NDArray[Any], details: dict[str, Any]) -> npt.NDArray[Any]:
    """Real numbers as the tensor's own integers."""
    scale, zero_point = details["quantization"]
    dtype = details["dtype"]
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype)
    if not scale:
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(dtype)


def _dequantize(values: npt.NDArray[Any], details: dict[str, Any]) -> Outputs:
    scale, zero_point = details["quantization"]
    real = values.astype(np.float32)
    return (real - zero_point) * np.float32(scale) if scale else real


def _onnx(path: Path, threads: int) -> Runner:
    session = _session(path, threads)
    entry = session.get_inputs()[0]
    properties = session.get_modelmeta().custom_metadata_map
    info = ArtefactInfo.from_json(properties[METADATA_KEY]) if METADATA_KEY in properties else None
    outputs = [output.name for output in session.get_outputs()]
    labels = json.loads(properties.get("labels", "[]"))

    def ask(values: npt.NDArray[Any]) -> Answers:
        return _float32(dict(zip(outputs, session.run(outputs, {entry.name: values}), strict=True)))

    made = partial(
        Runner,
        path=path,
        format=ONNX,
        info=info,
        names=_told_order(info, dict.fromkeys(outputs)),
        labels=tuple(labels) if isinstance(labels, list) else (),
    )
    if onnx_pictures.SIDE_KEY in properties:
        side, margin = int(properties[onnx_pictures.SIDE_KEY]), info.crop_margin if info else 0

        def read(content: bytes) -> Answers:
            try:
                return ask(np.frombuffer(content, np.uint8))
            except Exception as error:  # of a class that the runtime does not show
                raise UnreadablePictureError(
                    f"Expected a picture that {str(path)!r} decodes. Its decoder refuses it. Save it again.",
                    "the decoder inside the network's file refuses",
                ) from error

        def run_on_pixels(pixels: Pixels) -> Answers:
            return read(onnx_pictures.as_png(pixels[0], margin))

        return made(size=(side, side), channels=3, dynamic_batch=False, run=run_on_pixels, read=read)
    nchw = info.layout == "nchw" if info else entry.shape[1] in (1, 3)
    height, width, channels = (
        (*entry.shape[2:], entry.shape[1]) if nchw else (*entry.shape[1:3], entry.shape[3])
    )
    dtype = {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16}.get(entry.type, np.float32)

    def run(pixels: Pixels) -> Answers:
        values = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if nchw else pixels
        return ask(values.astype(dtype))

    return made(
        size=(_static(height), _static(width)),
        channels=int(channels),
        dynamic_batch=not isinstance(entry.shape[0], int),
        run=run,
    )


def _session(path: Path, threads: int) -> Any:
    """The file in ONNX Runtime; one that decodes pictures with the operators that it needs."""
    onnxruntime = require("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    opened = partial(onnxruntime.InferenceSession, str(path), providers=["CPUExecutionProvider"])
    try:
        return opened(options)
    except Exception as error:  # of a class that the runtime does not show
        if onnx_pictures.DOMAIN not in str(error):
            raise
    extensions = require(onnx_pictures.MODULE, onnx_pictures.EXTRA)
    options.register_custom_ops_library(extensions.get_library_path())
    return opened(options)


def _static(side: Any) -> int | None:
    return side if isinstance(side, int) else None


def _keras(path: Path, threads: int) -> Runner:
    del threads
    return runner_of(network_of(path), path)


def network_of(path: Path) -> Any:
    """The model of a Keras file; nothing in it is executed.

    Raises:
        InvalidInputError: one that Keras cannot read.
    """
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras has many, with messages of many lines
        raise unreadable_keras(path, error) from error


def runner_of(model: Any, path: Path) -> Runner:
    """A Keras model as a runner; `path` is what messages call it."""
    height, width, channels = image_shape(model)
    outputs = outputs_of(model)
    names = tuple(output.name for output in outputs)
    return Runner(
        path=path,
        format=KERAS,
        size=(height, width),
        channels=channels,
        dynamic_batch=True,
        info=replace(info_of(model), outputs=worth_telling(outputs)),
        names=names,
        labels=only_labels(outputs),
        run=lambda pixels: _float32(by_name(names, model.predict(pixels, verbose=0))),
    )


_OPENERS = {SAVED_MODEL: _saved_model, TFLITE: _tflite, ONNX: _onnx, KERAS: _keras}
