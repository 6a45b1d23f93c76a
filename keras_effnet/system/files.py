"""Files that appear whole or not at all, and what the system says about paths that it does not let us use."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_effnet.errors import EffNetError, ExportError, InvalidInputError

# of `staged`, also with the ending that Keras asks for, and of the folder that exports are made in
_STAGED = re.compile(r"^\..+\.[0-9a-f]{8}\.(part|keras|weights\.h5|safetensors)$|^\.export-\w+$")


def system_said(error: OSError) -> str:
    """The reason of a failure in a few words. Libraries (h5py) put texts of many lines into `strerror`."""
    text = os.strerror(error.errno) if error.errno else str(error)
    return " ".join(text.split())


@contextmanager
def reachable(
    path: str | os.PathLike[str], expected: str, kind: type[EffNetError] = InvalidInputError
) -> Iterator[None]:
    """Within the block a path that may not be read, or whose name is too long, is an error of this package.

    Even `Path.exists` raises for these. Wrap the looking only: what a library raises about the content of a
    file deserves a message of its own. `expected` says what should be at the path: `"a picture"`.

    Raises:
        EffNetError: of the given kind, instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise kind(
            f"Expected {expected} at {os.fspath(path)!r}. The system said: {system_said(error)}. "
            "Check the path and its permissions."
        ) from error


@contextmanager
def staged(path: str | os.PathLike[str], *, overwrite: bool = False, ending: str = "part") -> Iterator[Path]:
    """A place beside `path` to write to; moved to `path` when the block ends without an error.

    Args:
        path: final name of a file or directory.
        overwrite: replace what is there; it is only lost once the new one is complete.
        ending: of the place's name, for libraries that insist on one.

    Yields:
        A path that does not exist yet, on the same file system.

    Raises:
        InvalidInputError: `path` exists and `overwrite` is False, or cannot be written to.
        ExportError: the disk is full or failed while writing.
    """
    final = Path(path)
    check_new(final, overwrite=overwrite)
    created = _make_parents(final)
    temporary = _beside(final, ending)
    done = False
    try:
        yield temporary
        _replace(temporary, final)
        done = True
    except OSError as error:
        raise ExportError(
            f"Expected to write {str(final)!r}. The system said: {system_said(error)}. "
            "Free some space or choose another folder; nothing was left behind."
        ) from error
    finally:
        remove(temporary)
        if not done:
            remove_empty(created)


def write_text(path: Path, text: str, *, overwrite: bool = True) -> None:
    """Write a text file whole or not at all; raises as `staged` does."""
    with staged(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_new(path: Path, *, overwrite: bool = False) -> None:
    """Make sure that nothing is at `path`, or that it may be replaced.

    Raises:
        InvalidInputError: something is, or the system does not let us look.
    """
    with reachable(path, "a path that can be written"):
        taken = path.exists()
    if taken and not overwrite:
        raise InvalidInputError(
            f"Expected a path that does not exist yet. Received: {str(path)!r}, which exists. "
            "Choose another name, or pass overwrite=True (--force) to replace it."
        )


def check_writable(path: Path) -> None:
    """Make sure that a file or folder can be made at `path`, with the folders that lead there. Nothing is left.

    What the rights say is not enough: a disk may be read-only, or full, or no disk. It is tried.
    """
    with reachable(path.parent, "a folder that can be written"):
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise _not_writable(path, error) from error


def shown(text: str) -> str:
    """A text with file names as UTF-8 can hold it: bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(text).decode("utf-8", "replace")


def reserve(path: Path, size: int) -> None:
    """Fail now if `size` bytes cannot be written to `path`; the file is gone afterwards.

    For libraries that do not survive a full disk: HDF5 crashes the process when it closes a file that it could
    not write.
    """
    block = bytes(1 << 20)
    try:
        with path.open("wb") as stream:
            for start in range(0, size, len(block)):
                stream.write(block[: size - start])
    finally:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what writers that were killed have left below `folder`: their staged files and folders.

    Nobody else may be writing there.
    """
    for path in [found for found in folder.rglob(".*") if _STAGED.search(found.name)]:
        remove(path)


def remove(path: Path) -> None:
    """Delete a file or a directory tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_empty(folders: Iterable[Path]) -> None:
    """Delete those of the folders, given innermost first, that nobody has put anything into."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def files_of(path: Path) -> list[Path]:
    """The file itself, or all files below a directory, sorted."""
    return sorted(child for child in path.rglob("*") if child.is_file()) if path.is_dir() else [path]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    return sum(file.stat().st_size for file in files_of(path))


def compressed_size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a directory, as a zip archive would hold them."""
    total = 0
    for file in files_of(path):
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                total += len(packer.compress(chunk))
        total += len(packer.flush())
    return total


def _make_parents(path: Path) -> list[Path]:
    """Create the missing parents of `path`; return those created, innermost first."""
    with reachable(path.parent, "a folder that can be written"):
        missing = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(13, "the folder is read-only")
    except OSError as error:
        raise _not_writable(path, error) from error
    return missing


def _not_writable(path: Path, error: OSError) -> InvalidInputError:
    return InvalidInputError(
        f"Expected a folder to write {path.name!r} to. Received: {str(path.parent)!r} "
        f"({error.strerror or error}). Choose another folder."
    )


def _beside(final: Path, ending: str) -> Path:
    """A hidden name in the folder of `final` that nobody else has, and no longer than the system allows."""
    # 40 characters are 160 bytes at most, of the 255 that a name may have
    return final.with_name(f".{final.name[:40]}.{uuid.uuid4().hex[:8]}.{ending}")


def _replace(temporary: Path, final: Path) -> None:
    """Move into place. A directory cannot replace another one in a single step."""
    if not final.is_dir():
        temporary.replace(final)
        return
    old = _beside(final, "old")
    final.replace(old)
    try:
        temporary.replace(final)
    except OSError:
        old.replace(final)
        raise
    remove(old)
