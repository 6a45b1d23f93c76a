"""The way from a picture through a feature map to the scores of one output.

Works on any functional or sequential classifier that ends in a dense layer, whatever its layers are
called, also when the backbone is a model inside the model, and when other outputs branch off: only the
calls that the chosen output depends on are looked at. The layers are those of the model, so a path
always speaks of the current weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.reader import INPUT, TRAINING_ONLY, Call, CallGraph, LayerOutput, read_graph
from keras_effnet.pictures.labels import labels_in

FloatArray = npt.NDArray[np.float32]
Tensors = dict[LayerOutput, Any]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a path sees in one picture.

    Attributes:
        features: float32 `[h, w, C]`, the map in front of the pooling (or the chosen layer's output).
        scores: float32 `[classes]`, the classifier before its activation (logits).
        outputs: float32 `[classes]`, what the model itself returns.
        gradient: float32 `[h, w, C]`, of one score with respect to `features`; None unless asked for.
    """

    features: FloatArray
    scores: FloatArray
    outputs: FloatArray
    gradient: FloatArray | None = None


class ScorePath:
    """The calls that lead from the picture to one output of a classifier.

    Attributes:
        size: (height, width) that the model takes; None where it is free.
        channels: of the input.
        classes: how many can be explained. A single sigmoid decides between two: 0 is the negative
            class, whose score is the negative of the unit's, and 1 the positive one.
        labels: the class names that travel on the path, or None.

    Raises:
        InvalidInputError: not a classifier that ends in a dense layer on top of a feature map; several
            outputs or feature maps that could be meant; no such output or layer; several inputs.
    """

    def __init__(self, model: Any, *, output: str | int | None = None, layer: str | None = None) -> None:
        if not isinstance(model, keras.Model):
            raise _not_a_classifier(f"{type(model).__name__} {model!r:.80}")
        self._graph = graph = _graph(model)
        self._target = _chosen_output(model, graph, output)
        self._path = graph.ancestors(self._target)
        self._dense = _classifier_call(graph, self._target)
        self._picture, shape = _picture(graph, self._path)
        self.size, self.channels = (shape[0], shape[1]), int(shape[2])
        self._map = _feature_map(graph, self._path, layer)
        self._units = int(self._classifier.units)
        self._two_sided = self._units == 1 and _ends_in_sigmoid(graph, self._target, self._dense)
        self.classes = 2 if self._two_sided else self._units
        self.labels = labels_in(graph.calls[position].layer for position in self._path)

    def read(self, pixels: FloatArray, gradient_of: int | None = None) -> Reading:
        """Classify one picture, float32 `[H, W, C]`, 0–255; with the gradient of one of the scores if wanted."""
        calls, vector = self._graph.calls, self._graph.calls[self._dense].inputs[0]
        behind = self._graph.descendants(self._map.call, self._path)
        ahead = [position for position in self._path if position not in behind]
        joined = {source for position in behind for source in calls[position].inputs}
        image = keras.ops.convert_to_tensor(pixels[None])
        known = _run(calls, ahead, {LayerOutput(self._picture): image}, keep={self._map, *joined})

        def scores(features: Any) -> tuple[Any, Any]:
            """All scores, and what the model returns."""
            given = {**known, self._map: features}
            found = _run(calls, sorted(behind), given, keep={vector, self._target})
            return self._scores(found[vector]), found[self._target]

        features = known[self._map]
        gradient = None
        if gradient_of is not None:
            dtype = keras.backend.standardize_dtype(features.dtype)

            def score(point: Any) -> Any:
                return scores(keras.ops.cast(point, dtype))[0][gradient_of]

            gradient = _gradient(score, _numpy(features))[0]
        found, outputs = scores(features)
        answer = _numpy(outputs).reshape(-1)
        return Reading(
            features=_numpy(features[0]),
            scores=_numpy(found),
            outputs=np.concatenate([1 - answer, answer]) if self._two_sided else answer,
            gradient=gradient,
        )

    def evidence_weights(self) -> tuple[FloatArray, FloatArray]:
        """Kernel `[C, classes]` and bias `[classes]` of the affine map from mean features to scores.

        Raises:
            InvalidInputError: something between features and classifier is not affine in the mean.
        """
        kernel, bias = self._kernel_and_bias()
        weights, offset = _numpy(kernel).astype(np.float64), _numpy(bias).astype(np.float64)
        head = self._head()
        if not head or not isinstance(head[0], keras.layers.GlobalAveragePooling2D):
            first = head[0].name if head else self._graph.calls[self._map.call].name
            raise _no_cam(f"{first!r} where the average pooling should be")
        for layer in reversed(head[1:]):
            if isinstance(layer, keras.layers.BatchNormalization):
                factor, shift = _affine(layer)
                offset = offset + shift @ weights
                weights = weights * factor[:, None]
            elif not _passes_on(layer):
                raise _no_cam(f"{layer.name!r} ({type(layer).__name__}) between pooling and classifier")
        return weights.astype(np.float32), offset.astype(np.float32)

    @property
    def _classifier(self) -> Any:
        return self._graph.calls[self._dense].layer

    def _head(self) -> list[Any]:
        """The layers between the feature map and the classifier, where they stand in one line."""
        found: list[Any] = []
        source = self._graph.calls[self._dense].inputs[0]
        while source != self._map:
            call = self._graph.calls[source.call]
            if len(call.inputs) != 1:
                raise _no_cam(f"{call.name!r} ({call.kind}), which joins {len(call.inputs)} inputs")
            found.append(call.layer)
            source = call.inputs[0]
        return found[::-1]

    def _scores(self, vector: Any) -> Any:
        """The classifier's scores before its activation."""
        kernel, bias = self._kernel_and_bias()
        flat = keras.ops.reshape(keras.ops.cast(vector, "float32"), (1, -1))
        return keras.ops.matmul(flat, kernel)[0] + bias

    def _kernel_and_bias(self) -> tuple[Any, Any]:
        dense = self._classifier
        kernel = keras.ops.cast(dense.kernel, "float32")
        bias = keras.ops.zeros(self._units) if dense.bias is None else keras.ops.cast(dense.bias, "float32")
        if self._two_sided:  # what speaks for the positive class speaks against the negative one
            return keras.ops.concatenate([-kernel, kernel], 1), keras.ops.concatenate([-bias, bias])
        return kernel, bias


def _last(graph: CallGraph, path: Sequence[int], maps: Sequence[int]) -> list[int]:
    """Those of the maps behind which the path has no other."""
    before = set[int]()  # positions that have a map behind them
    for position in reversed(path):
        if position in before or position in maps:
            before.update(source.call for source in graph.calls[position].inputs)
    return [position for position in maps if position not in before]


def _graph(model: Any) -> CallGraph:
    try:
        return read_graph(model)
    except InvalidInputError as error:
        raise _not_a_classifier(f"the {type(model).__name__} {model.name!r}, which has no graph") from error


def _run(calls: Sequence[Call], order: Iterable[int], given: Tensors, *, keep: set[LayerOutput]) -> Tensors:
    """Call layers in this order on what they read, and forget what nobody reads any more."""
    wanted, order = dict(given), list(order)
    last = {source: position for position in order for source in calls[position].inputs}
    for position in order:
        call = calls[position]
        if call.kind != INPUT:
            made = keras.tree.flatten(call.apply([wanted[source] for source in call.inputs]))
            wanted.update({LayerOutput(position, index): tensor for index, tensor in enumerate(made)})
        for source in call.inputs:
            if last[source] == position and source not in keep:
                wanted.pop(source, None)
    return wanted


def _chosen_output(model: Any, graph: CallGraph, wanted: str | int | None) -> LayerOutput:
    """The output that is meant: the one called so, or the only one that a classifier makes."""
    names = _output_names(model)
    listed = ", ".join(
        f"{index}: {name!r} {list(tensor.shape)}"
        for index, (name, tensor) in enumerate(zip(names, model.outputs, strict=True))
    )
    if wanted is None:
        fitting = [index for index, end in enumerate(graph.outputs) if _explains(graph, end)]
        if len(fitting) > 1:
            raise InvalidInputError(
                f"Expected output= (--output) to say which output to explain. Received: none, for {listed}. "
                "Pass a name or a number."
            )
        return graph.outputs[fitting[0] if fitting else 0]
    by_number = isinstance(wanted, int) and not isinstance(wanted, bool)
    matching = [wanted] if by_number else [index for index, name in enumerate(names) if name == wanted]
    if len(matching) != 1 or not 0 <= int(matching[0]) < len(names):
        raise InvalidInputError(
            f"Expected output to be one of the model's outputs, by name or number: {listed}. Received: {wanted!r}"
            f"{', of which there are several' if len(matching) > 1 else ''}."
        )
    return graph.outputs[int(matching[0])]


def _output_names(model: Any) -> list[str]:
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    return sorted(model.output) if isinstance(model.output, Mapping) else list(model.output_names)


def _explains(graph: CallGraph, end: LayerOutput) -> bool:
    """Whether an output is a classifier's on top of a feature map."""
    try:
        _classifier_call(graph, end)
    except InvalidInputError:
        return False
    return any(_is_map(graph, position) for position in graph.ancestors(end))


def _classifier_call(graph: CallGraph, end: LayerOutput) -> int:
    """Position of the dense layer that makes an output, with nothing but its activation behind it."""
    position = end.call
    while not _is_classifier(call := graph.calls[position]):
        if len(call.inputs) != 1 or getattr(call.layer, "weights", None) or not _keeps_classes(graph, call):
            raise _not_a_classifier(
                f"an output that {call.name!r} ({call.kind}) makes. Build the model with include_top=True, "
                "or explain a part of it that ends in a dense layer"
            )
        position = call.inputs[0].call
    return position


def _is_classifier(call: Call) -> bool:
    """Whether a call is one of a dense layer on a vector; on a map it would be a convolution."""
    return isinstance(call.layer, keras.layers.Dense) and all(
        side == 1 for side in call.outputs[0].shape[1:-1]
    )


def _keeps_classes(graph: CallGraph, call: Call) -> bool:
    """Whether a call may stand between the classifier and the output: as many values, in their order."""
    source = call.inputs[0]
    before, after = graph.calls[source.call].outputs[source.index].shape, call.outputs[0].shape
    return call.kind != INPUT and before[-1] == after[-1]


def _ends_in_sigmoid(graph: CallGraph, end: LayerOutput, dense: int) -> bool:
    position = end.call
    while True:
        call = graph.calls[position]
        if call.kind == "Sigmoid" or getattr(call.layer, "activation", None) is keras.activations.sigmoid:
            return True
        if position == dense:
            return False
        position = call.inputs[0].call


def _picture(graph: CallGraph, path: Sequence[int]) -> tuple[int, tuple[Any, ...]]:
    """Position and shape [H, W, C] of the one input that the output depends on."""
    inputs = [position for position in path if graph.calls[position].kind == INPUT]
    shapes = [tuple(graph.calls[position].outputs[0].shape) for position in inputs]
    if len(inputs) != 1:
        listed = ", ".join(
            f"{graph.calls[position].name!r} {list(shape)}"
            for position, shape in zip(inputs, shapes, strict=True)
        )
        raise InvalidInputError(
            f"Expected a classifier with one input, the picture. Received: {len(inputs)} inputs, {listed}. "
            "Explain a model of the part that only sees the picture."
        )
    if len(shapes[0]) != 4 or shapes[0][3] is None:
        raise _not_a_classifier(f"the input {graph.calls[inputs[0]].name!r} with shape {list(shapes[0])}")
    return inputs[0], shapes[0][1:]


def _feature_map(graph: CallGraph, path: Sequence[int], layer: str | None) -> LayerOutput:
    """The map to look at: that of the layer called so, or the last one of the path."""
    maps = [position for position in path if _is_map(graph, position)]
    if not maps:
        raise _not_a_classifier("a model that has none on the way to this output")
    if layer is None:
        chosen = _last(graph, path, maps)
    else:
        chosen = [position for position in maps if graph.calls[position].name == layer]
        if not chosen:
            known = dict.fromkeys(graph.calls[position].name for position in maps)
            raise unknown_name("layer, with a feature map as its output,", layer, list(known))
    if len(chosen) != 1:
        names = [graph.calls[position].name for position in chosen]
        same = len(set(names)) == 1
        what = f"{names[0]!r} called {len(names)} times" if same else ", ".join(map(repr, names))
        raise InvalidInputError(
            f"Expected one feature map to look at. Received: {what} on the way to this output. "
            + ("Explain the model that is called." if same else "Name one with layer= and 'grad-cam'.")
        )
    return LayerOutput(chosen[0])


def _is_map(graph: CallGraph, position: int) -> bool:
    """Whether a layer's output has positions: `[N, h, w, C]`, more than one of them."""
    call = graph.calls[position]
    if call.kind == INPUT or len(call.outputs) != 1:
        return False
    shape = call.outputs[0].shape
    return len(shape) == 4 and tuple(shape[1:3]) != (1, 1)


def _gradient(function: Any, x: FloatArray) -> FloatArray:
    """The gradient of a scalar function of one array."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        point = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = function(point)
        return _numpy(tape.gradient(value, point))
    if backend == "jax":
        import jax

        return _numpy(jax.grad(function)(x))
    raise InvalidInputError(
        f"Expected Keras to run on TensorFlow or JAX for Grad-CAM. Received: the backend {backend!r}. "
        "Set KERAS_BACKEND, or use class_activation_map, which needs no gradient."
    )


def _affine(layer: Any) -> tuple[Any, Any]:
    """Factor and shift per channel of a batch normalization in inference."""
    variance = _numpy(layer.moving_variance).astype(np.float64)
    factor = 1 / np.sqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        factor = factor * _numpy(layer.gamma)
    shift = -_numpy(layer.moving_mean) * factor
    return factor, shift if layer.beta is None else shift + _numpy(layer.beta)


def _numpy(tensor: Any) -> FloatArray:
    return np.asarray(keras.ops.convert_to_numpy(tensor), dtype=np.float32)


def _passes_on(layer: Any) -> bool:
    """Whether it changes nothing between the pooling and the classifier when a picture is classified."""
    if isinstance(layer, keras.layers.Activation):
        return bool(layer.activation is keras.activations.linear)
    # a class of one's own made from Dropout counts as one
    kinds = {kind.__name__ for kind in type(layer).__mro__}
    return isinstance(layer, keras.layers.Flatten) or not kinds.isdisjoint(TRAINING_ONLY)


def _not_a_classifier(received: str) -> InvalidInputError:
    return InvalidInputError(
        "Expected a classifier of pictures [N, H, W, C]: a functional or sequential Keras model with a "
        f"feature map and a dense layer after it. Received: {received}."
    )


def _no_cam(received: str) -> InvalidInputError:
    return InvalidInputError(
        "Expected global average pooling and then a dense layer, which is what class activation maps are "
        f"defined for. Received: {received}. Use grad_cam (--method grad-cam)."
    )
