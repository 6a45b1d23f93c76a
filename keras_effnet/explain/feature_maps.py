"""Looks inside a classifier: the feature map, the pooled vector, and gradients with respect to the map.

Works on any functional or sequential classifier that ends in a dense layer, whatever its layers are
called, also when the backbone is a model inside the model. The probe shares the layers of the model,
so it always speaks of the current weights.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_effnet.errors import InvalidInputError, unknown_name

FloatArray = npt.NDArray[np.float32]

# Between the pooling and the classifier these change nothing when a picture is classified.
_IDENTITIES = (
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Flatten,
    keras.layers.Identity,
)


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One call of a layer: what went in, what came out."""

    layer: Any
    inputs: Any
    output: Any


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the probe sees in one picture.

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


class Probe:
    """A classifier with its feature map on show.

    Attributes:
        layer_name: the layer whose output is the feature map.
        size: (height, width) that the model takes; None where it is free.
        channels: of the input.
        classes: outputs of the classifier.

    Raises:
        InvalidInputError: not a classifier that ends in a dense layer on top of a feature map, or no
            such layer in it.
    """

    def __init__(self, model: Any, layer: str | None = None) -> None:
        shape = _input_shape(model)
        self.size, self.channels = (shape[0], shape[1]), int(shape[2])
        steps = _trace(model, keras.Input(shape))
        last = _last(steps, lambda step: isinstance(step.layer, keras.layers.Dense), model)
        self._dense = steps[last].layer
        self.classes = int(self._dense.units)
        default = _last(steps[:last], lambda step: _is_map(step.output), model)
        chosen = default if layer is None else _named(steps[:last], layer)
        self._head = [step.layer for step in steps[chosen + 1 : last]] if chosen == default else None
        self.layer_name: str = steps[chosen].layer.name
        self._tap = _Tap(dtype="float32")
        self._probe = _with_tap(model, shape, (self.layer_name, self._tap), self._dense.name)

    def read(self, pixels: FloatArray, gradient_of: int | None = None) -> Reading:
        """Classify one picture.

        Args:
            pixels: float32 `[H, W, C]`, 0–255.
            gradient_of: index of the score whose gradient is wanted.
        """
        image = keras.ops.convert_to_tensor(pixels[None])
        features, vector, outputs = self._probe(image, training=False)
        gradient = None
        if gradient_of is not None:

            def score(delta: Any) -> Any:
                with self._tap.adding(delta):
                    return self._score(self._probe(image, training=False)[1], gradient_of)

            gradient = _gradient(score, np.zeros(features.shape, np.float32))[0]
        return Reading(
            features=_numpy(features[0]),
            scores=_numpy(self._score(vector, None)),
            outputs=_numpy(outputs).reshape(-1),
            gradient=gradient,
        )

    def evidence_weights(self) -> tuple[FloatArray, FloatArray]:
        """Kernel `[C, classes]` and bias `[classes]` of the affine map from mean features to scores.

        Raises:
            InvalidInputError: something between features and classifier is not affine in the mean.
        """
        kernel, bias = self._kernel_and_bias()
        weights, offset = _numpy(kernel).astype(np.float64), _numpy(bias).astype(np.float64)
        head = self._head
        if not head or not isinstance(head[0], keras.layers.GlobalAveragePooling2D):
            first = head[0].name if head else self.layer_name
            raise _no_cam(f"{first!r} where the average pooling should be")
        for layer in reversed(head[1:]):
            if isinstance(layer, keras.layers.BatchNormalization):
                factor, shift = _affine(layer)
                offset = offset + shift @ weights
                weights = weights * factor[:, None]
            elif not (isinstance(layer, _IDENTITIES) or _is_linear(layer)):
                raise _no_cam(f"{layer.name!r} ({type(layer).__name__}) between pooling and classifier")
        return weights.astype(np.float32), offset.astype(np.float32)

    def _score(self, vector: Any, index: int | None) -> Any:
        """The classifier's scores before its activation: all of them, or one."""
        kernel, bias = self._kernel_and_bias()
        scores = keras.ops.matmul(keras.ops.cast(vector, "float32"), kernel)[0] + bias
        return scores if index is None else scores[index]

    def _kernel_and_bias(self) -> tuple[Any, Any]:
        kernel = keras.ops.cast(self._dense.kernel, "float32")
        bias = keras.ops.zeros(self.classes) if self._dense.bias is None else self._dense.bias
        return kernel, keras.ops.cast(bias, "float32")


class _Tap(keras.layers.Layer):
    """Lets its input pass; within `adding` it adds something, so that one can differentiate by it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._delta: Any = None

    def call(self, x: Any) -> Any:
        return x if self._delta is None else x + self._delta

    @contextmanager
    def adding(self, delta: Any) -> Iterator[None]:
        self._delta = delta
        try:
            yield
        finally:
            self._delta = None


_probes: weakref.WeakKeyDictionary[Any, dict[str | None, Probe]] = weakref.WeakKeyDictionary()


def probe_of(model: Any, layer: str | None = None) -> Probe:
    """The probe of a model; built once, because that takes as long as building the model."""
    if not isinstance(model, keras.Model):
        raise _not_a_classifier(f"{type(model).__name__} {model!r:.80}")
    known = _probes.setdefault(model, {})
    if layer not in known:
        known[layer] = Probe(model, layer)
    return known[layer]


def _trace(model: Any, inputs: Any, tap: tuple[str, Any] | None = None) -> list[_Step]:
    """Call the layers of a model, and of the models inside it, one by one on `inputs`.

    Args:
        model: functional or sequential.
        inputs: a Keras tensor.
        tap: name of a layer, and the layer to put behind it.
    """
    steps: list[_Step] = []

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            return run(layer, args[0])
        output = layer(*args, **kwargs)
        if tap is not None and layer.name == tap[0]:
            output = tap[1](output)
        steps.append(_Step(layer=layer, inputs=args[0] if args else None, output=output))
        return output

    def run(inner: Any, x: Any) -> Any:
        if isinstance(inner, keras.Sequential):
            for layer in inner.layers:
                x = call(layer, x)
            return x
        try:
            # a bare model first: a copy of a compiled one would be compiled, with all it takes
            bare = keras.Model(inner.input, inner.output)
            keras.models.clone_model(
                bare, input_tensors=x, clone_function=lambda layer: layer, call_function=call
            )
        except ValueError as error:
            raise _not_a_classifier(f"the {type(inner).__name__} {inner.name!r} ({error})") from error
        return steps[-1].output

    run(model, inputs)
    return steps


def _with_tap(model: Any, shape: Any, tap: tuple[str, Any], dense: str) -> Any:
    """image → [features, what enters the dense layer, outputs], with the tap behind the features."""
    image = keras.Input(shape)
    steps = _trace(model, image, tap)
    found = {step.layer.name: step for step in steps}
    return keras.Model(image, [found[tap[0]].output, found[dense].inputs, steps[-1].output])


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


def _is_map(output: Any) -> bool:
    """Whether a layer's output has positions: `[N, h, w, C]`, more than one of them."""
    shape = getattr(output, "shape", ())
    return len(shape) == 4 and tuple(shape[1:3]) != (1, 1)


def _is_linear(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.linear


def _last(steps: list[_Step], condition: Any, model: Any) -> int:
    for index in reversed(range(len(steps))):
        if condition(steps[index]):
            return index
    raise _not_a_classifier(f"the model {model.name!r}, which has none. Build it with include_top=True")


def _named(steps: list[_Step], name: str) -> int:
    maps = [step.layer.name for step in steps if _is_map(step.output)]
    if name not in maps:
        raise unknown_name("layer, with a feature map as its output,", name, maps)
    return next(index for index, step in enumerate(steps) if step.layer.name == name)


def _input_shape(model: Any) -> tuple[Any, ...]:
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] is None:
        raise _not_a_classifier(f"the model {model.name!r} with input shape {shape}")
    return shape[1:]


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
