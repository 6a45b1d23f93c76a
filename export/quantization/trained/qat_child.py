"""What the child process of quantization-aware training does. See `qat`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported: tfmot knows tf_keras only
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_effnet.errors import require

from ..activations import FUNCTIONS
from ..to_keras import to_trainable, trained_weights
from . import distillation, handover


def run(folder: str) -> None:
    """Entry point: read what the parent handed over, train, hand the weights back."""
    task = handover.read(Path(folder))
    teacher = to_trainable(task.teacher)
    quantizing = _Quantizing(task.facts["ranges"])
    student = to_trainable(task.student, quantizing.wrap, quantizing.finish)
    distillation.fit(
        teacher, student, task.images, task.labels, task.facts["training"], title="int8 training"
    )
    handover.hand_back(Path(folder), trained_weights(task.student, student))


class _Quantizing:
    """Annotates each layer with the quantizers of its tensors and lets tfmot put them in."""

    def __init__(self, ranges: dict[str, Any]) -> None:
        self.ranges = ranges
        self.tfmot = require("tensorflow_model_optimization", "qat").quantization.keras
        self.config = _config_class(self.tfmot)

    def wrap(self, layer: Any, output: str, kernel: str) -> Any:
        return self.tfmot.quantize_annotate_layer(layer, self.config(kernel, self.ranges.get(output)))

    def finish(self, model: Any) -> Any:
        with self.tfmot.quantize_scope({"StepConfig": self.config, **FUNCTIONS}):
            return self.tfmot.quantize_apply(model, _no_scheme())


def _no_scheme() -> Any:
    """A scheme without tfmot's own rewrites: our steps already are what the integer kernels compute."""
    from tensorflow_model_optimization.python.core.quantization.keras import quantize_scheme
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry,
    )

    class Unchanged:
        def apply(self, model: Any, layer_quantize_map: Any) -> tuple[Any, Any]:
            return model, layer_quantize_map

    class Scheme(quantize_scheme.QuantizeScheme):
        def get_layout_transformer(self) -> Any:
            return Unchanged()

        def get_quantize_registry(self) -> Any:
            return default_8bit_quantize_registry.Default8BitQuantizeRegistry()

    return Scheme()


def _config_class(tfmot: Any) -> Any:
    """The quantize config of all our layers; tfmot's registry knows neither Multiply nor Rescaling."""
    import tensorflow as tf

    class KernelQuantizer(tfmot.quantizers.Quantizer):
        """8 bits, symmetric, one scale per output channel, gradients straight through."""

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            return {}

        def __call__(self, inputs: Any, training: bool, weights: Any, **kwargs: Any) -> Any:
            depthwise = inputs.shape.rank == 4 and inputs.shape[-1] == 1
            axes = (0, 1, 3) if depthwise else tuple(range(inputs.shape.rank - 1))
            scale = tf.maximum(tf.reduce_max(tf.abs(inputs), axis=axes, keepdims=True), 1e-12) / 127.0
            return inputs + tf.stop_gradient(tf.round(inputs / scale) * scale - inputs)

        def get_config(self) -> dict[str, Any]:
            return {}

    class FixedRange(tfmot.quantizers.Quantizer):
        """The range that post-training quantization chose."""

        def __init__(self, limits: Any) -> None:
            self.limits = limits

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            return {}

        def __call__(self, inputs: Any, training: bool, weights: Any, **kwargs: Any) -> Any:
            return tf.quantization.fake_quant_with_min_max_vars(inputs, *self.limits)

        def get_config(self) -> dict[str, Any]:
            return {"limits": self.limits}

    class StepConfig(tfmot.QuantizeConfig):
        """Which attribute of a layer is a kernel, and the range of its output."""

        def __init__(self, kernel: str = "", limits: Any = None) -> None:
            self.kernel, self.limits = kernel, limits

        def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
            return [(getattr(layer, self.kernel), KernelQuantizer())] if self.kernel else []

        def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
            if self.kernel:
                setattr(layer, self.kernel, quantize_weights[0])

        def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
            pass

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            return [FixedRange(self.limits)] if self.limits is not None else []

        def get_config(self) -> dict[str, Any]:
            return {"kernel": self.kernel, "limits": self.limits}

    return StepConfig
