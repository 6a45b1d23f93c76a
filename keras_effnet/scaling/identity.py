"""What makes the scores of two searches comparable: the same evaluation on the same data."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any


def described(evaluate: Callable[..., Any], settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The name of an evaluation, what it says of itself, and what its caller adds.

    Args:
        evaluate: a function, a method or an object that can be called; where it, or the object of
            the method, has a method `settings()`, that is asked.
        settings: what neither the name nor `settings()` says.

    Returns:
        Plain values by name, to be kept beside the scores.
    """
    describe = getattr(getattr(evaluate, "__self__", evaluate), "settings", None)
    own = dict(describe()) if callable(describe) else {}
    return {"evaluate": _name(evaluate), **own, **(settings or {})}


def changes(known: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What two descriptions say differently, in words; empty where they are alike."""
    return ", ".join(
        f"{key} ({known.get(key)!r}, now {now.get(key)!r})"
        for key in sorted({*known, *now})
        if known.get(key) != now.get(key)
    )


def fingerprint(value: object) -> str:
    """Changes with the value, whose `repr` must say all of it, as those of our tables do."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def _name(evaluate: Any) -> str:
    if isinstance(evaluate, functools.partial):
        # the address in a repr would change with every process
        given = [
            *(_plain(value) for value in evaluate.args),
            *(f"{key}={_plain(value)}" for key, value in sorted(evaluate.keywords.items())),
        ]
        return f"{_name(evaluate.func)}({', '.join(given)})"
    named = evaluate if hasattr(evaluate, "__qualname__") else type(evaluate)
    return f"{named.__module__}.{named.__qualname__}"


def _plain(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float | None) else type(value).__qualname__
