"""Starts Keras on a backend that works, and keeps the chatter of native libraries off the terminal."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from keras_effnet.errors import EffNetError, InvalidInputError, require_installed

BACKENDS = ("tensorflow", "jax")  # what the commands compute with; exporting needs the first


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


def check_backend(usable: Sequence[str] = BACKENDS) -> str:
    """Make sure that Keras will compute with something that works here, before it is imported; which one it is.

    Raises:
        InvalidInputError: Keras was told to take another one.
    """
    if "keras" in sys.modules:
        chosen = str(sys.modules["keras"].backend.backend())
    else:
        chosen = os.environ.get("KERAS_BACKEND") or _configured_backend() or BACKENDS[0]
    if chosen not in usable:
        raise InvalidInputError(
            f"Expected Keras on {' or '.join(usable)}. Received: the backend {chosen!r}, of KERAS_BACKEND or "
            f"keras.json. Set KERAS_BACKEND={usable[0]} for this command."
        )
    return chosen


def _configured_backend() -> str | None:
    """The backend in Keras' own settings file, which it reads when it is imported."""
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return str(json.loads((folder / "keras.json").read_text(encoding="utf-8"))["backend"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def import_keras(usable: Sequence[str] = BACKENDS) -> None:
    """Import Keras and wake its backend without the remarks that TensorFlow prints while starting.

    Raises:
        InvalidInputError: of `check_backend`.
        MissingExtraError: the backend is JAX, which is not installed.
    """
    if check_backend(usable) == "jax":
        require_installed("jax", "pretrain")
    with quiet_native():
        import keras

        keras.ops.zeros(1)  # devices are looked for at the first operation
    if not os.environ.get("KERAS_EFFNET_VERBOSE"):
        # it warns of retracing when several models predict in one process, as every run of ours does
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
