"""MobileNetV1, MobileNetV2, ResNet-50 and tables of your own, scalable in depth, width and resolution.

    keras_effnet.baselines.MobileNetV2(depth=1.4, width=1.2, resolution=288)
    keras_effnet.baselines.build(my_table, width=0.5)
    keras_effnet.baselines.cost_of(my_table, width=0.5).macs     # without building it

At scale 1 the three equal keras.applications in parameters, layer shapes and outputs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from keras_effnet.baselines.builder import build_layers, options_for
from keras_effnet.baselines.table import (
    BASELINES,
    EFFICIENTNET_B0,
    MOBILENET_V1,
    MOBILENET_V2,
    RESNET50,
    RESNET50_V15,
    Baseline,
    Stage,
    scaled,
)
from keras_effnet.costs import Cost, cost_of_graph
from keras_effnet.costs.dry_run import DryRun
from keras_effnet.errors import InvalidInputError, unknown_name
from keras_effnet.network.arguments import check_activation, check_classes, check_input_shape, check_rate

if TYPE_CHECKING:
    import keras

__all__ = [
    "BASELINES",
    "EFFICIENTNET_B0",
    "MOBILENET_V1",
    "MOBILENET_V2",
    "RESNET50",
    "RESNET50_V15",
    "Baseline",
    "MobileNetV1",
    "MobileNetV2",
    "ResNet50",
    "Stage",
    "build",
    "cost_of",
    "get_baseline",
]

Weights = str | os.PathLike[str] | None


def get_baseline(baseline: str | Baseline) -> Baseline:
    """The baseline called `b0`, `mobilenet_v1`, `mobilenet_v2`, `resnet50` or `resnet50_v1.5`; your own as it is.

    Raises:
        InvalidInputError: no such baseline.
    """
    if isinstance(baseline, Baseline):
        return baseline
    key = str(baseline).lower().replace("-", "").replace("mobilenetv", "mobilenet_v")
    if key not in BASELINES:
        raise unknown_name("baseline", baseline, BASELINES)
    return BASELINES[key]


def build(
    baseline: str | Baseline,
    *,
    depth: float = 1.0,
    width: float = 1.0,
    resolution: int | None = None,
    weights: Weights = None,
    classes: int = 1000,
    include_top: bool = True,
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    dropout_rate: float | None = None,
    name: str | None = None,
    namespace: Any = None,
) -> keras.Model:
    """Build a baseline, scaled.

    Args:
        baseline: one of `BASELINES`, or a table of your own.
        depth: factor of the repeats, > 0; every stage's product is rounded up.
        width: factor of all filters, > 0; rounded to multiples of 8.
        resolution: side of the input, at least 32 pixels; None for the baseline's own.
        weights: None for random ones. At scale 1 of `mobilenet_v1`, `mobilenet_v2` and `resnet50`: `"imagenet"` or a file, loaded by keras.applications and copied.
        classes: outputs of the classifier.
        include_top: whether to add pooling, dropout and the classifier.
        pooling: without top: None, `"avg"` or `"max"`.
        classifier_activation: None for logits.
        include_preprocessing: False to pass pixels that are preprocessed already.
        dropout_rate: before the classifier; None for the baseline's own.
        name: name of the model.
        namespace: the Keras to build with, `keras` (default) or `tf_keras`.

    Returns:
        A functional model from RGB pixels 0–255 `[N, H, W, 3]` to probabilities or features.

    Raises:
        InvalidInputError: an argument that cannot be used.
    """
    if pooling not in (None, "avg", "max"):
        raise InvalidInputError(f"Expected pooling to be None, 'avg' or 'max'. Received: {pooling!r}.")
    chosen = get_baseline(baseline)
    network = scaled(chosen, depth=depth, width=width)
    shape = _shape(chosen, resolution)
    if namespace is None:
        import keras

        namespace = keras
    if dropout_rate is not None:
        check_rate("dropout_rate", dropout_rate)
    if include_top:
        classes = check_classes(classes)
        check_activation(classifier_activation, namespace)
    options = options_for(
        chosen,
        include_top=include_top,
        classes=classes,
        classifier_activation=classifier_activation,
        pooling=pooling,
        include_preprocessing=include_preprocessing,
        dropout_rate=dropout_rate,
        name=name,
    )
    if weights is not None:
        from keras_effnet.baselines.keras_weights import copy_weights, find_twin

        twin = find_twin(
            chosen, scale=(depth, width), classes=classes, include_top=include_top, weights=weights
        )
    model = build_layers(network, options, namespace.Input(shape=shape), keras=namespace)
    if weights is not None:
        copy_weights(twin, model, bgr=chosen is RESNET50)
    return model


def cost_of(
    baseline: str | Baseline,
    *,
    depth: float = 1.0,
    width: float = 1.0,
    resolution: int | None = None,
    classes: int = 1000,
    batch: int = 1,
) -> Cost:
    """What `build` with the same arguments would cost; the same builder, without weights or Keras."""
    chosen = get_baseline(baseline)
    shape = _shape(chosen, resolution)
    dry = DryRun()
    network = scaled(chosen, depth=depth, width=width)
    graph = build_layers(network, options_for(chosen, classes=classes), dry.Input(shape), keras=dry)
    return cost_of_graph(graph, shape, batch=batch)


def _shape(baseline: Baseline, resolution: int | None) -> tuple[int, int, int]:
    side = baseline.resolution if resolution is None else resolution
    check_input_shape((side, side, 3))
    return int(side), int(side), 3


def MobileNetV1(  # noqa: N802 - named like a model constructor
    depth: float = 1.0, width: float = 1.0, resolution: int = 224, weights: Weights = None, **options: Any
) -> keras.Model:
    """MobileNetV1 (arXiv:1704.04861), scaled; see `build` for the arguments."""
    return build(MOBILENET_V1, depth=depth, width=width, resolution=resolution, weights=weights, **options)


def MobileNetV2(  # noqa: N802 - as above
    depth: float = 1.0, width: float = 1.0, resolution: int = 224, weights: Weights = None, **options: Any
) -> keras.Model:
    """MobileNetV2 (arXiv:1801.04381), scaled; see `build` for the arguments."""
    return build(MOBILENET_V2, depth=depth, width=width, resolution=resolution, weights=weights, **options)


def ResNet50(  # noqa: N802 - as above
    depth: float = 1.0, width: float = 1.0, resolution: int = 224, weights: Weights = None, **options: Any
) -> keras.Model:
    """ResNet-50 (arXiv:1512.03385), scaled; see `build` for the arguments."""
    return build(RESNET50, depth=depth, width=width, resolution=resolution, weights=weights, **options)
