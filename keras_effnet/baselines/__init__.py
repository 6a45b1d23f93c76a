"""MobileNetV1, MobileNetV2, ResNet-50 and tables of your own, scalable in depth, width and resolution.

    keras_effnet.baselines.MobileNetV2(depth=1.4, width=1.2, resolution=288)
    keras_effnet.baselines.build(my_table, width=0.5)
    keras_effnet.baselines.cost_of(my_table, width=0.5).macs     # without building it

At scale 1 the three equal keras.applications in parameters, layer shapes and outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_effnet.costs import Cost, cost_of_variant
from keras_effnet.errors import unknown_name
from keras_effnet.network.builder import check_input_shape
from keras_effnet.network.table import (
    BASELINES,
    EFFICIENTNET_B0,
    EFFICIENTNET_LITE0,
    MOBILENET_V1,
    MOBILENET_V2,
    RESNET50,
    RESNET50_V15,
    Baseline,
    Stage,
)
from keras_effnet.network.variants import Variant

if TYPE_CHECKING:
    import keras

    from keras_effnet.applications import Weights

__all__ = [
    "BASELINES",
    "EFFICIENTNET_B0",
    "EFFICIENTNET_LITE0",
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
    "build_variant",
    "cost_of",
    "get_baseline",
]


def __dir__() -> list[str]:
    return __all__


def get_baseline(baseline: str | Baseline) -> Baseline:
    """The baseline called `b0`, `lite0`, `mobilenet_v1`, `mobilenet_v2`, `resnet50` or `resnet50_v1.5`; your own as it is.

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
    **options: Any,
) -> keras.Model:
    """Build a baseline, scaled.

    Args:
        baseline: one of `BASELINES`, or a table of your own.
        depth: factor of the repeats, > 0; every stage's product is rounded up.
        width: factor of all filters, > 0; rounded to multiples of 8.
        resolution: side of the input, at least what its halvings leave a pixel of; None for the baseline's own.
        weights: None for random ones. At scale 1 of `mobilenet_v1`, `mobilenet_v2` and `resnet50`:
            `"imagenet"` or a file, loaded by keras.applications and copied.
        options: as for `keras_effnet.EfficientNet`: `classes`, `include_top`, `pooling`, …. What is
            not given is the baseline's own.

    Returns:
        A functional model from RGB pixels 0–255 `[N, H, W, 3]` to probabilities or features.

    Raises:
        InvalidInputError: an argument that cannot be used.
        WeightsError: keras.applications cannot load the weights.
    """
    return build_variant(_at_scale(baseline, depth, width, resolution), weights=weights, **options)


def build_variant(variant: Variant, *, weights: Weights = None, **options: Any) -> keras.Model:
    """Build a member of any baseline; see `build` for the arguments."""
    from keras_effnet.applications import EfficientNet

    table = variant.baseline
    own = {
        "input_shape": (variant.resolution, variant.resolution, 3),
        "drop_connect_rate": table.drop_connect_rate,
        "padding": table.padding,
        "epsilon": table.epsilon,
    }
    if weights is None:
        return EfficientNet(variant, weights=None, **{**own, **options})
    from keras_effnet.baselines.keras_weights import copy_weights, keras_application

    theirs = keras_application(variant, weights, options)
    model = EfficientNet(variant, weights=None, **{**own, **options})
    copy_weights(theirs, model, bgr=table is RESNET50)
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
    return cost_of_variant(_at_scale(baseline, depth, width, resolution), classes=classes, batch=batch)


def _at_scale(baseline: str | Baseline, depth: float, width: float, resolution: int | None) -> Variant:
    table = get_baseline(baseline)
    side = table.resolution if resolution is None else resolution
    check_input_shape((side, side, 3), table.smallest)
    return Variant(
        name=table.name,
        title=table.title,
        width=width,
        depth=depth,
        resolution=int(side),
        dropout=table.dropout,
        baseline=table,
    )


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
