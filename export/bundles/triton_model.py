"""What Triton's Python backend runs: the bytes of photographs in, names and scores out.

`bundle triton` copies this file to `<model>/<version>/model.py`, beside the network and the very code that reads
photographs everywhere else. It needs numpy, Pillow and onnxruntime, and neither Keras nor TensorFlow.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance, in a process of its own, with one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the network that lies beside this file."""
        import onnxruntime
        from PIL import Image

        Image.init()  # its readers now, not while somebody waits
        folder = Path(args["model_repository"]) / args["model_version"]
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        from keras_effnet.pictures.framing import Framing

        config = json.loads(args["model_config"])
        limits = {name: int(value["string_value"]) for name, value in config["parameters"].items()}
        self.max_bytes, self.max_pixels = limits["max_bytes"], limits["max_pixels"]
        told = json.loads((folder / "reading.json").read_text(encoding="utf-8"))
        self.top = told["top"]
        self.framing, self.size = Framing(**told["framing"]), told["size"]
        self.nchw, self.dtype = told["layout"] == "nchw", told["dtype"]
        self.thresholds, self.several = tuple(told["thresholds"]), told["several"]
        self.labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        on_gpu = args["model_instance_kind"] == "GPU"
        chosen = (
            [("CUDAExecutionProvider", {"device_id": args["model_instance_device_id"]})] if on_gpu else []
        )
        providers = [*chosen, "CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=providers)
        self.entry = self.session.get_inputs()[0].name

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests that Triton has put together; a picture that cannot be read costs only its own row."""
        given = [
            pb_utils.get_input_tensor_by_name(request, "image").as_numpy().ravel() for request in requests
        ]
        pixels, errors = self._read([bytes(content) for contents in given for content in contents])
        scores = self._scores(pixels)
        rows = iter(range(len(errors)))
        return [self._response([next(rows) for _ in contents], scores, errors) for contents in given]

    def _read(self, contents: list[bytes]) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Pixels `[N, size, size, C]`, zeros for what cannot be read, and why it cannot."""
        from keras_effnet.errors import InvalidInputError

        pixels = np.zeros((len(contents), self.size, self.size, self.framing.channels), np.uint8)
        errors = [""] * len(contents)
        for place, content in enumerate(contents):
            try:
                if len(content) > self.max_bytes:
                    raise InvalidInputError(
                        f"Expected a picture of at most {self.max_bytes} bytes. Received: {len(content)}."
                    )
                pixels[place] = self.framing.read(content, self.size, max_pixels=self.max_pixels, silent=True)
            except InvalidInputError as error:
                errors[place] = str(error)
        return pixels, errors

    def _scores(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        values = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if self.nchw else pixels
        made = self.session.run(None, {self.entry: values.astype(self.dtype)})[0].astype(np.float32)
        if made.shape[1] == 1 and len(self.labels) == 2:  # a single sigmoid: the second class's probability
            made = np.concatenate([1 - made, made], axis=1)
        return np.asarray(made)

    def _response(self, rows: list[int], scores: npt.NDArray[np.float32], errors: list[str]) -> Any:
        """The best classes, accepted ones first; of a network of several labels as many as a picture has."""
        from keras_effnet.pictures.thresholds import accepted, best_first

        values = scores[rows]
        fits = accepted(values, self.thresholds)
        failed = np.array([bool(errors[row]) for row in rows])[:, np.newaxis]
        width = max(self.top, int((fits & ~failed).sum(axis=1).max())) if self.several else self.top
        best = best_first(values, fits)[:, :width]
        labels = np.array(self.labels, object)[best]
        outputs = {
            "label": np.where(failed, "", labels).astype(object),
            "probability": np.where(failed, 0, np.take_along_axis(values, best, axis=1)).astype(np.float32),
            "class_index": np.where(failed, -1, best).astype(np.int32),
            "accepted": np.take_along_axis(fits, best, axis=1) & ~failed,
            "none_of_these": ~fits.any(axis=1, keepdims=True) & ~failed,
            "error": np.array([[errors[row]] for row in rows], object),
        }
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])
