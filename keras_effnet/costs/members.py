"""What a member of the family costs, from its row of the table: milliseconds, and no framework."""

from __future__ import annotations

from keras_effnet.costs import Cost, cost_of_graph
from keras_effnet.costs.dry_run import DryRun
from keras_effnet.network.arguments import check_input_shape
from keras_effnet.network.builder import Options, build_model
from keras_effnet.network.lookup import architecture_of, get_variant
from keras_effnet.network.variants import Variant


def cost_of_variant(
    variant: str | Variant, *, resolution: int | None = None, classes: int = 1000, batch: int = 1
) -> Cost:
    """What `EfficientNet(variant, classes=classes)` costs; equal to `cost` of the built model.

    Args:
        variant: its name, or a `Variant` of your own.
        resolution: side of the input in pixels; None for the variant's own.
        classes: outputs of the classifier.
        batch: pictures per call.

    Raises:
        InvalidInputError: no such variant, or a size that it cannot take.
    """
    chosen = get_variant(variant)
    side = resolution or chosen.resolution
    check_input_shape((side, side, 3))
    dry = DryRun()
    options = Options(
        include_top=True,
        classes=classes,
        classifier_activation="softmax",
        pooling=None,
        preprocessing=chosen.preprocessing,
        dropout_rate=chosen.dropout,
        padding="same",
        epsilon=1e-3,
        name=chosen.name,
    )
    inputs = dry.Input((side, side, 3))
    graph = build_model(architecture_of(chosen), options, inputs, inputs, keras=dry)
    return cost_of_graph(graph, (side, side, 3), batch=batch)
