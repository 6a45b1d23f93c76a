"""Networks on disk: the epochs of a training that can be killed, and the trained classifier.

Keras' `BackupAndRestore` keeps the weights and the epoch only, not what early stopping has seen, and a
kill while it writes can cost the last good copy. Here `state.json`, replaced in one step, decides which
files count.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_effnet.errors import InvalidInputError
from keras_effnet.system.files import reserve, staged, write_text

STATE_NAME = "state.json"
FLOAT_BYTES = 4


class EpochCheckpoint(keras.callbacks.Callback):
    """Keeps the newest epoch, and the best one where that matters; stops when nothing gets better.

    The file of an epoch holds the model's weights and the optimizer's. (Keras does not keep the counters of
    random layers: dropout draws anew in a resumed run.)

    Args:
        folder: for the files; nothing else may lie there.
        to_beat: validation accuracy of the model before fine-tuning, 0–1.
        patience: epochs without a better one before it stops. The first epochs are usually worse than
            the model before, so they are compared with each other only. None: no epoch is compared with
            another, the newest counts as the best.

    Attributes:
        epoch: epochs that are done.
        history: the figures of these epochs.
        best: the lowest validation loss of them; infinite where nothing validates.
        best_epoch: the epoch that had it, counted from 1; 0 before the first.
        finished: whether fine-tuning is over.
    """

    def __init__(self, folder: Path, *, to_beat: float = 0.0, patience: int | None = None) -> None:
        super().__init__()
        self.folder, self.to_beat, self.patience = folder, to_beat, patience
        self.best, self.best_epoch, self.epoch, self.finished = math.inf, 0, 0, False
        self.history: dict[str, list[float]] = {}
        self._began = 0.0, 0.0
        self._read()

    @property
    def exhausted(self) -> bool:
        """Whether `patience` epochs have passed without a better one."""
        return self.patience is not None and self.epoch - self.best_epoch >= self.patience

    @property
    def improved(self) -> bool:
        """Whether the best epoch gets no fewer validation photographs right than the model before.

        Not the loss: label smoothing, which the head had none of, makes the head's look bad. Without
        validation photographs nothing speaks against the newest epoch. In single precision, in which Keras
        tells epochs: .81999999, which 41 of 50 are there, is not less than .82.
        """
        judged = self.history.get("val_accuracy")
        if self.best_epoch == 0 or judged is None:
            return self.best_epoch > 0
        return bool(np.float32(judged[self.best_epoch - 1]) >= np.float32(self.to_beat))

    def restore(self, model: Any) -> None:
        """Load the newest epoch into a compiled model, if there is one."""
        if self.epoch:
            model.optimizer.build(model.trainable_variables)
            model.load_weights(self._file(self.epoch))

    def restore_best(self, model: Any) -> bool:
        """Load the best epoch into the compiled model; False if none beat the model before."""
        if not self.improved:
            return False
        model.optimizer.build(model.trainable_variables)
        model.load_weights(self._file(self.best_epoch))
        return True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.monotonic(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures = {name: float(value) for name, value in (logs or {}).items()}
        wall, cpu = self._began
        figures |= {"seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu}
        with staged(self._file(epoch + 1), overwrite=True, ending="weights.h5") as temporary:
            reserve(temporary, self._size())
            self.model.save_weights(temporary)
        self.epoch = epoch + 1
        for name, value in figures.items():
            self.history.setdefault(name, []).append(value)
        loss = figures.get("val_loss")
        if loss is None or self.patience is None:
            self.best_epoch = self.epoch
        elif loss < self.best:
            self.best, self.best_epoch = loss, self.epoch
        if self.exhausted:
            self.model.stop_training = True
        self._write()

    def finish(self) -> None:
        """Remember that no further epoch is wanted."""
        self.finished = True
        self._write()

    def _size(self) -> int:
        """Bytes of a file at least."""
        variables = [*self.model.variables, *self.model.optimizer.variables]
        return sum(FLOAT_BYTES * math.prod(variable.shape) for variable in variables)

    def _file(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:03d}.weights.h5"

    def _read(self) -> None:
        path = self.folder / STATE_NAME
        if not path.is_file():
            return
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            self.epoch, self.best_epoch = int(state["epoch"]), int(state["best_epoch"])
            self.best, self.finished = float(state["best"]), bool(state["finished"])
            self.history = dict(state["history"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"Expected the state of a training run in {str(path)!r}. Received something else ({error}). "
                "Start a new run."
            ) from error

    def _write(self) -> None:
        kept = ("epoch", "best_epoch", "best", "finished", "history")
        state = {name: getattr(self, name) for name in kept}
        write_text(self.folder / STATE_NAME, json.dumps(state, indent=1) + "\n")
        keep = {self._file(self.epoch), self._file(self.best_epoch)}
        for path in self.folder.glob("epoch-*.weights.h5"):
            if path not in keep:
                path.unlink()


def save_classifier(model: keras.Model, path: Path, labels: Sequence[str]) -> None:
    """Keep a model without what only training needs, so that it loads without this package.

    Args:
        model: a functional model.
        path: the `.keras` file; `labels.txt` is written beside it. Each appears whole or not at all, and
            replaces an earlier one.
        labels: class names in the order of the outputs.

    Raises:
        ExportError: the disk is full or failed.
    """
    bare = keras.Model(model.input, model.output, name=model.name)
    for layer in bare.layers:
        layer.trainable = True
    write_text(path.with_name("labels.txt"), "\n".join(labels) + "\n")
    with staged(path, overwrite=True, ending="keras") as temporary:
        bare.save(temporary)
