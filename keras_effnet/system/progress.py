"""What a person sees while work lasts: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


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
    def bar(
        self, name: str, total: int, unit: str = "photo", done: int = 0
    ) -> Iterator[Callable[[int], None]]:
        """A bar, on a terminal, of which some was done before; yields the function that moves it."""
        from tqdm import tqdm

        # disable=None: silent where the error output is no terminal
        disable = True if self.quiet else None
        with tqdm(
            total=total, desc=name, unit=unit, initial=done, disable=disable, leave=False, file=sys.stderr
        ) as bar:
            yield bar.update

    @contextmanager
    def steps(self, total: int) -> Iterator[Callable[[str], None]]:
        """Named steps: a bar on a terminal, a line for each elsewhere; yields what to call as each begins."""
        if sys.stderr.isatty():
            from tqdm import tqdm

            with tqdm(total=total, unit="step", disable=self.quiet, leave=False, file=sys.stderr) as bar:

                def move(name: str) -> None:
                    bar.set_description(name)
                    bar.update()

                yield move
            return
        count = itertools.count(1)
        yield lambda name: self.say(f"[{next(count)}/{total}] {name}")

    @property
    def fit_verbosity(self) -> int:
        """Keras' own bar, on a terminal; it is colored, which NO_COLOR forbids (https://no-color.org)."""
        return 1 if not self.quiet and sys.stdout.isatty() and not os.environ.get("NO_COLOR") else 0

    def epochs(self, name: str) -> Any:
        """A callback for `fit` that prints a line per epoch where there is no bar."""
        import keras

        def line(epoch: int, logs: dict[str, Any] | None = None) -> None:
            if self.fit_verbosity == 0 and logs:
                whose, key = ("validation ", "val_") if "val_loss" in logs else ("", "")
                self.say(
                    f"{name}: epoch {epoch + 1} of {callback.params['epochs']}, "
                    f"{whose}accuracy {logs[f'{key}accuracy']:.3f}, loss {logs[f'{key}loss']:.3f}"
                )

        callback = keras.callbacks.LambdaCallback(on_epoch_end=line)
        return callback
