"""Training on several devices of one host (TensorFlow) and on several hosts (JAX).

Keras 3 has no multi-host strategy on TensorFlow; on its JAX backend `keras.distribution` has. Every host
runs the same program, builds the same model from the same seed, reads its own slice of each global
batch, and gets the same weights after each step. The batch is one array across the hosts, so batch
normalization sees all of it, as one process with the same global batch would.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from keras_effnet.errors import InvalidInputError, require, unknown_name

STRATEGIES = ("none", "mirrored")


@dataclass(frozen=True, kw_only=True)
class Share:
    """This process among all that train one model.

    Attributes:
        index: 0 … `count` - 1; process 0 writes the files.
        count: number of processes.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise InvalidInputError(
                f"Expected a process id between 0 and {max(self.count - 1, 0)} for {self.count} processes. "
                f"Received: {self.index}."
            )

    @property
    def writes(self) -> bool:
        """Whether this process writes the files that all share."""
        return self.index == 0

    def local_batch(self, global_batch: int) -> int:
        """This process's pictures in a global batch.

        Raises:
            InvalidInputError: the batch cannot be divided evenly.
        """
        if global_batch % self.count:
            raise InvalidInputError(
                f"Expected a batch size that {self.count} processes can share evenly. Received: "
                f"{global_batch}. Choose a multiple of {self.count}."
            )
        return global_batch // self.count

    def of_batches(self, dataset: Any) -> Any:
        """From a `tf.data.Dataset` of global batches, the slice of each that is this process's.

        Slices of the processes in their order make up the global batch again, so the data are those
        of one process. Every batch must have the same size.
        """
        if self.count == 1:
            return dataset
        import tensorflow as tf

        def slice_(tensor: Any) -> Any:
            part = tf.shape(tensor)[0] // self.count
            return tensor[self.index * part : (self.index + 1) * part]

        return dataset.map(lambda *batch: tuple(tf.nest.map_structure(slice_, item) for item in batch))


def join(coordinator: str, processes: int, process_id: int) -> Share:
    """Join the processes that train one model; call it before anything is computed or built.

    Blocks until all have joined (five minutes at most). Models that are built afterwards are copied to
    all devices of all hosts; `fit` takes this process's slice of each batch (`Share.of_batches`).

    Args:
        coordinator: `host:port` of process 0, the same everywhere.
        process_id: 0 … `processes` - 1, another one everywhere.

    Raises:
        InvalidInputError: Keras on another backend than JAX, or arguments that cannot be used.
        MissingExtraError: JAX is not installed.
    """
    share = Share(index=process_id, count=processes)
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidInputError(
            f"Expected the coordinator as host:port of process 0. Received: {coordinator!r}. "
            "For example 10.0.0.1:1234."
        )
    require("jax", "pretrain")
    import keras

    if keras.backend.backend() != "jax":
        raise InvalidInputError(
            "Expected Keras on its JAX backend for several hosts. Received: the backend "
            f"{keras.backend.backend()!r}. Set KERAS_BACKEND=jax before Keras is imported "
            "(pip install jax)."
        )
    if processes == 1:
        return share
    import jax
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # TensorFlow only reads pictures here
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if hasattr(jax.config, "jax_enable_preemption_service"):
        # it would swallow SIGTERM, which is how schedulers and people end a process
        jax.config.update("jax_enable_preemption_service", False)
    try:
        keras.distribution.initialize(coordinator, processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise InvalidInputError(
            f"Expected {processes} processes to meet at {coordinator}. They did not "
            f"({str(error).splitlines()[0]}). Start them all, with the same coordinator, before anything "
            "else is computed."
        ) from error
    # the input is sliced before pictures are decoded, not after
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    return share


def check_agreement(value: int, share: Share, what: str) -> None:
    """Make sure that all processes hold the same number, the epoch to resume from for example."""
    if share.count == 1:
        return
    import numpy as np
    from jax.experimental import multihost_utils

    values = np.asarray(multihost_utils.process_allgather(np.asarray([value]))).ravel()
    if (values != value).any():
        raise InvalidInputError(
            f"Expected the same {what} on all {share.count} processes. Received: {values.tolist()}. "
            "Give every process its own folder of the same run, or start a new run."
        )


def strategy_scope(name: str) -> contextlib.AbstractContextManager[Any]:
    """The scope to build and compile in: `"none"`, or `"mirrored"` for all GPUs of this host on TensorFlow.

    Raises:
        InvalidInputError: unknown name, or Keras on another backend.
    """
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    if name == "none":
        return contextlib.nullcontext()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InvalidInputError(
            "Expected Keras on TensorFlow for --strategy mirrored. Received: the backend "
            f"{keras.backend.backend()!r}. On JAX use --hosts."
        )
    import tensorflow as tf

    return tf.distribute.MirroredStrategy().scope()
