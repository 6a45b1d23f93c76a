"""From a `Graph` back to a Keras model: one for TFLite's converter, one for training."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .graph import Graph
from .ops import OUTPUT, Operator, Softmax, key_of
from .ranges import Array
from .steps import Input, Step
from .weighted import Weighted

Wrap = Callable[[Any, str, str], Any]  # a layer, the key of its output's range, its kernel's attribute

# what Keras calls the operators of `Operator.keras`: a layer that its user did not name may be called so too
AUTOMATIC = re.compile(r"(add|multiply|relu6|sigmoid)(_\d+)?")
# what steps call layers of theirs, behind their own name: another step may be called so
DERIVED = ("activation", "gain", "gate", "pad", "swish")


def to_keras(graph: Graph, *, height: int, width: int) -> Any:
    """The network that a graph describes, from pixels 0–255 `[N, height, width, C]` to its outputs, as integer kernels run it fastest."""
    import keras

    image = keras.Input(shape=(height, width, graph.input_shape[2]), name="image")
    derived = {f"{name}_{suffix}" for name in graph.steps for suffix in DERIVED}

    def built(step: Step, sources: list[Any]) -> Any:
        name = f"{step.name}_step" if AUTOMATIC.fullmatch(step.name) or step.name in derived else step.name

        def do(operator: Operator, *values: Any, tensor: str | None = OUTPUT) -> Any:
            return operator.keras(keras, name, *values)

        return image if isinstance(step, Input) else step.compute(do, *sources)

    made = graph.results_of(built)
    return keras.Model(image, made if len(made) > 1 else made[0], name="quantizable")


def to_trainable(graph: Graph, wrap: Wrap | None = None) -> Any:
    """The outputs of a graph, logits for probabilities, as a tf_keras model, which tfmot can train: only child processes call this.

    `tensorflow_model_optimization` knows `tf_keras` only and turns a whole process over to it.

    Args:
        graph: steps with their weights.
        wrap: puts something around each layer; the key and the attribute are "" where there is none.
    """
    import tf_keras

    wrapped = wrap or (lambda layer, output, kernel: layer)
    image = tf_keras.Input(shape=graph.input_shape)

    def built(step: Step, sources: list[Any]) -> Any:
        def do(operator: Operator, *values: Any, tensor: str | None = OUTPUT) -> Any:
            if isinstance(operator, Softmax):
                return values[0]
            x = values[0] if len(values) == 1 else list(values)
            if (ahead := operator.ahead(tf_keras.layers, step.name)) is not None:
                x = wrapped(ahead, "", "")(x)
            key = "" if tensor is None else key_of(step.name, tensor)
            return wrapped(operator.layer(tf_keras.layers, step.name), key, operator.kernel_name)(x)

        return image if isinstance(step, Input) else step.compute(do, *sources)

    made = graph.results_of(built)
    model = tf_keras.Model(image, made if len(made) > 1 else made[0])
    for step in graph.weighted:
        variables = _variables(model, step)
        variables["kernel"].assign(step.kernel)
        variables["bias"].assign(step.bias)
    return model


def trained_weights(graph: Graph, model: Any) -> dict[str, Array]:
    """Trained kernels and biases, by step."""
    return {
        f"{step.name}:{key}": variable.numpy()
        for step in graph.weighted
        for key, variable in _variables(model, step).items()
    }


def _layer(model: Any, name: str) -> Any:
    """The layer of a step, whether tfmot wrapped it or not."""
    for layer in model.layers:
        inner = getattr(layer, "layer", layer)
        if inner.name == name:
            return layer
    raise ValueError(
        f"Expected a layer {name!r} in the model to train. It has {[layer.name for layer in model.layers][:5]} …"
    )


def _variables(model: Any, step: Weighted) -> dict[str, Any]:
    layer = _layer(model, step.name)
    found = {}
    for variable in layer.weights:
        short = variable.name.split("/")[-1].split(":")[0]
        if short in ("kernel", "depthwise_kernel", "bias"):
            found["bias" if short == "bias" else "kernel"] = variable
    return found
