"""`EfficientNet(variant, …)` and the named functions, with the signature of keras.applications."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, ParamSpec

import keras

from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.builder import (
    PADDINGS,
    BuildOptions,
    build_model,
    check_activation,
    check_classes,
    check_epsilon,
    check_input_shape,
    check_rate,
    is_whole,
)
from keras_effnet.network.conventions import Preprocessing, rescaling_name
from keras_effnet.network.table import Architecture
from keras_effnet.network.variants import VARIANTS, Variant, architecture_of, get_variant
from keras_effnet.weights import load_planned, plan_weights

Weights = str | os.PathLike[str] | None


def EfficientNet(  # noqa: N802 - a model constructor, named like those of keras.applications
    variant: str | Variant,
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: Any = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str | None = None,
    *,
    include_preprocessing: bool = True,
    drop_connect_rate: float = 0.2,
    dropout_rate: float | None = None,
    preprocessing: Preprocessing | None = None,
    padding: str | None = None,
    epsilon: float | None = None,
    prefix: str = "",
    endpoints: Iterable[int] | None = None,
    namespace: Any = None,
) -> keras.Model:
    """Build an EfficientNet and load weights into it.

    The graph depends on the arguments only, never on how the weights were given. Their order is that of
    keras.applications.

    Args:
        variant: `"b0"` … `"b8"`, `"l2"`, `"lite0"` … `"lite4"`, or a `Variant` of your own.
        include_top: whether to add pooling, dropout and the classifier.
        weights: None for random weights, the name of a published set (`"imagenet"`), or a file.
        input_tensor: a Keras tensor `[N, H, W, C]` to build on, pixels 0–255.
        input_shape: (H, W, C), sides of at least 32 or None. Default: the variant's resolution, or
            (None, None, 3) without top.
        pooling: without top: None for the feature map `[N, h, w, C]`; `"avg"` or `"max"` for `[N, C]`.
        classes: outputs of the classifier. With ImageNet's weights and another number than 1000 the
            classifier stays random, with a warning.
        classifier_activation: None for logits.
        name: name of the model; it changes nothing else.
        include_preprocessing: False to pass pixels that are preprocessed already.
        drop_connect_rate: rate that drop-connect reaches at the last block, 0–1.
        dropout_rate: before the classifier; None for the variant's own.
        preprocessing: what the graph does to a pixel x: `"imagenet"`, `"advprop"`, `"lite"`, `"unit"`
            (x / 255), or (mean, std) of your own for pixels 0–1, each one number or one per channel: (x /
            255 - mean) / std. None for the one that `weights` were trained with (without weights: the
            variant's usual one). A file that leaves it open asks for it.
        padding: of strided convolutions, `"same"` or PyTorch's `"symmetric"`. None for what `weights` were trained
            with where that is known (a published set or file, a converted one), else `"same"`.
        epsilon: of batch normalization. None likewise: 1e-5 for PyTorch's own trainings, else 1e-3.
        prefix: what the names of all layers begin with, for example `"left_"`. Keras wants every name
            once: two networks on one `input_tensor` that shall become one model need different ones.
        endpoints: without top: which feature maps to give instead of the last one, for detection and
            segmentation: `(1, 2, 3, 4, 5)` for those of strides 2, 4, 8, 16 and 32. The model then gives a
            dictionary `{"reduction_1": [N, H / 2, W / 2, C], …}` of the output of the last block of each stride,
            in front of `top_conv`, as EfficientDet and timm's `features_only` take them: of B0
            `block1a_project_bn`, `block2b_add`, `block3b_add`, `block5c_add` and `block7a_project_bn`. Blocks
            that no map needs are left out.
        namespace: the Keras to build with: `keras` (default), or `tf_keras` for a legacy twin with
            the same layer names.

    Returns:
        A functional `keras.Model` from RGB pixels 0–255 `[N, H, W, C]`, uint8 or float, to
        probabilities `[N, classes]` or features; with `endpoints` to a dictionary of maps.

    Raises:
        InvalidInputError: an argument that cannot be used.
        WeightsError: the weights are missing, damaged or of another network.

    Source: arXiv:1905.11946; layer names of `keras.applications.efficientnet`.
    """
    chosen = get_variant(variant)
    keras_ = namespace or keras
    _check(pooling, padding, epsilon, drop_connect_rate, dropout_rate)
    architecture = architecture_of(chosen, drop_connect_rate)
    chosen_maps = _check_endpoints(endpoints, architecture, include_top=include_top, pooling=pooling)
    if include_top:
        classes = check_classes(classes)
        check_activation(classifier_activation, keras_)
    plan = plan_weights(
        weights,
        chosen,
        preprocessing,
        include_top=include_top,
        include_preprocessing=include_preprocessing,
        padding=padding,
        epsilon=epsilon,
    )
    usual = chosen.baseline.preprocessing
    convention = plan.preprocessing or usual
    inputs, x = _inputs(keras_, chosen, include_top, input_tensor, input_shape)
    options = BuildOptions(
        include_top=include_top,
        classes=classes,
        classifier_activation=classifier_activation,
        pooling=pooling,
        endpoints=chosen_maps,
        preprocessing=convention if include_preprocessing else None,
        rescaling_name=rescaling_name(convention, usual),
        dropout_rate=chosen.dropout if dropout_rate is None else dropout_rate,
        padding=padding or plan.facts.padding or PADDINGS[0],
        epsilon=epsilon or plan.facts.epsilon or chosen.baseline.epsilon,
        name=name or chosen.title.lower(),
        prefix=prefix,
    )
    model = build_model(architecture, options, inputs, x, keras=keras_)
    load_planned(model, plan)
    return model


def _inputs(
    keras_: Any, variant: Variant, include_top: bool, input_tensor: Any, input_shape: Any
) -> tuple[Any, Any]:
    """The model's input and the tensor to start from."""
    smallest = variant.baseline.smallest
    if keras_.backend.image_data_format() != "channels_last":
        raise InvalidInputError(
            "Expected keras.config.image_data_format() to be 'channels_last'. Received: "
            f"{keras_.backend.image_data_format()!r}. Call keras.config.set_image_data_format('channels_last')."
        )
    if input_tensor is not None:
        if not _is_keras_tensor(keras_, input_tensor) or len(input_tensor.shape) != 4:
            shape = getattr(input_tensor, "shape", None)
            raise InvalidInputError(
                "Expected input_tensor to be a Keras tensor [N, height, width, channels]. Received: "
                f"{type(input_tensor).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}. "
                "Pass keras.Input((height, width, channels)), or what a layer makes of one."
            )
        shape = tuple(input_tensor.shape[1:])
        if input_shape is not None and not _compatible(shape, check_input_shape(input_shape, smallest)):
            raise InvalidInputError(
                f"Expected input_shape to fit input_tensor, which has {shape}. Received: {tuple(input_shape)}. "
                "Leave input_shape out."
            )
        check_input_shape(shape, smallest)
        return _source_of(keras_, input_tensor), input_tensor
    if input_shape is None:
        side = variant.resolution if include_top else None
        input_shape = (side, side, 3)
    inputs = keras_.Input(shape=check_input_shape(input_shape, smallest))
    return inputs, inputs


def _is_keras_tensor(keras_: Any, tensor: Any) -> bool:
    try:
        return bool(keras_.backend.is_keras_tensor(tensor))
    except ValueError:  # tf_keras, for what is no tensor at all
        return False


def _compatible(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    return len(left) == len(right) and all(
        a is None or b is None or a == b for a, b in zip(left, right, strict=True)
    )


def _source_of(keras_: Any, tensor: Any) -> Any:
    """The `Input` that `tensor` was computed from."""
    sources = keras_.utils.get_source_inputs(tensor)
    return sources[0] if len(sources) == 1 else sources


def _check(
    pooling: str | None,
    padding: str | None,
    epsilon: float | None,
    drop_connect_rate: float,
    dropout_rate: float | None,
) -> None:
    if pooling not in (None, "avg", "max"):
        raise InvalidInputError(f"Expected pooling to be None, 'avg' or 'max'. Received: {pooling!r}.")
    if padding is not None and padding not in PADDINGS:
        raise unknown_name("padding", padding, PADDINGS)
    if epsilon is not None:
        check_epsilon(epsilon)
    check_rate("drop_connect_rate", drop_connect_rate)
    if dropout_rate is not None:
        check_rate("dropout_rate", dropout_rate)


def _check_endpoints(
    endpoints: Any, architecture: Architecture, *, include_top: bool, pooling: str | None
) -> tuple[int, ...]:
    """Make sure that feature maps were asked for that there are; returns them as Python's integers.

    Raises:
        InvalidInputError: beside a classifier or pooling; no number from 1 on, or too large a one, or one twice; none at all.
    """
    if endpoints is None:
        return ()
    numbers = list(endpoints) if isinstance(endpoints, Iterable) and not isinstance(endpoints, str) else []
    if include_top or pooling is not None:
        given = "include_top=True" if include_top else f"pooling={pooling!r}"
        raise InvalidInputError(
            f"Expected endpoints with include_top=False and pooling=None, since they are maps. Received: {given} with "
            f"endpoints={endpoints!r}. Pass include_top=False, or leave endpoints out."
        )
    most = 1 + architecture.baseline.stem_pool + sum(block.stride == 2 for block in architecture.blocks)
    known = all(is_whole(number) and 1 <= number <= most for number in numbers)
    if not numbers or not known or len(set(numbers)) < len(numbers):
        raise InvalidInputError(
            f"Expected endpoints as different numbers from 1 (stride 2) to {most} (stride {2**most}). "
            f"Received: {endpoints!r}. Pass for example (3, 4, 5)."
        )
    return tuple(int(number) for number in numbers)


P = ParamSpec("P")


def _constructor(
    variant: Variant, build: Callable[Concatenate[str | Variant, P], keras.Model]
) -> Callable[P, keras.Model]:
    """`EfficientNet` for one variant: the same arguments without the first, and the same text about them."""

    def construct(*args: P.args, **kwargs: P.kwargs) -> keras.Model:
        return build(variant, *args, **kwargs)

    signature = inspect.signature(build)
    remaining = [each for each in signature.parameters.values() if each.name != "variant"]
    described = inspect.cleandoc(build.__doc__ or "").partition("include_top:")[2]
    facts = f"{variant.title}: {variant.resolution} px, width {variant.width}, depth {variant.depth}."
    construct.__name__ = construct.__qualname__ = variant.title
    construct.__signature__ = signature.replace(parameters=remaining)  # type: ignore[attr-defined]
    construct.__doc__ = (
        f"{facts}\n\nPositional order and defaults are those of keras.applications.\n\n"
        f"Args:\n    include_top:{described}"
    )
    return construct


EfficientNetB0 = _constructor(VARIANTS["b0"], EfficientNet)
EfficientNetB1 = _constructor(VARIANTS["b1"], EfficientNet)
EfficientNetB2 = _constructor(VARIANTS["b2"], EfficientNet)
EfficientNetB3 = _constructor(VARIANTS["b3"], EfficientNet)
EfficientNetB4 = _constructor(VARIANTS["b4"], EfficientNet)
EfficientNetB5 = _constructor(VARIANTS["b5"], EfficientNet)
EfficientNetB6 = _constructor(VARIANTS["b6"], EfficientNet)
EfficientNetB7 = _constructor(VARIANTS["b7"], EfficientNet)
EfficientNetB8 = _constructor(VARIANTS["b8"], EfficientNet)
EfficientNetL2 = _constructor(VARIANTS["l2"], EfficientNet)
EfficientNetLite0 = _constructor(VARIANTS["lite0"], EfficientNet)
EfficientNetLite1 = _constructor(VARIANTS["lite1"], EfficientNet)
EfficientNetLite2 = _constructor(VARIANTS["lite2"], EfficientNet)
EfficientNetLite3 = _constructor(VARIANTS["lite3"], EfficientNet)
EfficientNetLite4 = _constructor(VARIANTS["lite4"], EfficientNet)
