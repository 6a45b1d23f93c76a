"""What the child process of pruning and weight clustering does. See `compression`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported: tfmot knows tf_keras only
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_effnet.errors import require

from ..to_keras import to_trainable, trained_weights
from . import distillation, handover

RAMP = 0.6  # share of the steps after which pruning is complete
MASKS = 10  # choices of the weights to prune on the way there


def run(folder: str) -> None:
    """Entry point: read what the parent handed over, train, hand the weights back."""
    import tf_keras

    task = handover.read(Path(folder))
    training, sizes = task.facts["training"], task.facts["sizes"]
    tfmot = require("tensorflow_model_optimization", "qat")
    method: _Pruning | _Clustering = (
        _Pruning(tfmot, training) if training["sparsity"] else _Clustering(tfmot, training)
    )

    def sized(layer: Any, output: str, kernel: str) -> Callable[[Any], Any]:
        """A layer to compress, and its channels' sizes behind it."""
        if layer.name not in sizes:
            layer.trainable = False  # its weights have other sizes: another learning rate would be due
            return layer
        back = tf_keras.layers.Rescaling(sizes[layer.name], name=f"{layer.name}_size")
        return lambda x: back(layer(x))

    teacher = to_trainable(task.teacher)
    # tfmot takes its first masks and centroids from weights that are there already
    student = tf_keras.models.clone_model(
        to_trainable(task.student, sized),
        clone_function=lambda layer: method.wrap(layer) if layer.name in sizes else layer,
    )
    distillation.fit(
        teacher,
        student,
        task.images,
        task.labels,
        training,
        title=method.title,
        eligible_from=method.complete_after,
        before_step=method.before_step(student),
    )
    handover.hand_back(Path(folder), trained_weights(task.student, method.strip(student)))


class _Pruning:
    """The smallest weights of each kernel become zero, more and more of them."""

    title = "pruning"

    def __init__(self, tfmot: Any, training: dict[str, Any]) -> None:
        self.api = tfmot.sparsity.keras
        every = max(1, int(RAMP * training["steps"]) // MASKS)
        ramp = MASKS * every  # a multiple, so that the last choice sees the final sparsity
        self.complete_after = ramp + 1
        self.schedule = self.api.PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=training["sparsity"],
            begin_step=0,
            end_step=ramp,
            frequency=every,
        )

    def wrap(self, layer: Any) -> Any:
        return self.api.prune_low_magnitude(layer, pruning_schedule=self.schedule)

    def before_step(self, student: Any) -> Callable[[int], None]:
        import tf_keras

        student.optimizer = tf_keras.optimizers.Adam()  # the callback asks for one, and leaves it alone
        steps = self.api.UpdatePruningStep()
        steps.set_model(student)
        steps.on_train_begin()
        return lambda step: steps.on_train_batch_begin(batch=step)

    def strip(self, student: Any) -> Any:
        return self.api.strip_pruning(student)


class _Clustering:
    """The weights of each kernel share a few values, which train."""

    title = "weight clustering"
    complete_after = 1  # from the first step on there are only the shared values

    def __init__(self, tfmot: Any, training: dict[str, Any]) -> None:
        self.api = tfmot.clustering.keras
        self.clusters = training["clusters"]

    def wrap(self, layer: Any) -> Any:
        initial = self.api.CentroidInitialization.KMEANS_PLUS_PLUS
        return self.api.cluster_weights(
            layer, number_of_clusters=self.clusters, cluster_centroids_init=initial
        )

    def before_step(self, student: Any) -> Callable[[int], None]:
        return lambda step: None

    def strip(self, student: Any) -> Any:
        return self.api.strip_clustering(student)
