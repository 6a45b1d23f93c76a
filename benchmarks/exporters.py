"""One export in a process of its own. A child of `peers.py`.

    python exporters.py EXPORTER VARIANT FILE [PHOTOGRAPHS WEIGHTS]      # see EXPORTERS; integer files need both
    python exporters.py check                      # is everything there that the timm exports need?

Builds the network with random weights (biases and batch normalization too: exporters drop what is
zero), exports it and prints {"seconds": of the export alone,
imports of the converter included, "peak_mb": of the whole process}. Ours writes labels and metadata too.
Integer files have trained weights and are calibrated with `CALIBRATION` of the photographs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SIDES = ("ours", "applications")
TORCH_PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxscript")
OPSET = 17
MEAN, VARIANCE = (0.485, 0.456, 0.406), (0.229**2, 0.224**2, 0.225**2)  # of x / 255

CALIBRATION = 64  # photographs, spread over the folder

Export = Callable[[str], object]


def build(side: str, variant: str) -> Any:
    """EfficientNet with random weights, ours or that of keras.applications."""
    import keras

    if side == "ours":
        import keras_effnet

        model = keras_effnet.EfficientNet(variant, weights=None)
    else:
        model = getattr(keras.applications, f"EfficientNet{variant.upper()}")(weights=None)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name == "normalization":
            normalize(layer)
        else:
            layer.set_weights([_shifted(values, rng) for values in layer.get_weights()])
    return model


def normalize(layer: Any) -> None:
    """Gives keras.applications the normalization of its ImageNet weights: untrained it is the identity,
    which converters drop, and the two files would not do the same work."""
    mean, variance, count = layer.get_weights()
    layer.set_weights([np.resize(MEAN, mean.shape), np.resize(VARIANCE, variance.shape), count])
    layer.finalize_state()


def _shifted(values: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Vectors (biases, batch normalization) moved a little from 0 or 1; kernels as they are."""
    if values.ndim != 1:
        return values
    return values + rng.uniform(-0.1, 0.1, values.shape).astype(values.dtype)


def ours_onnx(variant: str) -> Export:
    from keras_effnet.export import to_onnx

    model = build("ours", variant)
    return lambda file: to_onnx(model, file, overwrite=True)


def ours_onnx_each(variant: str) -> Export:
    """One picture after the other, for CPUs."""
    from keras_effnet.export import to_onnx

    model = build("ours", variant)
    return lambda file: to_onnx(model, file, batching="each", overwrite=True)


def ours_tflite(variant: str) -> Export:
    from keras_effnet.export import to_tflite

    model = build("ours", variant)
    return lambda file: to_tflite(model, file, overwrite=True)


def ours_int8_onnx(variant: str, photographs: str, weights: str) -> Export:
    from keras_effnet import EfficientNet
    from keras_effnet.export import to_onnx

    model, pictures = EfficientNet(variant, weights=weights), _pictures(photographs)
    return lambda file: to_onnx(model, file, "int8", pictures, overwrite=True)


def ours_int8_tflite(variant: str, photographs: str, weights: str) -> Export:
    from keras_effnet import EfficientNet
    from keras_effnet.export import to_tflite

    model, pictures = EfficientNet(variant, weights=weights), _pictures(photographs)
    return lambda file: to_tflite(model, file, "int8", pictures, overwrite=True)


def _pictures(photographs: str) -> Any:
    from int8_models import photographs as spread

    return spread(Path(photographs), CALIBRATION)


def applications_onnx_nhwc(variant: str) -> Export:
    """tf2onnx as it is documented."""
    model = build("applications", variant)
    return lambda file: _tf2onnx(model, file, nchw=False)


def applications_onnx_nchw(variant: str) -> Export:
    """tf2onnx with `inputs_as_nchw`."""
    model = build("applications", variant)
    return lambda file: _tf2onnx(model, file, nchw=True)


def _tf2onnx(model: Any, file: str, *, nchw: bool) -> None:
    import tensorflow as tf
    import tf2onnx

    spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image")
    names = ["image"] if nchw else None
    tf2onnx.convert.from_keras(model, [spec], opset=OPSET, inputs_as_nchw=names, output_path=file)


def applications_tflite(variant: str) -> Export:
    model = build("applications", variant)

    def export(file: str) -> None:
        import tensorflow as tf

        Path(file).write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())

    return export


def applications_int8_tflite(variant: str, photographs: str, weights: str) -> Export:
    """TensorFlow's full integer quantization, as it is documented."""
    from int8_table import stock_converter

    model, pictures = _trained_application(variant, weights), _pictures(photographs)
    return lambda file: Path(file).write_bytes(stock_converter(model, pictures.astype(np.float32)))


def applications_int8_onnx(variant: str, photographs: str, weights: str) -> Export:
    """ONNX Runtime's own quantizer."""
    from int8_onnx import CALIBRATION as PICTURES
    from int8_onnx import FLOAT32, quantize_static

    model, pictures = _trained_application(variant, weights), _pictures(photographs)

    def export(file: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            _tf2onnx(model, f"{folder}/{FLOAT32}", nchw=True)
            np.save(Path(folder) / PICTURES, pictures)
            shutil.move(quantize_static(Path(folder)), file)

    return export


def _trained_application(variant: str, weights: str) -> Any:
    import keras

    return getattr(keras.applications, f"EfficientNet{variant.upper()}")(weights=weights)


def timm_dynamo(variant: str) -> Export:
    """torch.onnx's current exporter."""
    import torch

    model, picture = _timm(variant)
    shapes = ({0: torch.export.Dim("batch")},)
    return lambda file: torch.onnx.export(
        model, (picture,), file, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
    )


def timm_torchscript(variant: str) -> Export:
    """torch.onnx's older exporter."""
    import torch

    model, picture = _timm(variant)
    axes = {"input": {0: "batch"}}
    return lambda file: torch.onnx.export(
        model,
        (picture,),
        file,
        dynamo=False,
        input_names=["input"],
        dynamic_axes=axes,
        opset_version=OPSET,
    )


def _timm(variant: str) -> tuple[Any, Any]:
    import torch

    _import_torchvision()
    import timm

    name = f"tf_efficientnet_{variant}"
    # exportable: timm's own switch for layers that the exporters understand
    model = timm.create_model(name, pretrained=False, exportable=True).eval()
    rng = np.random.default_rng(0)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.from_numpy(np.asarray(_shifted(tensor.numpy(), rng))))
    return model, torch.randn(2, *model.pretrained_cfg["input_size"])


def _import_torchvision() -> None:
    """timm imports torchvision, of which it needs only the Python part.

    Its native part fits one build of torch exactly; beside another one the import fails because an
    operator is missing, so the two that are asked for are declared.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        import torch

        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", signature)


EXPORTERS: dict[str, Callable[..., Export]] = {
    "ours_onnx": ours_onnx,
    "ours_onnx_each": ours_onnx_each,
    "ours_tflite": ours_tflite,
    "ours_int8_onnx": ours_int8_onnx,
    "ours_int8_tflite": ours_int8_tflite,
    "applications_onnx_nhwc": applications_onnx_nhwc,
    "applications_onnx_nchw": applications_onnx_nchw,
    "applications_tflite": applications_tflite,
    "applications_int8_onnx": applications_int8_onnx,
    "applications_int8_tflite": applications_int8_tflite,
    "timm_dynamo": timm_dynamo,
    "timm_torchscript": timm_torchscript,
}


def _peak_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(peaks) * unit / 1e6


def _measured(exporter: str, variant: str, file: str, *calibration: str) -> dict[str, float]:
    export = EXPORTERS[exporter](variant, *calibration)
    start = time.perf_counter()
    export(file)
    return {"seconds": time.perf_counter() - start, "peak_mb": _peak_mb()}


def main(arguments: list[str]) -> None:
    if arguments == ["check"]:
        missing = [name for name in TORCH_PACKAGES if importlib.util.find_spec(name) is None]
        print(json.dumps({"missing": missing}))
        return
    # the reply is the only thing on standard output
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        replies.write(json.dumps(_measured(*arguments)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
