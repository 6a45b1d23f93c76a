"""What the child process of quantization-aware training does. See `qat`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported: tfmot knows tf_keras only
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_effnet.errors import require
from keras_effnet.export.quantization.graph import WEIGHTED, Array, Graph, Step
from keras_effnet.export.quantization.qat import graph_of
from keras_effnet.export.quantization.simulate import CURVED

HELD_OUT = 4  # one of so many pictures
CHECKS = 15  # looks at the held-out pictures during training
MARGIN = 0.1  # crops keep at least this much less than the whole side


def main(folder: Path) -> None:
    """Read what the parent handed over, train, write `trained.npz`."""
    facts = json.loads((folder / "facts.json").read_text())
    with np.load(folder / "teacher.npz") as arrays:
        teacher = build(graph_of(facts, dict(arrays)), None)
    with np.load(folder / "student.npz") as arrays:
        graph = graph_of(facts, dict(arrays))
    student = build(graph, facts["ranges"])
    images = np.load(folder / "images.npy")
    labels = np.load(folder / "labels.npy") if (folder / "labels.npy").exists() else None
    fit(teacher, student, images, labels, facts["training"])
    temporary = folder / "unfinished.npz"
    np.savez(temporary, **weights_of(graph, student))  # type: ignore[arg-type]  # see qat
    temporary.rename(folder / "trained.npz")


def build(graph: Graph, ranges: dict[str, Any] | None) -> Any:
    """The logits of a graph as a tf_keras model, with quantizers where ranges are given."""
    import tf_keras

    maker = _Builder(tf_keras, ranges)
    image = tf_keras.Input(shape=graph.input_shape)
    values: dict[str, Any] = {}
    for step in graph:
        if step.kind == "input":
            values[step.name] = image
            continue
        values[step.name] = maker.step(step, [values[name] for name in step.inputs])
    annotated = tf_keras.Model(image, values[graph.output])
    model = annotated if ranges is None else maker.apply(annotated)
    for step in graph:
        if step.kind in WEIGHTED:
            _set_weights(model, step)
    return model


class _Builder:
    """Turns steps into layers, each annotated with the quantizers of its tensors."""

    def __init__(self, keras: Any, ranges: dict[str, Any] | None) -> None:
        self.keras = keras
        self.ranges = ranges
        self.tfmot = require("tensorflow_model_optimization", "qat").quantization.keras
        if ranges is not None:
            self.config = _config_class(self.tfmot)

    def step(self, step: Step, sources: list[Any]) -> Any:
        layers, name = self.keras.layers, step.name
        if step.kind == "mean":
            pool = layers.GlobalAveragePooling2D(keepdims=step.keepdims, name=name)
            return self._call(pool, sources[0], output=name)
        if step.kind in ("product", "sum"):
            make = layers.Multiply if step.kind == "product" else layers.Add
            return self._call(make(name=name), sources, output=name)
        if step.kind == "affine":
            scale = 1.0 if step.kernel is None else step.kernel.tolist()
            assert step.bias is not None
            return self._call(layers.Rescaling(scale, step.bias.tolist(), name=name), sources[0], output=name)
        return self._activation(step, self._weighted(step, sources[0]))

    def _weighted(self, step: Step, x: Any) -> Any:
        layers, name = self.keras.layers, step.name
        assert step.kernel is not None
        key = f"{name}/pre" if step.activation in CURVED else name
        key = "" if step.activation == "relu6" else key  # quantized behind the ReLU
        if step.kind == "dense":
            return self._call(layers.Dense(step.channels, name=name), x, output=key, kernel="kernel")
        if not isinstance(step.padding, str):
            x = self._call(layers.ZeroPadding2D(step.padding, name=f"{name}_pad"), x)
        options = {
            "kernel_size": step.kernel.shape[:2],
            "strides": step.strides,
            "padding": step.padding if isinstance(step.padding, str) else "valid",
            "name": name,
        }
        if step.kind == "conv":
            return self._call(layers.Conv2D(step.channels, **options), x, output=key, kernel="kernel")
        return self._call(layers.DepthwiseConv2D(**options), x, output=key, kernel="depthwise_kernel")

    def _activation(self, step: Step, u: Any) -> Any:
        layers, name = self.keras.layers, step.name
        if step.activation in ("linear", "softmax"):
            return u
        if step.activation == "relu6":
            return self._call(layers.ReLU(6.0, name=f"{name}_activation"), u, output=name)
        if step.activation == "sigmoid":
            return self._call(layers.Activation("sigmoid", name=f"{name}_activation"), u)
        gated = u
        if step.gain is not None:
            gain = layers.Rescaling(step.gain.tolist(), name=f"{name}_gain")
            gated = self._call(gain, u, output=f"{name}/gate")
        gate = self._call(layers.Activation("sigmoid", name=f"{name}_gate"), gated)
        return self._call(layers.Multiply(name=f"{name}_swish"), [u, gate], output=name)

    def _call(self, layer: Any, x: Any, *, output: str = "", kernel: str = "") -> Any:
        if self.ranges is None:
            return layer(x)
        config = self.config(kernel, self.ranges.get(output))
        return self.tfmot.quantize_annotate_layer(layer, config)(x)

    def apply(self, model: Any) -> Any:
        with self.tfmot.quantize_scope({"StepConfig": self.config}):
            return self.tfmot.quantize_apply(model, _no_scheme(self.tfmot))


def _no_scheme(tfmot: Any) -> Any:
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

    del tfmot
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


def _layer(model: Any, name: str) -> Any:
    """The layer of a step, whether tfmot wrapped it or not."""
    for layer in model.layers:
        inner = getattr(layer, "layer", layer)
        if inner.name == name:
            return layer
    raise ValueError(
        f"Expected a layer {name!r} in the twin. It has {[layer.name for layer in model.layers][:5]} …"
    )


def _variables(model: Any, step: Step) -> dict[str, Any]:
    layer = _layer(model, step.name)
    found = {}
    for variable in layer.weights:
        short = variable.name.split("/")[-1].split(":")[0]
        if short in ("kernel", "depthwise_kernel", "bias"):
            found["bias" if short == "bias" else "kernel"] = variable
    return found


def _set_weights(model: Any, step: Step) -> None:
    variables = _variables(model, step)
    variables["kernel"].assign(step.kernel)
    variables["bias"].assign(step.bias)


def weights_of(graph: Graph, model: Any) -> dict[str, Array]:
    """Trained kernels and biases, by step."""
    return {
        f"{step.name}:{key}": variable.numpy()
        for step in graph
        if step.kind in WEIGHTED
        for key, variable in _variables(model, step).items()
    }


def fit(teacher: Any, student: Any, images: Array, labels: Array | None, training: dict[str, Any]) -> None:
    """Draw the student's logits to the teacher's, on crops and mirror images.

    A quarter of the pictures is not trained on; the weights that do best on it win, and those of the
    start take part: training cannot make a network worse than it came.
    """
    import tensorflow as tf
    import tf_keras
    from tqdm.auto import tqdm

    rate = tf_keras.optimizers.schedules.CosineDecay(training["learning_rate"], training["steps"])
    optimizer = tf_keras.optimizers.Adam(rate)
    rng = np.random.default_rng(0)
    held_out = np.arange(len(images)) % HELD_OUT == 0
    judge = _Judge(teacher, student, images[held_out])

    @tf.function  # type: ignore[untyped-decorator]
    def update(pictures: Any, goal: Any, classes: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = student(pictures, training=True)
            loss = tf.reduce_sum(tf.square(logits - goal)) / tf.reduce_sum(tf.square(goal))
            if labels is not None:
                entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
                loss += training["label_weight"] * tf.reduce_mean(entropy)
        variables = student.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    places = np.flatnonzero(~held_out)
    every = max(1, training["steps"] // CHECKS)
    progress = tqdm(range(training["steps"]), desc="int8 training", unit="step", disable=None)
    for step in progress:
        chosen = rng.choice(places, training["batch"])
        pictures = tf.stack([_augmented(images[index], rng) for index in chosen])
        classes = np.zeros(len(chosen), np.int64) if labels is None else labels[chosen]
        update(pictures, teacher(pictures, training=False), tf.constant(classes))
        if (step + 1) % every == 0:
            progress.set_postfix(noise=f"{judge.look():.4f}", start=f"{judge.start:.4f}")
    judge.restore_best()


class _Judge:
    """Keeps the weights with the least noise on held-out pictures."""

    def __init__(self, teacher: Any, student: Any, images: Array) -> None:
        self.student = student
        self.images = images
        self.goal = self._logits(teacher)
        self.best, self.least = student.get_weights(), self._noise()
        self.start = self.least

    def _logits(self, model: Any) -> Array:
        parts = [self.images[at : at + 4].astype(np.float32) for at in range(0, len(self.images), 4)]
        return np.concatenate([np.asarray(model(part, training=False)) for part in parts])

    def _noise(self) -> float:
        return float(np.sum((self._logits(self.student) - self.goal) ** 2) / np.sum(self.goal**2))

    def look(self) -> float:
        """Noise now, relative to the signal."""
        noise = self._noise()
        if noise < self.least:
            self.best, self.least = self.student.get_weights(), noise
        return noise

    def restore_best(self) -> None:
        self.student.set_weights(self.best)


def _augmented(image: Array, rng: np.random.Generator) -> Any:
    """A crop of at least 90 % of the side, resized back, mirrored every other time."""
    import tensorflow as tf

    height, width, _ = image.shape
    share = 1 - MARGIN * rng.random()
    tall, wide = int(height * share), int(width * share)
    top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    crop = tf.cast(image[top : top + tall, left : left + wide], tf.float32)
    resized = tf.round(tf.image.resize(crop, (height, width)))
    return tf.reverse(resized, [1]) if rng.random() < 0.5 else resized


def run(folder: str) -> None:
    """Entry point of the child."""
    main(Path(folder))
