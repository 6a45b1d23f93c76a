"""The errors and the warnings of this package.

    EffNetError
    ├── InvalidInputError   (also ValueError)    an argument, a picture or an array that cannot be used
    ├── WeightsError        (also ValueError)    a weight file that is not what the model needs
    ├── MissingExtraError   (also ImportError)   a target needs an extra that is not installed
    ├── ExportError         (also RuntimeError)  a converter failed
    └── VerificationError   (also RuntimeError)  an artefact does not agree with its model
    EffNetWarning           (a UserWarning)      what goes on, but perhaps not as you meant it

Every message says what was expected, what came, and what to do.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any


class EffNetError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidInputError(EffNetError, ValueError):
    """An argument, a picture or an array that cannot be used."""


class WeightsError(EffNetError, ValueError):
    """A weight file that cannot be read, or that belongs to another network."""


class MissingExtraError(EffNetError, ImportError):
    """An optional dependency is not installed."""


class ExportError(EffNetError, RuntimeError):
    """A converter failed; nothing was left under the final name."""


class VerificationError(EffNetError, RuntimeError):
    """An artefact does not agree with the model it came from.

    Attributes:
        report: the `keras_effnet.export.Report` that failed.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


class EffNetWarning(UserWarning):
    """A warning that this package gives on purpose; the command line shows it."""


def warn(message: str) -> None:
    """Give an `EffNetWarning` that points at the line which called this package, however deep the call is."""
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, EffNetWarning, stacklevel=level)


def unknown_name(kind: str, given: object, known: Iterable[str]) -> InvalidInputError:
    """The error for a name that is not in a table, with the nearest valid names first."""
    names = list(known)
    near = difflib.get_close_matches(str(given).lower(), names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return InvalidInputError(f"Expected {kind} to be one of {', '.join(names)}. Received: {given!r}.{hint}")


def check_values(record: object, names: Iterable[str], fits: Callable[[Any], bool], expected: str) -> None:
    """Make sure that numbers of a record, of these names, are as expected; None stands for no number."""
    for name in names:
        value = getattr(record, name)
        if value is not None and not fits(value):
            raise InvalidInputError(f"Expected {name} {expected}. Received: {value!r}.")


def require(module: str, extra: str) -> ModuleType:
    """Import a module, dots in its name or not, or raise with the pip line that installs it.

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing != module.split(".", maxsplit=1)[0]:
            raise  # the package is there but broken: its own error says more than ours would
        raise _missing(missing, extra) from error


def require_installed(module: str, extra: str) -> None:
    """Make sure that a top-level module is there without the seconds that importing it takes.

    Raises:
        MissingExtraError: the module is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise _missing(module, extra)


def _missing(module: str, extra: str) -> MissingExtraError:
    return MissingExtraError(
        f"Expected the package {module!r} to be installed; it is not. "
        f"Install it with: {how_to_install(extra)}"
    )


def how_to_install(extra: str) -> str:
    """What messages advise where an extra is missing. No release is on PyPI yet."""
    return f"pip install '.[{extra}]' in a clone of keras-effnet"


def counted(number: int, noun: str) -> str:
    """`1 photograph`, `3 photographs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
