"""Which files of a folder are pictures: the one walker, for lists of classes, calibration and commands."""

from __future__ import annotations

import csv
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_effnet.errors import InvalidInputError, counted, warn
from keras_effnet.system.files import reachable, system_said

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
KINDS = " ".join(sorted(IMAGE_SUFFIXES))
# what cameras and programs also call pictures; people are told that these were left out
_OTHERS = "arw avif cr2 cr3 dng heic heif jfif jp2 jxl nef orf pgm ppm psd raf rw2 svg tga"
OTHER_PICTURES = frozenset(f".{ending}" for ending in _OTHERS.split())

LeftOut = tuple[str, str]  # file, reason
OTHER_KIND = f"not one of {KINDS}; convert it"


def list_images(directory: str | os.PathLike[str]) -> list[Path]:
    """The pictures of a directory and its sub-directories, sorted by path.

    Hidden files and folders do not count. Links to folders are followed, once.

    Raises:
        InvalidInputError: not a directory, no picture in it, or a folder in it that may not be read.

    Warns:
        EffNetWarning: pictures of a kind that cannot be read, HEIC say, are left out.
    """
    root = Path(directory)
    with reachable(root, "a directory of photographs that can be read"):
        if not root.is_dir():
            raise InvalidInputError(
                f"Expected a directory of photographs. Received: {str(root)!r}, which is not a directory."
            )
    left_out: list[LeftOut] = []
    found = sorted(root / name for name in walk_pictures(root, left_out=left_out))
    if not found:
        others = f", but {len(left_out)} that cannot be used, {left_out[0][0]!r} say" if left_out else ""
        raise InvalidInputError(
            f"Expected a directory of photographs ({KINDS}). Received: {str(root)!r}, which holds none{others}."
        )
    if kinds := [name for name, reason in left_out if reason == OTHER_KIND]:
        warn(
            f"Expected photographs ({KINDS}) in {str(root)!r}. {counted(len(kinds), 'picture')} of other kinds "
            f"{'is' if len(kinds) == 1 else 'are'} left out, {kinds[0]!r} say; convert them."
        )
    return found


def csv_rows(path: Path, columns: Sequence[str], advice: str) -> Iterator[tuple[int, dict[str, str | None]]]:
    """The number of each line of a CSV file that has these columns, and what it holds.

    Args:
        advice: ends the errors about the file's form.

    Raises:
        InvalidInputError: other columns, no text, an unreadable file.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            if not set(columns) <= set(reader.fieldnames or ()):
                raise InvalidInputError(
                    f"Expected the column{'s' if len(columns) > 1 else ''} {' and '.join(columns)} in {str(path)!r}. "
                    f"Received: {', '.join(reader.fieldnames or ()) or 'nothing'}. {advice}"
                )
            for row in reader:
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(
            f"Expected a CSV file of text at {str(path)!r}. Received: {error}. {advice}"
        ) from error
    except OSError as error:
        raise InvalidInputError(
            f"Expected a CSV file that can be read. Received: {str(path)!r} ({system_said(error)})."
        ) from error


def walk_pictures(root: Path, folder: str = "", *, left_out: list[LeftOut]) -> Iterator[str]:
    """The pictures below `root / folder`, sorted within each of its folders, named relative to `root`.

    Each folder is walked once, under its own name where it has one below `root / folder`; links to others come last.
    Names are texts: a `Path` per picture is slow. `left_out` gets what looks like a picture and is none that can
    be read.

    Raises:
        InvalidInputError: a folder that may not be read.
    """
    walked: set[tuple[int, int]] = set()
    coming = deque([folder])
    while coming:
        yield from _walk(root, coming.popleft(), left_out, walked, coming)


def _walk(
    root: Path, folder: str, left_out: list[LeftOut], walked: set[tuple[int, int]], links: deque[str]
) -> Iterator[str]:
    """The pictures of a folder that was not walked, and of those in it; `links` gets the links to folders."""
    place = root / folder
    found = entries(place)
    status = place.stat()
    here = status.st_dev, status.st_ino
    if here in walked:
        left_out.append((folder, "a link to a folder that is listed already"))
        return
    walked.add(here)
    for name, is_folder in found:
        inner = os.path.join(folder, name)  # noqa: PTH118
        if is_folder and (root / inner).is_symlink():
            links.append(inner)
        elif is_folder:
            yield from _walk(root, inner, left_out, walked, links)
        elif suffix_of(name) in IMAGE_SUFFIXES:
            yield inner
        elif suffix_of(name) in OTHER_PICTURES:
            left_out.append((inner, OTHER_KIND))


def entries(place: Path) -> list[tuple[str, bool]]:
    """Names in a folder, sorted, and whether each is a folder; hidden ones are left out.

    Raises:
        InvalidInputError: it may not be read.
    """
    try:
        with os.scandir(place) as found:
            return sorted((item.name, _is_folder(item)) for item in found if not item.name.startswith("."))
    except OSError as error:
        raise InvalidInputError(
            f"Expected a folder that can be read. Received: {str(place)!r}. The system said: "
            f"{system_said(error)}. Change its permissions, or move it elsewhere."
        ) from error


def suffix_of(name: str) -> str:
    """The ending of a file's name in small letters, `.jpg`."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path per picture is slow


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def sample_paths() -> list[Path]:
    """The files of the eight photographs that ship with the package."""
    return list_images(Path(__file__).parents[1] / "photos")
