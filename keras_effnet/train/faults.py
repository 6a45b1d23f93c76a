"""What TensorFlow raises about files, said in one line of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from keras_effnet.errors import ExportError, InvalidInputError

# a photograph is read by Python code inside a tf.data pipeline, which wraps what that raises
_OURS = re.compile(r"InvalidInputError: (?P<message>.+)")
# of TensorBoard's writer: "…}} FILE; File too large\n\tFailed to flush 2 events to FILE"
_EVENTS = re.compile(r"}} (?P<file>[^\n]+); (?P<said>[^\n]+)\n.*(events file|Failed to flush)", re.DOTALL)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Within the block a photograph or a log that cannot be read or written is an error of this package.

    Raises:
        InvalidInputError: a photograph of the run is gone or damaged by now.
        ExportError: TensorBoard's log could not be written.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        text = str(error.message)
        if ours := _OURS.search(text):
            raise InvalidInputError(
                f"{ours['message'].strip()} It could be read when the run began; put it back and resume."
            ) from error
        if events := _EVENTS.search(text):
            raise ExportError(
                f"Expected to write {events['file']!r}. The system said: {events['said']}. "
                "Free some space and resume."
            ) from error
        raise
