"""Keeps the chatter of native libraries off the terminal; shows it when something fails."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from keras_effnet.errors import EffNetError


@contextmanager
def quiet_native() -> Iterator[None]:
    """Hold back what C++ code writes to the process's standard error; print it after an exception.

    One of ours says all that a user needs: nothing is printed then. `KERAS_EFFNET_VERBOSE=1` leaves
    everything as it is.
    """
    if os.environ.get("KERAS_EFFNET_VERBOSE"):
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except EffNetError:
            raise
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def import_keras() -> None:
    """Import Keras and wake its backend without the remarks that TensorFlow prints while starting."""
    with quiet_native():
        import keras

        keras.ops.zeros(1)  # devices are looked for at the first operation
    if not os.environ.get("KERAS_EFFNET_VERBOSE"):
        # it warns of retracing when several models predict in one process, as every run of ours does
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
