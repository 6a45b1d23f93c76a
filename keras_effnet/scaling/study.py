"""Optuna studies: where a search keeps what it tried, and what makes its scores comparable."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from keras_effnet.errors import InvalidInputError, MissingExtraError, require
from keras_effnet.system.files import check_writable


def open_study(storage: str | None, study: str, sampler: Any) -> Any:
    """The Optuna study of that name, created where there is none; higher values are better.

    `storage` is a database URL, the path of a journal file, or None for memory.

    Raises:
        InvalidInputError: a storage that cannot be opened.
        MissingExtraError: Optuna, or the driver of the database, is not installed.
    """
    optuna = require("optuna", "search")
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # errors are raised, not printed
    return optuna.create_study(
        storage=None if storage is None else _open(storage),
        sampler=sampler,
        study_name=study,
        direction="maximize",
        load_if_exists=True,
    )


def claim(opened: Any, settings: Mapping[str, Any]) -> None:
    """Write into a new study what its scores mean; compare with what an old one says.

    Raises:
        InvalidInputError: the study is of another search.
    """
    now = json.loads(json.dumps(dict(settings)))
    text = opened.user_attrs.get("settings")
    if text is None and not opened.get_trials(deepcopy=False):
        opened.set_user_attr("settings", json.dumps(now, sort_keys=True))
        return
    known = json.loads(text) if text is not None else {}
    if known != now:
        raise InvalidInputError(
            f"Expected the study {opened.study_name!r} to be of this search. Received: one with other {_changes(known, now)}. "
            "Its scores do not compare; choose another study or storage."
        )


def described(evaluate: Callable[..., Any], settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The name of an evaluation, what it says of itself, and what its caller adds, as plain values by name.

    Where `evaluate`, or the object whose method it is, has a method `settings()`, that is asked.
    """
    describe = getattr(getattr(evaluate, "__self__", evaluate), "settings", None)
    own = dict(describe()) if callable(describe) else {}
    return {"evaluate": _name(evaluate), **own, **(settings or {})}


def fingerprint(value: object) -> str:
    """Changes with the value, a table's whole content included, which its `repr` leaves out."""
    return hashlib.sha256(repr(_spelled_out(value)).encode()).hexdigest()[:12]


def _spelled_out(value: object) -> object:
    """Records as their names and fields, all the way down."""
    if is_dataclass(value):
        return type(value).__name__, [
            (part.name, _spelled_out(getattr(value, part.name))) for part in fields(value)
        ]
    return [_spelled_out(part) for part in value] if isinstance(value, list | tuple) else value


def check_storage(storage: str) -> None:
    """Make sure that a journal file can be there; a database is asked when it is opened.

    Raises:
        InvalidInputError: its folder does not exist, or cannot be written to.
    """
    if "://" in storage:
        return
    if not Path(storage).parent.is_dir():
        raise InvalidInputError(
            f"Expected a journal file in a folder that exists. Received: {storage!r}. "
            "Create the folder, or mount the shared disk."
        )
    check_writable(Path(storage))


def _open(storage: str) -> Any:
    optuna = require("optuna", "search")
    if "://" not in storage:
        journal = require("optuna.storages.journal", "search")
        check_storage(storage)
        try:
            return optuna.storages.JournalStorage(journal.JournalFileBackend(storage))
        except (OSError, ValueError, KeyError) as error:
            raise _unusable(storage, error) from error
    exceptions = require("sqlalchemy.exc", "search")
    try:
        return optuna.storages.RDBStorage(storage)
    except ImportError as error:
        raise MissingExtraError(
            f"Expected the driver of the database to be installed; it is not ({storage.split('://', maxsplit=1)[0]}). "
            "It is no part of an extra. For PostgreSQL: pip install psycopg2-binary; for MySQL: pip install PyMySQL "
            "and begin the URL with mysql+pymysql."
        ) from error
    except (optuna.exceptions.OptunaError, exceptions.SQLAlchemyError, ValueError) as error:
        raise _unusable(storage.rsplit("@", maxsplit=1)[-1], error) from error  # without the password


def _unusable(storage: str, error: Exception) -> InvalidInputError:
    reason = (str(error).splitlines() or [""])[0]
    return InvalidInputError(
        f"Expected a database URL, or a journal file that can be read. Received: {storage!r} "
        f"({type(error).__name__}: {reason}). Correct the address or the access."
    )


def _changes(known: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What two descriptions say differently, in words; empty where they are alike."""
    return ", ".join(
        f"{key} ({known.get(key)!r}, now {now.get(key)!r})"
        for key in sorted({*known, *now})
        if known.get(key) != now.get(key)
    )


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
