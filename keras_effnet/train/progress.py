"""What a person sees while a run lasts: bars on a terminal, a line per phase elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras


class Progress:
    """Bars and lines on the error output.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print lines."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, name: str, total: int, unit: str = "photo") -> Iterator[Callable[[int], None]]:
        """A bar, on a terminal; yields the function that moves it."""
        from tqdm import tqdm

        # disable=None: silent where the error output is no terminal
        disable = True if self.quiet else None
        with tqdm(total=total, desc=name, unit=unit, disable=disable, leave=False, file=sys.stderr) as bar:
            yield bar.update

    @property
    def fit_verbosity(self) -> int:
        """Keras' own bar on a terminal."""
        return 1 if not self.quiet and sys.stdout.isatty() else 0

    def epochs(self, name: str) -> Any:
        """A callback that prints a line per epoch where there is no bar."""
        return _Lines(self, name)


class _Lines(keras.callbacks.Callback):
    def __init__(self, progress: Progress, name: str) -> None:
        super().__init__()
        self.progress, self.title = progress, name

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.progress.fit_verbosity == 0 and logs:
            whose, key = ("validation ", "val_") if "val_loss" in logs else ("", "")
            self.progress.say(
                f"{self.title}: epoch {epoch + 1} of {self.params['epochs']}, "
                f"{whose}accuracy {logs[f'{key}accuracy']:.3f}, loss {logs[f'{key}loss']:.3f}"
            )
