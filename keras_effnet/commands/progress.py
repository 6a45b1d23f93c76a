"""What a person sees while a command works, on the error output: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def bar(total: int, unit: str, *, quiet: bool) -> Iterator[Callable[[], object]]:
    """A bar on a terminal, and nothing elsewhere; yields what to call after each of `total`."""
    disable = True if quiet else None  # None: where the error output is no terminal
    with tqdm(total=total, unit=unit, disable=disable, leave=False, file=sys.stderr) as shown:
        yield shown.update


@contextmanager
def steps(total: int, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Named steps; yields what to call with the name of each as it begins.

    A bar that names the step on a terminal; elsewhere, in a log say, a line for each.
    """
    if quiet or sys.stderr.isatty():
        disable = quiet
        with tqdm(total=total, unit="step", disable=disable, leave=False, file=sys.stderr) as shown:

            def move(name: str) -> None:
                shown.set_description(name)
                shown.update()

            yield move
        return
    count = 0

    def say(name: str) -> None:
        nonlocal count
        count += 1
        print(f"[{count}/{total}] {name}", file=sys.stderr, flush=True)

    yield say
