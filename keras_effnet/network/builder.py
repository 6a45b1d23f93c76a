"""Builds a network from its `Architecture` with the functional API: EfficientNet and the baselines.

Only Keras layers are used, so the same function builds on any Keras backend and, given another
namespace, a legacy twin with the same layer names (`tf_keras`; quantization-aware training needs one)
or nothing but the list of calls (`costs.dry_run`). Layer names are those of keras.applications'
EfficientNets: weight files and `get_layer(...)` calls depend on them.

Inputs and activations are `[N, H, W, C]`, whatever the Keras configuration says. At the end stand the checks of what
people pass to the constructors; numbers may be NumPy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from numbers import Integral, Real
from typing import Any, TypeGuard

from keras_effnet.errors import InvalidInputError
from keras_effnet.network.conventions import Convention
from keras_effnet.network.table import MIN_SIZE, Architecture, Block
from keras_effnet.network.variants import Variant

BN_MOMENTUM = 0.99
PADDINGS = ("same", "symmetric")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build a network, apart from its architecture; `of` takes the defaults from a table.

    Attributes:
        preprocessing: what happens to pixels 0–255 inside the graph; None for nothing.
        rescaling_name: of the layer that does it.
        dropout_rate: before the classifier, 0–1.
        padding: `"same"` as TensorFlow pads, or `"symmetric"` as torchvision does.
        epsilon: of batch normalization; 1e-3 in the reference, 1e-5 in torchvision's B0–B4.
        name: name of the model.
        prefix: what the names of its layers begin with.
        include_top: add pooling, dropout and the classifier.
        classes: outputs of the classifier.
        classifier_activation: its activation; None for logits.
        pooling: without top: None for the feature map, `"avg"` or `"max"`.
        endpoints: without top: how often halved the maps are that leave the network, instead of the last one.
    """

    preprocessing: Convention | None
    dropout_rate: float
    padding: str
    epsilon: float
    name: str
    prefix: str = ""
    rescaling_name: str = "rescaling"
    include_top: bool = True
    classes: int = 1000
    classifier_activation: Any = "softmax"
    pooling: str | None = None
    endpoints: tuple[int, ...] = ()

    @classmethod
    def of(cls, variant: Variant, **changed: Any) -> BuildOptions:
        """What a variant's own table says, with some of it changed."""
        baseline = variant.baseline
        own = {
            "preprocessing": baseline.preprocessing,
            "dropout_rate": variant.dropout,
            "padding": baseline.padding,
            "epsilon": baseline.epsilon,
            "name": variant.title.lower(),
        }
        return cls(**{**own, **changed})


def build_model(architecture: Architecture, options: BuildOptions, inputs: Any, x: Any, *, keras: Any) -> Any:
    """Build the functional model that goes from `inputs`, pixels 0–255 `[N, H, W, C]`, to features or probabilities.

    Args:
        x: the tensor to start from, usually `inputs` itself.
        keras: the Keras namespace to build with, `keras` or `tf_keras`; the model is of that one. With endpoints it
            gives a dictionary of maps, `"reduction_1"` ….
    """
    baseline = architecture.baseline
    make = Layers(keras, options, architecture)
    if options.preprocessing is not None:
        x = make.preprocess(x, options.preprocessing, _names_between(inputs, x, keras))
    x = make.conv(x, "stem", architecture.stem_filters, baseline.stem_kernel, stride=2)
    if baseline.stem_pool:
        x = make.halve(x, "stem_pool")
    halved = 1 + baseline.stem_pool
    maps = {halved: x}
    for block in architecture.blocks:
        x = _BUILDERS[block.kind](make, x, block)
        halved += block.stride == 2
        maps[halved] = x  # the last one of its size stays
    if options.endpoints:
        ends = {f"reduction_{number}": maps[number] for number in options.endpoints}
        return keras.Model(inputs, ends, name=options.name)
    if architecture.top_filters:
        x = make.conv(x, "top", architecture.top_filters, 1)
    return keras.Model(inputs, _head(make, x), name=options.name)


def _names_between(inputs: Any, x: Any, keras: Any) -> set[str]:
    """The names of the layers that lead from `inputs` to `x`."""
    if x is inputs:
        return set()
    return {layer.name for layer in keras.Model(inputs, x, name="upstream").layers}


def _inverted(make: Layers, inputs: Any, block: Block) -> Any:
    """Mobile inverted bottleneck: expand, depthwise, squeeze-and-excite, project, skip."""
    name = block.name
    x = inputs
    if block.expand_ratio != 1:
        x = make.conv(x, f"{name}_expand", block.expanded_filters, 1)
    x = make.depthwise(x, name, block.kernel_size, block.stride)
    if block.se_filters:
        x = make.squeeze_and_excite(x, f"{name}_se", block.se_filters, block.expanded_filters)
    x = make.conv(x, f"{name}_project", block.filters_out, 1, activate=False)
    if block.has_skip:
        if block.drop_rate:
            # one draw for each picture: the whole residual branch is dropped or kept
            drop = make.layers.Dropout(block.drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")
            x = drop(x)
        x = make.layers.Add(name=f"{name}_add")([x, inputs])
    return x


def _separable(make: Layers, x: Any, block: Block) -> Any:
    """MobileNetV1: a depthwise and a pointwise convolution, both activated, no skip."""
    x = make.depthwise(x, block.name, block.kernel_size, block.stride)
    return make.conv(x, f"{block.name}_project", block.filters_out, 1)


def _bottleneck(make: Layers, inputs: Any, block: Block) -> Any:
    """ResNet: reduce, convolve, restore; the skip is a convolution where shapes change."""
    name, inner = block.name, block.expanded_filters
    shortcut = inputs
    if not block.has_skip:
        shortcut = make.conv(
            inputs, f"{name}_shortcut", block.filters_out, 1, stride=block.stride, activate=False
        )
    early, late = (1, block.stride) if block.kind == "bottleneck_v1.5" else (block.stride, 1)
    x = make.conv(inputs, f"{name}_reduce", inner, 1, stride=early)
    x = make.conv(x, f"{name}_inner", inner, block.kernel_size, stride=late)
    x = make.conv(x, f"{name}_restore", block.filters_out, 1, activate=False)
    x = make.layers.Add(name=f"{name}_add")([shortcut, x])
    return make.activate(x, f"{name}_out")


_BUILDERS: dict[str, Callable[[Layers, Any, Block], Any]] = {
    "inverted": _inverted,
    "separable": _separable,
    "bottleneck": _bottleneck,
    "bottleneck_v1.5": _bottleneck,
}


def _head(make: Layers, x: Any) -> Any:
    layers, options = make.layers, make.options
    channels_last = {"data_format": "channels_last"}
    if not options.include_top:
        if options.pooling == "avg":
            return layers.GlobalAveragePooling2D(name="avg_pool", **channels_last)(x)
        if options.pooling == "max":
            return layers.GlobalMaxPooling2D(name="max_pool", **channels_last)(x)
        return x
    x = layers.GlobalAveragePooling2D(name="avg_pool", **channels_last)(x)
    if options.dropout_rate > 0:
        x = layers.Dropout(options.dropout_rate, name="top_dropout")(x)
    return layers.Dense(
        options.classes,
        activation=options.classifier_activation,
        # uniform within ±1 / sqrt(fan out), as in the reference
        kernel_initializer=make.keras.initializers.VarianceScaling(1.0 / 3.0, "fan_out", "uniform"),
        # a float16 softmax over many classes loses the small probabilities
        dtype="float32",
        name="predictions",
    )(x)


class _Prefixed:
    """The layer classes of a Keras namespace, which give their layers names with a prefix."""

    def __init__(self, layers: Any, prefix: str) -> None:
        self._layers, self._prefix = layers, prefix

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        return lambda *args, name, **config: getattr(self._layers, kind)(
            *args, name=self._prefix + name, **config
        )


class Layers:
    """The few layer groups that the network repeats, bound to one Keras namespace."""

    def __init__(self, keras: Any, options: BuildOptions, architecture: Architecture) -> None:
        self.keras = keras
        self.layers = _Prefixed(keras.layers, options.prefix)
        self.options = options
        self.activation = architecture.baseline.activation
        self.use_bias = architecture.baseline.use_bias

    def preprocess(self, x: Any, convention: Convention, taken: set[str]) -> Any:
        # people have a Rescaling in front of input_tensor, which Keras calls by the same name
        prefix = self.options.prefix
        name = next(name for name in _numbered(self.options.rescaling_name) if prefix + name not in taken)
        scale, offset = convention.for_channels(int(x.shape[-1]))
        return self.layers.Rescaling(scale, offset=offset, dtype="float32", name=name)(x)

    def conv(
        self, x: Any, name: str, filters: int, kernel_size: int, *, stride: int = 1, activate: bool = True
    ) -> Any:
        x, padding = self._pad(x, f"{name}_conv_pad", kernel_size, stride)
        x = self.layers.Conv2D(
            filters,
            kernel_size,
            strides=stride,
            padding=padding,
            data_format="channels_last",
            use_bias=self.use_bias,
            kernel_initializer=self._conv_init(),
            name=f"{name}_conv",
        )(x)
        return self._normalize(x, f"{name}_bn", f"{name}_activation" if activate else None)

    def depthwise(self, x: Any, name: str, kernel_size: int, stride: int) -> Any:
        x, padding = self._pad(x, f"{name}_dwconv_pad", kernel_size, stride)
        x = self.layers.DepthwiseConv2D(
            kernel_size,
            strides=stride,
            padding=padding,
            data_format="channels_last",
            use_bias=False,
            depthwise_initializer=self._conv_init(),
            name=f"{name}_dwconv",
        )(x)
        return self._normalize(x, f"{name}_bn", f"{name}_activation")

    def squeeze_and_excite(self, x: Any, name: str, reduced: int, filters: int) -> Any:
        # keepdims: a Reshape here costs a chain of shape operators in every export
        gate = self.layers.GlobalAveragePooling2D(
            keepdims=True, data_format="channels_last", name=f"{name}_squeeze"
        )(x)
        for suffix, width, activation in (
            ("reduce", reduced, self.activation),
            ("expand", filters, "sigmoid"),
        ):
            gate = self.layers.Conv2D(
                width,
                1,
                padding="same",
                data_format="channels_last",
                activation=activation,
                kernel_initializer=self._conv_init(),
                name=f"{name}_{suffix}",
            )(gate)
        return self.layers.Multiply(name=f"{name}_excite")([x, gate])

    def halve(self, x: Any, name: str) -> Any:
        """The largest of each 3×3 neighbourhood, every second one."""
        # behind a relu zeros never win, so padding with them is what "same" would do symmetrically
        x = self.layers.ZeroPadding2D(1, data_format="channels_last", name=f"{name}_pad")(x)
        return self.layers.MaxPooling2D(3, strides=2, data_format="channels_last", name=name)(x)

    def _normalize(self, x: Any, name: str, activation_name: str | None) -> Any:
        x = self.layers.BatchNormalization(
            axis=-1, momentum=BN_MOMENTUM, epsilon=self.options.epsilon, name=name
        )(x)
        return x if activation_name is None else self.activate(x, activation_name)

    def activate(self, x: Any, name: str) -> Any:
        if self.activation == "relu6":
            return self.layers.ReLU(max_value=6.0, name=name)(x)
        return self.layers.Activation(self.activation, name=name)(x)

    def _pad(self, x: Any, name: str, kernel_size: int, stride: int) -> tuple[Any, str]:
        """Symmetric padding differs from SAME only where the stride and the kernel are not 1."""
        if self.options.padding == "same" or stride == 1 or kernel_size == 1:
            return x, "same"
        pad = self.layers.ZeroPadding2D(kernel_size // 2, data_format="channels_last", name=name)
        return pad(x), "valid"

    def _conv_init(self) -> Any:
        return self.keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")


def _numbered(name: str) -> Iterator[str]:
    """The name itself, then `name_1`, `name_2` … as Keras counts."""
    yield name
    yield from (f"{name}_{number}" for number in count(1))


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, of Python or of NumPy, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_input_shape(shape: Any, smallest: int = MIN_SIZE) -> tuple[int | None, int | None, int]:
    """Make sure that `shape` is (H, W, C) with sides of so many pixels or more, or None.

    Returns:
        The same in Python's own integers.

    Raises:
        InvalidInputError: another rank, too small a side, no channel.
    """
    advice = "Pass for example (224, 224, 3), or (None, None, 3) for any size."
    expected = f"Expected input_shape as (height, width, channels) with sides of at least {smallest}"
    sides = tuple(shape) if isinstance(shape, Iterable) and not isinstance(shape, str) else ()
    if len(sides) != 3 or not all(side is None or is_whole(side) for side in sides):
        raise InvalidInputError(f"{expected}. Received: {shape!r}. {advice}")
    height, width, channels = (None if side is None else int(side) for side in sides)
    if any(side is not None and side < smallest for side in (height, width)):
        raise InvalidInputError(f"{expected}. Received: {shape!r}. {advice}")
    if channels is None or channels < 1:
        raise InvalidInputError(
            f"{expected} and at least one channel, in the last place. Received: {shape!r}. {advice}"
        )
    return height, width, channels


def check_classes(classes: Any) -> int:
    """Make sure that `classes` is a whole number of at least 1; returns it as Python's."""
    if not is_whole(classes) or classes < 1:
        raise InvalidInputError(
            f"Expected classes to be a whole number of at least 1. Received: {classes!r}. "
            "Pass how many outputs the classifier shall have."
        )
    return int(classes)


def check_rate(name: str, rate: Any) -> None:
    """Make sure that the argument `name` is a rate, 0–1."""
    if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 <= float(rate) < 1:
        raise InvalidInputError(
            f"Expected {name} to lie in [0, 1). Received: {rate!r}. Pass a number, for example 0.2."
        )


def check_epsilon(epsilon: Any) -> None:
    """Make sure that a batch normalization can add `epsilon` to a variance.

    Raises:
        InvalidInputError: not a finite number above 0.
    """
    if not isinstance(epsilon, Real) or isinstance(epsilon, bool) or not 0 < float(epsilon) < math.inf:
        raise InvalidInputError(
            f"Expected epsilon to be a number above 0. Received: {epsilon!r}. Pass 1e-3, or 1e-5 for "
            "torchvision's B0–B4."
        )


def check_activation(activation: Any, keras: Any) -> None:
    """Make sure that a Keras namespace knows `classifier_activation`."""
    try:
        keras.activations.get(activation)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            "Expected classifier_activation to be the name of a Keras activation, a function, or None. "
            f"Received: {activation!r}. Pass 'softmax', 'sigmoid', or None for logits."
        ) from error
