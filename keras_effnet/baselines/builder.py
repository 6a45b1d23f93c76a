"""Builds a scaled baseline; the layers and the inverted block are those of EfficientNet's builder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_effnet.baselines.table import Baseline, Block, Scaled
from keras_effnet.network.builder import Layers, Options, head, inverted_block


def build_layers(scaled: Scaled, options: Options, inputs: Any, *, keras: Any) -> Any:
    """Build the functional model from pixels to features or probabilities.

    Args:
        scaled: the unrolled blocks.
        options: everything else; `options_for` fills in what the baseline fixes.
        inputs: the model's input, a Keras tensor `[N, H, W, C]` of pixels 0–255.
        keras: the Keras namespace to build with: `keras`, `tf_keras` or a `Sketch`.

    Returns:
        A model of that namespace.
    """
    baseline = scaled.baseline
    make = Layers(keras, options, baseline.activation)
    x = inputs
    if options.preprocessing is not None and baseline.preprocessing is not None:
        scale, offset = baseline.preprocessing.for_channels(int(x.shape[-1]))
        x = keras.layers.Rescaling(scale, offset=offset, dtype="float32", name="rescaling")(x)
    x = make.conv(x, "stem", scaled.stem_filters, baseline.stem_kernel, stride=2)
    if baseline.stem_pool:
        # behind a relu zeros never win, so padding with them is what "same" would do symmetrically
        x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    for block in scaled.blocks:
        x = _KINDS[block.kind](make, x, block)
    if scaled.top_filters:
        x = make.conv(x, "top", scaled.top_filters, 1)
    return keras.Model(inputs, head(x, options, keras), name=options.name)


def options_for(
    baseline: Baseline,
    *,
    include_top: bool = True,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    pooling: str | None = None,
    include_preprocessing: bool = True,
    dropout_rate: float | None = None,
    name: str | None = None,
) -> Options:
    """The builder's options, with what the baseline fixes."""
    return Options(
        include_top=include_top,
        classes=classes,
        classifier_activation=classifier_activation,
        pooling=pooling,
        preprocessing=baseline.name if include_preprocessing else None,
        dropout_rate=baseline.dropout if dropout_rate is None else dropout_rate,
        padding=baseline.padding,
        epsilon=baseline.epsilon,
        name=name or baseline.title.lower(),
        use_bias=baseline.use_bias,
    )


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


_KINDS: dict[str, Callable[[Layers, Any, Block], Any]] = {
    "inverted": inverted_block,
    "separable": _separable,
    "bottleneck": _bottleneck,
    "bottleneck_v1.5": _bottleneck,
}
