"""A graph as a tf_keras model: what tfmot can train. Only child processes import this with TensorFlow.

`tensorflow_model_optimization` knows `tf_keras` only and turns a whole process over to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_effnet.export.quantization.graph import WEIGHTED, Array, Graph, Step
from keras_effnet.export.quantization.simulate import CURVED

Wrap = Callable[[Any, str, str], Any]  # a layer, the key of its output's range, its kernel's attribute


def build(graph: Graph, wrap: Wrap | None = None, finish: Callable[[Any], Any] | None = None) -> Any:
    """The logits of a graph as a tf_keras model.

    Args:
        graph: steps with their weights.
        wrap: puts something around each layer; the key and the attribute are "" where there is none.
        finish: turns the wrapped model into the one to train.
    """
    import tf_keras

    maker = _Builder(tf_keras, wrap or (lambda layer, output, kernel: layer))
    image = tf_keras.Input(shape=graph.input_shape)
    values: dict[str, Any] = {}
    for step in graph:
        if step.kind == "input":
            values[step.name] = image
            continue
        values[step.name] = maker.step(step, [values[name] for name in step.inputs])
    model = tf_keras.Model(image, values[graph.output])
    if finish is not None:
        model = finish(model)
    for step in graph:
        if step.kind in WEIGHTED:
            _set_weights(model, step)
    return model


class _Builder:
    """Turns steps into layers."""

    def __init__(self, keras: Any, wrap: Wrap) -> None:
        self.keras = keras
        self.wrap = wrap

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
        return self.wrap(layer, output, kernel)(x)


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
