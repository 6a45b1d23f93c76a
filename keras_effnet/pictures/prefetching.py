"""From Python code that makes batches to a data set that Keras trains on.

The threads of tf.data must not call Python. Whoever drops an iterator (after an error, Ctrl-C, an early stop)
waits for them, holding the lock that they would need to finish, and the process sits there for ever. So
batches are made by threads of Python's own, a few ahead, and TensorFlow asks for one after the other.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_effnet.system.resources import cores

# threads that decode; Pillow lets go of Python's lock while it works
READING_THREADS = min(16, max(4, cores()))
AHEAD = 2  # batches made before they are asked for
_END = object()
_OURS = re.compile(r"(InvalidInputError|UnreadablePictureError): (?P<message>.+)")

Batch = tuple[npt.NDArray[Any], ...]


def dataset_of(make: Callable[[], Iterator[Batch]], kinds: Sequence[Any], count: int) -> Any:
    """A `tf.data.Dataset`, of known length, of what `make` yields. It may be dropped in the middle.

    Args:
        make: called anew for each pass over the data set; it runs in another thread. An error that it raises
            ends the pass, with its text in what TensorFlow raises.
        kinds: a `tf.TensorSpec` for each array in a batch.
        count: batches in a pass; `make` yields as many.
    """
    import tensorflow as tf

    following = _Following(make)

    def ask(number: Any) -> Any:
        arrays = tf.numpy_function(following, [number], [kind.dtype for kind in kinds])
        return tuple(tf.ensure_shape(array, kind.shape) for array, kind in zip(arrays, kinds, strict=True))

    options = tf.data.Options()
    # both would put threads of tf.data's own into the pipeline, and into whatever is built upon it
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return tf.data.Dataset.range(count).map(ask).with_options(options)


def mapped_in_threads(
    function: Callable[..., Any], *items: Any, readers: ThreadPoolExecutor
) -> npt.NDArray[Any]:
    """`function` of each item, several at a time, as one array."""
    return np.stack(list(readers.map(function, *items)))


def error_of_ours(error: Exception) -> str | None:
    """The message of an error of this package that `make` raised and TensorFlow has wrapped; None for others."""
    found = _OURS.search(str(error))
    return found["message"].strip() if found else None


class _Following:
    """The batch after the last one, by its number; 0 begins a new pass."""

    def __init__(self, make: Callable[[], Iterator[Batch]]) -> None:
        self.make = make
        self.batches: Iterator[Batch] = iter(())

    def __call__(self, number: Any) -> Batch:
        if number == 0:
            self.batches = _ahead(self.make())
        return next(self.batches)


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same, made by another thread before they are asked for."""
    with ThreadPoolExecutor(1) as maker:  # one: in their order
        coming: deque[Future[Any]] = deque(maker.submit(next, batches, _END) for _ in range(AHEAD))
        while (batch := coming.popleft().result()) is not _END:
            coming.append(maker.submit(next, batches, _END))
            yield batch
