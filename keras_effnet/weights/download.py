"""One file over HTTP: retried, bounded, checked, and only then given its name."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from keras_effnet.weights.checkpoint import CHUNK_BYTES

LOGGER = logging.getLogger(__name__)

ATTEMPTS = 3
BACK_OFF_S = 0.5  # doubled after every attempt
TIMEOUT_S = 30.0  # without a single byte
MAX_BYTES = 8 * 2**30  # L2 with its moving averages has about 4 GB
STALE_S = 24 * 3600
TRANSIENT_STATUS = frozenset({408, 425, 429, *range(500, 600)})


class DownloadError(Exception):
    """Why a file could not be fetched, in one clause; `sources` collects them."""


def download(address: str, target: Path, check: Callable[[Path], None]) -> None:
    """Fetch `address` (`https:`, `http:` or `file:`) to `target`, whose folder is created.

    The content goes to a temporary file beside `target`, which `check` looks at before it gets its
    name, so several processes and a killed one leave either the whole file or none.

    Raises:
        DownloadError: no content after `ATTEMPTS`, an error that will not pass, or no room for it.
        Whatever `check` raises.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f"{target.name}.", suffix=".part", delete=False
        ) as file:
            temporary = Path(file.name)
    except OSError as error:
        raise DownloadError(f"the cache folder cannot be written ({error})") from error
    try:
        _fetch(address, temporary)
        check(temporary)
        temporary.chmod(0o644)  # temporary files are private, a cache may be shared
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _fetch(address: str, temporary: Path) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with temporary.open("wb") as file:
                _transfer(address, _BoundedFile(file))
            return
        except Exception as error:
            reason, passing = _explain(error)
            if not passing or attempt == ATTEMPTS:
                raise DownloadError(reason) from error
            wait = BACK_OFF_S * 2 ** (attempt - 1)
            LOGGER.info("%s: %s; attempt %d of %d in %.1f s.", address, reason, attempt + 1, ATTEMPTS, wait)
            time.sleep(wait)


def _transfer(address: str, file: _BoundedFile) -> None:
    if address.startswith("file:"):
        with urllib.request.urlopen(address) as content:
            shutil.copyfileobj(content, file)
        return
    import pooch

    with _Bar(unit="B", unit_scale=True, desc=address.rpartition("/")[2], disable=None) as bar:
        fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK_BYTES, timeout=TIMEOUT_S)
        fetch(address, file, None)


class _Bar(tqdm):
    """tqdm has no truth value before its total is known, and pooch asks for it."""

    def __bool__(self) -> bool:
        return True


class _BoundedFile:
    """A file to write to that refuses to grow without end."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.room = MAX_BYTES

    def write(self, content: bytes) -> int:
        self.room -= len(content)
        if self.room < 0:
            raise DownloadError(f"the server sends more than {MAX_BYTES:,} bytes")
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


def _explain(error: Exception) -> tuple[str, bool]:
    """The reason in one clause, and whether another attempt may go better."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return f"the server answers {status} {error.response.reason}", status in TRANSIENT_STATUS
    # the first kind that fits counts: later ones are wider
    reasons: tuple[tuple[Any, str, bool], ...] = (
        (DownloadError, f"{error}", False),
        (requests.Timeout, f"no answer within {TIMEOUT_S:g} s", True),
        (requests.exceptions.ChunkedEncodingError, "the connection broke off before the end", True),
        (requests.ConnectionError, f"no connection ({_root_cause(error)})", True),
        ((requests.RequestException, ValueError), f"the address cannot be used ({error})", False),
        (OSError, f"the file cannot be written or read ({error})", False),
    )
    for kind, reason, passing in reasons:
        if isinstance(error, kind):
            return reason, passing
    raise error


def _root_cause(error: Any) -> str:
    """The innermost reason; requests and urllib3 wrap it three times."""
    while isinstance(error, BaseException):
        inner = getattr(error, "reason", None) or next(iter(error.args), None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    text = str(error)
    return text.rpartition(": ")[2] or text


def _remove_stale(target: Path) -> None:
    """Delete what killed downloads of this file left behind."""
    for path in target.parent.glob(f"{target.name}.*.part"):
        with contextlib.suppress(OSError):  # another process may be quicker
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()
